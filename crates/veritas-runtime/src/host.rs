//! Starting a worker and talking with it, for commands that wait for its answer. The daemon has its own, asynchronous way
//! (`supervisor`), over the same [`Launch`].

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use veritas_base::{Sha256Digest, Sha256Hasher};
use veritas_proto::{Frame, FrameDecoder, Kind, Message, encode, v1};
use veritas_sandbox::{Exit, Limits, Policy, Report, SpawnSpec, Worker};

use crate::failure::{Code, Failure};
use crate::jobs::{Job, ServeJob};
use crate::link::{
    BODY_BYTES_MAX, Loaded, Order, Panic, Progress, Start, Started, WORKER_ARGUMENT, decode_json, encode_json,
};
use crate::spec::ModelSpec;

pub use veritas_engine::part_paths;

/// Bytes that are hashed between two calls of a progress function, and read at once.
const HASH_STEP_BYTES: usize = 4 << 20;

/// Bytes that are read from a worker at once.
const READ_BYTES: usize = 64 << 10;

/// How long a worker that has closed its connection may take to end by itself, so that its exit says why.
const END_TIME: Duration = Duration::from_secs(2);

/// How often its end is looked for meanwhile.
const END_INTERVAL: Duration = Duration::from_millis(5);

/// A model's files, opened by name and not read: this process never parses a model.
#[derive(Debug)]
pub struct OpenModel {
    /// The path that the user gave; `None` for the model that is part of the program.
    pub path: Option<PathBuf>,
    /// The files: all parts of a split model.
    pub files: Vec<File>,
    /// Bytes of all files, when they were opened.
    pub bytes: u64,
}

impl OpenModel {
    /// The model that is part of the program.
    pub fn built_in(bytes: &[u8]) -> Self {
        Self { path: None, files: Vec::new(), bytes: bytes.len() as u64 }
    }

    /// Opens the files of the model that `path` belongs to.
    ///
    /// # Errors
    /// If one of them is not there, may not be read, or is no regular file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path.is_dir() {
            let message = format!("{} is a folder; only GGUF files can be run", path.display());
            return Err(Failure::new(Code::UnsupportedModel, message).hint("name the .gguf file itself"));
        }
        let mut files = Vec::new();
        let mut bytes = 0_u64;
        for part in part_paths(path) {
            let file = open_regular(&part)?;
            bytes = bytes.saturating_add(file.metadata()?.len());
            files.push(file);
        }
        Ok(Self { path: Some(path.to_owned()), files, bytes })
    }

    /// The model as a worker is told of it.
    pub fn spec(&self, overrides: &[String]) -> ModelSpec {
        ModelSpec {
            built_in: self.path.is_none(),
            name: self
                .path
                .as_ref()
                .map_or_else(|| "the built-in model".to_owned(), |p| p.display().to_string()),
            overrides: overrides.to_vec(),
        }
    }

    /// The files once more, to hand them over.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn duplicates(&self) -> Result<Vec<File>, Failure> {
        Ok(self.files.iter().map(File::try_clone).collect::<Result<_, _>>()?)
    }

    /// The SHA-256 digest of all bytes, part after part. They are read, not mapped: a file that is cut short meanwhile is
    /// an error here and nothing worse. `progress` is told how many bytes are done.
    ///
    /// # Errors
    /// If reading fails.
    pub fn digest(&self, built_in: &[u8], progress: &mut dyn FnMut(u64)) -> Result<Sha256Digest, Failure> {
        let mut hasher = Sha256Hasher::default();
        if self.path.is_none() {
            hasher.update(built_in);
        }
        let mut buffer = vec![0; HASH_STEP_BYTES];
        let mut done = 0;
        for file in &self.files {
            let mut offset = 0;
            loop {
                let n = read_at(file, &mut buffer, offset)?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                offset += n as u64;
                done += n as u64;
                progress(done);
            }
        }
        Ok(hasher.finish())
    }

    /// Whether the files are shorter now than when they were opened.
    pub fn was_cut_short(&self) -> bool {
        let now = self.files.iter().map(|file| file.metadata().map_or(0, |metadata| metadata.len()));
        now.sum::<u64>() < self.bytes
    }
}

/// Opens a regular file. A pipe or a device of that name is an error, and is not waited for.
///
/// # Errors
/// `not_found` if it is not there or may not be read.
pub fn open_regular(path: &Path) -> Result<File, Failure> {
    let not_found = |error: std::io::Error| {
        Failure::new(Code::NotFound, format!("cannot open {}: {error}", path.display()))
            .hint("check the path and its permissions")
    };
    // Opening a pipe waits for its other end, so that its kind is looked at first.
    if !std::fs::metadata(path).map_err(not_found)?.is_file() {
        return Err(Failure::new(Code::NotFound, format!("{} is no regular file", path.display())));
    }
    File::open(path).map_err(not_found)
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

/// A worker that is to be started.
pub struct Launch<'m, 'a> {
    /// Its model.
    pub model: &'m OpenModel,
    /// Changes of the metadata, as `KEY=TYPE:VALUE`.
    pub overrides: &'a [String],
    /// Files that the job needs besides the model's.
    pub others: Vec<File>,
    /// What it is to do.
    pub job: Job,
    /// What confines it.
    pub policy: &'a Policy,
    /// Its own bounds, in place of the policy's.
    pub limits: Limits,
    /// Whether it may run without a sandbox where there is none for the system.
    pub allow_missing: bool,
}

impl Launch<'_, '_> {
    /// Starts the process. Returns it with the first bytes that are to be sent to it.
    ///
    /// The calling thread must live as long as the worker, which ends with it.
    ///
    /// # Errors
    /// If the system refuses, or a layer of the sandbox that the policy requires cannot be had.
    pub fn spawn(self) -> Result<(Worker, Vec<u8>), Failure> {
        let Self { model, overrides, others, job, policy, limits, allow_missing } = self;
        let mut files = model.duplicates()?;
        let n_model_files = files.len();
        files.extend(others);
        let n_files = files.len().to_string();
        let spec = SpawnSpec {
            args: &[WORKER_ARGUMENT, &n_files],
            descriptors: files.into_iter().map(Into::into).collect(),
            policy,
            allow_missing,
        };
        let worker = veritas_sandbox::spawn(spec).map_err(|error| sandbox_failure(&error))?;
        let start = Start {
            policy: policy.clone(),
            limits,
            facts: worker.facts().clone(),
            teams: job.teams(),
            gives_way: matches!(job, Job::Serve(_)),
            probes_of: matches!(job, Job::Probe).then(std::process::id),
        };
        let mut frames = Vec::new();
        encode_json(&mut frames, Kind::WORKER_START, 0, &start)?;
        let order = Order { model: model.spec(overrides), n_model_files, job };
        encode_json(&mut frames, Kind::WORKER_ORDER, 0, &order)?;
        Ok((worker, frames))
    }
}

/// What a user is told of an error of the sandbox.
pub fn sandbox_failure(error: &veritas_sandbox::Error) -> Failure {
    match error {
        veritas_sandbox::Error::Unsupported { .. } => Failure::new(Code::Forbidden, error.to_string())
            .hint("`sandbox.allow_missing = true` in the configuration lets `veritas-sdr serve` do without"),
        veritas_sandbox::Error::Required { .. } | veritas_sandbox::Error::NotInForce { .. } => {
            Failure::new(Code::Forbidden, error.to_string())
                .hint("the policy requires it; `--sandbox default` requires what every kernel has")
        }
        veritas_sandbox::Error::Policy { .. } => Failure::new(Code::Config, error.to_string()),
        _ => Failure::internal(error.to_string()),
    }
}

/// Why a worker's end is a failure.
pub fn death(exit: Exit, panic: Option<&Panic>, model: &OpenModel) -> Failure {
    let because = match (exit, panic) {
        (_, Some(panic)) => format!("the worker failed at {}: a fault of the program", panic.location),
        (Exit::Signal(7), _) if model.was_cut_short() => {
            "the model's file was cut short while it was in use".to_owned()
        }
        (Exit::Signal(6), _) => format!("the worker was {exit}; it may have run out of its memory"),
        (exit, _) => format!("the worker ended unexpectedly: {exit}"),
    };
    Failure::new(Code::WorkerLost, because)
}

/// A confined worker that this process waits for.
pub struct Confined<'m> {
    worker: Worker,
    socket: veritas_sandbox::Socket,
    decoder: FrameDecoder,
    model: &'m OpenModel,
    report: Report,
    panic: Option<Panic>,
}

impl<'m> Confined<'m> {
    /// Starts a worker and waits until it is confined.
    ///
    /// # Errors
    /// As [`Launch::spawn`], and what the worker says.
    pub fn start(launch: Launch<'m, '_>) -> Result<Self, Failure> {
        let model = launch.model;
        let (mut worker, frames) = launch.spawn()?;
        let socket =
            worker.take_socket().ok_or_else(|| Failure::internal("the worker's socket was taken already"))?;
        let decoder = FrameDecoder::new(BODY_BYTES_MAX);
        let mut confined = Self { worker, socket, decoder, model, report: Report::default(), panic: None };
        confined.send(&frames)?;
        let frame = confined.receive()?;
        match frame.kind {
            Kind::WORKER_STARTED => confined.report = decode_json::<Started>(&frame)?.report,
            _ => return Err(confined.unexpected(&frame)),
        }
        Ok(confined)
    }

    /// Starts a worker that serves requests, and waits until its model is loaded.
    ///
    /// # Errors
    /// As [`Confined::start`], and what is wrong with the model.
    pub fn serve(
        model: &'m OpenModel,
        overrides: &[String],
        job: ServeJob,
        policy: &Policy,
    ) -> Result<(Self, Loaded), Failure> {
        let launch = Launch {
            model,
            overrides,
            others: Vec::new(),
            job: Job::Serve(job),
            policy,
            limits: Limits::default(),
            allow_missing: false,
        };
        let mut confined = Self::start(launch)?;
        let loaded = decode_json(&confined.done(&mut std::io::sink(), &mut |_| {})?)?;
        Ok((confined, loaded))
    }

    /// What the worker observed of its sandbox.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Waits for the end of a job. `out` gets its output, `progress` is told how far it is.
    ///
    /// # Errors
    /// What the job or `out` says; `worker_lost` if the worker dies.
    pub fn finish(
        mut self,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Value, Failure> {
        decode_json(&self.done(out, progress)?)
    }

    fn done(&mut self, out: &mut dyn Write, progress: &mut dyn FnMut(Progress)) -> Result<Frame, Failure> {
        loop {
            let frame = self.receive()?;
            match frame.kind {
                Kind::WORKER_BYTES => out.write_all(&frame.body)?,
                Kind::WORKER_PROGRESS => progress(decode_json(&frame)?),
                Kind::WORKER_DONE => return Ok(frame),
                _ => return Err(self.unexpected(&frame)),
            }
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// `worker_lost` if the worker is gone.
    pub fn request(&mut self, kind: Kind, request_id: u64, message: &impl Message) -> Result<(), Failure> {
        let mut frame = Vec::new();
        encode(&mut frame, kind, request_id, message);
        self.send(&frame)
    }

    /// A second writing end, to cancel a request while this thread waits for its answer.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn canceller(&self) -> Result<impl FnMut(u64) + Send + use<>, Failure> {
        let mut socket = self.socket.try_clone()?;
        Ok(move |request_id| {
            let mut frame = Vec::new();
            encode(&mut frame, Kind::CANCEL, request_id, &v1::Cancel {});
            // A worker that is gone has ended its requests.
            let _ = socket.write_all(&frame);
        })
    }

    /// Ends the worker, from another thread, while this one waits for it.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn ender(&self) -> Result<impl FnMut() + Send + use<>, Failure> {
        let socket = self.socket.try_clone()?;
        // The worker ends with its connection; one that does not is killed by whoever waits for it.
        Ok(move || hang_up(&socket))
    }

    /// The worker's process, as this system sees it.
    pub fn pid(&self) -> u32 {
        self.worker.pid()
    }

    fn send(&mut self, frames: &[u8]) -> Result<(), Failure> {
        match self.socket.write_all(frames) {
            Ok(()) => Ok(()),
            // What it has said before it died is read first.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// What the worker says in an ERROR frame; `worker_lost` if it died.
    pub fn receive(&mut self) -> Result<Frame, Failure> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.decoder.next_frame()? {
                Some(frame) if frame.kind == Kind::ERROR => {
                    return Err(Failure::from_wire(frame.message::<v1::Error>()?));
                }
                Some(frame) if frame.kind == Kind::WORKER_PANIC => self.panic = decode_json(&frame).ok(),
                Some(frame) => return Ok(frame),
                None => match self.socket.read(&mut buffer) {
                    Ok(0) => return Err(self.lost()),
                    Ok(n) => self.decoder.push(&buffer[..n]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                        return Err(self.lost());
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    fn lost(&mut self) -> Failure {
        let deadline = Instant::now() + END_TIME;
        loop {
            match self.worker.try_wait() {
                Ok(Some(exit)) => return death(exit, self.panic.as_ref(), self.model),
                // It has closed the connection and lives: it may not do so without a supervisor.
                Ok(None) if Instant::now() >= deadline => self.worker.kill(),
                Ok(None) => {}
                Err(error) => return sandbox_failure(&error),
            }
            std::thread::sleep(END_INTERVAL);
        }
    }

    fn unexpected(&self, frame: &Frame) -> Failure {
        Failure::internal(format!("the worker sent {}, which is not due", frame.kind))
    }
}

#[cfg(unix)]
fn hang_up(socket: &veritas_sandbox::Socket) {
    // One that is closed already has ended the worker.
    let _ = socket.shutdown(std::net::Shutdown::Both);
}

/// There are no workers on this platform yet.
#[cfg(windows)]
fn hang_up(_socket: &veritas_sandbox::Socket) {}

/// The most memory that a process has had so far, mapped pages of its model among it; `None` where the system does not
/// say.
pub fn rss_peak_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
