//! Work that a confined worker does for a command.

use std::io::Write;

use serde_json::Value;
use veritas_runtime::Code;
use veritas_runtime::host::{Confined, Launch, OpenModel};
use veritas_runtime::jobs::{Job, ServeJob};
use veritas_runtime::link::{Loaded, Progress};
use veritas_sandbox::{Limits, Policy, Report};

use crate::failure::Failure;
use crate::interrupt;
use crate::terminal;

/// A worker that does one job.
pub(crate) struct Working<'a> {
    confined: Confined<'a>,
}

/// A launch of a worker for a job that needs no files but the model's.
pub(crate) fn launch<'m, 'a>(
    model: &'m OpenModel,
    overrides: &'a [String],
    job: Job,
    policy: &'a Policy,
) -> Launch<'m, 'a> {
    Launch {
        model,
        overrides,
        others: Vec::new(),
        job,
        policy,
        limits: Limits::default(),
        allow_missing: false,
    }
}

impl<'a> Working<'a> {
    /// Starts a worker. From now on, an interrupt ends it.
    pub(crate) fn start(launch: Launch<'a, '_>, verbose: bool) -> Result<Self, Failure> {
        let confined = Confined::start(launch)?;
        interrupt::on_request(confined.ender()?);
        if verbose {
            say_layers(confined.report());
        }
        Ok(Self { confined })
    }

    /// The worker's process.
    pub(crate) fn pid(&self) -> u32 {
        self.confined.pid()
    }

    /// Waits for its end. `out` gets what the job writes, `progress` is told how far it is.
    pub(crate) fn finish(
        self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Value, Failure> {
        let mut out = Recorder { out, error: None };
        let result = self.confined.finish(&mut out, progress);
        if interrupt::requested() {
            return Err(Failure::new(Code::Cancelled, "interrupted"));
        }
        match out.error {
            // What became of the worker afterwards follows from it.
            Some(error) => Err(error.into()),
            None => Ok(result?),
        }
    }
}

/// Starts a worker that serves the model.
pub(crate) fn serve<'m>(
    model: &'m OpenModel,
    overrides: &[String],
    job: ServeJob,
    policy: &Policy,
    verbose: bool,
) -> Result<(Confined<'m>, Loaded), Failure> {
    let (confined, loaded) = Confined::serve(model, overrides, job, policy)?;
    if verbose {
        say_layers(confined.report());
    }
    Ok((confined, loaded))
}

/// Says which layers of the sandbox are in force, and why others are not.
fn say_layers(report: &Report) {
    for (layer, state, reason) in report.iter() {
        match reason {
            Some(reason) => terminal::say(format_args!("sandbox: {:16} {state}: {reason}", layer.name())),
            None => terminal::say(format_args!("sandbox: {:16} {state}", layer.name())),
        }
    }
}

/// Keeps the error of a writer, which says more than what follows from it.
struct Recorder<'a> {
    out: &'a mut dyn Write,
    error: Option<std::io::Error>,
}

impl Recorder<'_> {
    fn record<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != std::io::ErrorKind::Interrupted {
                self.error = Some(error);
            }
            kind.into()
        })
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes);
        self.record(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.out.flush();
        self.record(flushed)
    }
}
