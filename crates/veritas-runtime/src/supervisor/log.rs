//! Logs: text or JSON lines, to stderr or a file. Never a prompt or an answer, at any level.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};
use crate::failure::{Code, Failure};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging; once per process.
///
/// # Errors
/// If the file cannot be opened.
pub(crate) fn start(log: &Log) -> Result<(), Failure> {
    let sink = match &log.file {
        None => Sink::Stderr,
        Some(path) => {
            let mut options = OpenOptions::new();
            options.create(true).append(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path).map_err(|error| {
                Failure::new(Code::Config, format!("cannot open the log file {}: {error}", path.display()))
            })?;
            Sink::File(Arc::new(Mutex::new(file)))
        }
    };
    let (filter, handle) = reload::Layer::new(level_filter(log.level));
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let is_coloured = log.file.is_none() && std::io::stderr().is_terminal();
    let started = match log.format {
        LogFormat::Text => registry.with(layer.with_ansi(is_coloured).with_writer(sink)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_writer(sink)).try_init(),
    };
    started.map_err(|error| Failure::internal(format!("cannot start logging: {error}")))?;
    let _ = LEVEL.set(handle);
    Ok(())
}

/// Changes what is logged from now on.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails only if logging has ended.
        let _ = handle.modify(|filter| *filter = level_filter(level));
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Where lines go. A line that cannot be written, for example since the disk is full, is lost: the daemon goes on.
#[derive(Clone)]
enum Sink {
    Stderr,
    File(Arc<Mutex<std::fs::File>>),
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = match self {
            Self::Stderr => std::io::stderr().lock().write_all(line),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line),
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
