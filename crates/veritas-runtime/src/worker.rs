//! The worker: a process that confines itself, then reads a model and does one job with it.
//!
//! Two threads matter. The main thread does the job: it loads the model and computes. The *link* thread reads what the
//! supervisor sends, answers heartbeats, and tokenises, so that none of that waits for a step. The rest is the compute
//! team and the thread that renders templates. All of them are started before the last layer of the sandbox forbids it.
//!
//! Architecture invariant: nothing here opens a file, a socket or a process, and no byte of a model is read before
//! `veritas_sandbox::confine` has returned.

mod answer;
mod output;
mod prompt;
mod sampling;
mod serve;

use std::fs::File;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Instant;

use veritas_kernels::Team;
use veritas_proto::{Frame, FrameDecoder, Kind};
use veritas_sandbox::Socket;

use crate::failure::Failure;
use crate::jobs::{self, Context, Job};
use crate::link::{Admission, BODY_BYTES_MAX, Order, Panic, Start, Started, decode_json, encode_json};
pub(crate) use output::Output;
pub(crate) use prompt::token_text;
pub use prompt::{date, date_of};
use serve::{Pulse, Service};

/// Bytes that are read from the supervisor at once.
const READ_BYTES: usize = 64 << 10;

/// Exit code of a worker that could not do what it was asked, and has said so.
const EXIT_REFUSED: u8 = 1;

/// What the link thread hands to the main thread.
enum Incoming {
    Order(Box<Order>),
    Serve(serve::Command),
}

/// The main function of a worker. `n_files` descriptors were handed over; `built_in` is the model that is part of the
/// program.
pub fn main(n_files: usize, built_in: &'static [u8]) -> ExitCode {
    let Ok(inherited) = veritas_sandbox::inherited(n_files) else {
        // There is nobody to tell: without the connection this is no worker.
        return ExitCode::from(EXIT_REFUSED);
    };
    // One descriptor for both ends: a second one would be closed as foreign when the process is confined.
    let socket = Arc::new(inherited.socket);
    let output = Arc::new(Output::new(Arc::clone(&socket)));
    report_panics(Arc::clone(&output));
    match work(socket, inherited.files, &output, built_in) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(0, &failure);
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// Tells the supervisor where a panic happened; its message is not told, since it may hold a prompt.
fn report_panics(output: Arc<Output>) {
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let mut frame = Vec::new();
        if encode_json(&mut frame, Kind::WORKER_PANIC, 0, &Panic { location }).is_ok() {
            output.try_send(&frame);
        }
    }));
}

fn work(
    socket: Arc<Socket>,
    files: Vec<File>,
    output: &Arc<Output>,
    built_in: &'static [u8],
) -> Result<(), Failure> {
    let mut link = Link { socket, decoder: FrameDecoder::new(BODY_BYTES_MAX) };
    let Some(frame) = link.next()? else { return Ok(()) };
    if frame.kind != Kind::WORKER_START {
        return Err(Failure::internal(format!("the first frame is {}, not WORKER_START", frame.kind)));
    }
    let start: Start = decode_json(&frame)?;
    let shared = Arc::new(Shared::new());
    let (sender, incoming) = mpsc::channel();
    let threads = {
        let (shared, output) = (Arc::clone(&shared), Arc::clone(output));
        move || -> Result<Vec<Arc<Team>>, Failure> {
            veritas_tokenizer::chat::start_render_thread()?;
            std::thread::Builder::new()
                .name("link".to_owned())
                .spawn(move || read_link(link, &sender, &shared, &output))?;
            if start.gives_way {
                // A kernel that does not allow it makes clients wait longer, and nothing else.
                let _ = veritas_sandbox::give_way();
            }
            Ok(start.teams.iter().map(|&n| Arc::new(Team::new(n))).collect())
        }
    };
    let (teams, report) = veritas_sandbox::confine(&start.policy, &start.limits, &start.facts, threads)
        .map_err(confinement_failed)?;
    output.json(Kind::WORKER_STARTED, 0, &Started { report })?;
    let Ok(Incoming::Order(order)) = incoming.recv() else { return Ok(()) };
    if order.n_model_files > files.len() {
        return Err(Failure::internal("fewer files were handed over than the order names"));
    }
    let mut files = files;
    let others = files.split_off(order.n_model_files);
    match order.job {
        Job::Serve(job) => {
            let service = Service::load(&order.model, &files, &job, &teams, built_in)?;
            service.run(&shared, &incoming, output)
        }
        Job::Probe => {
            let Some(supervisor_pid) = start.probes_of else {
                return Err(Failure::internal("this worker was not started to be probed"));
            };
            let model = order.model.open(&files, built_in)?;
            // The probe of the file-size limit writes to the first file after the model's.
            let writable_file = (!others.is_empty()).then_some(files.len());
            let context = veritas_sandbox::ProbeContext { supervisor_pid, writable_file };
            output.json(Kind::WORKER_DONE, 0, &jobs::probe(&start.policy, &context, model)?)
        }
        job => {
            let mut context =
                Context { model: &order.model, files: &files, others, teams: &teams, built_in, output };
            let result = jobs::run(&job, &mut context)?;
            output.json(Kind::WORKER_DONE, 0, &result)
        }
    }
}

fn confinement_failed(error: veritas_sandbox::Error) -> Failure {
    match error {
        veritas_sandbox::Error::StartThreads { source } => match source.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(source) => Failure::internal(format!("cannot start the worker's threads: {source}")),
        },
        error => crate::host::sandbox_failure(&error),
    }
}

/// What the main thread and the link thread both see.
struct Shared {
    /// The time that deadlines are counted from.
    began: Instant,
    pulse: Mutex<Pulse>,
    /// The model, from when it is loaded.
    loaded: OnceLock<prompt::Texts>,
}

impl Shared {
    fn new() -> Self {
        Self { began: Instant::now(), pulse: Mutex::default(), loaded: OnceLock::new() }
    }

    /// Milliseconds since the start, as deadlines count them.
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn pulse(&self) -> std::sync::MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading end of the connection to the supervisor.
struct Link {
    socket: Arc<Socket>,
    decoder: FrameDecoder,
}

impl Link {
    /// The next frame; `None` when the supervisor has closed the connection.
    fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match veritas_sandbox::receive(&self.socket, &mut buffer)? {
                0 => return Ok(None),
                n => self.decoder.push(&buffer[..n]),
            }
        }
    }
}

/// Reads what the supervisor sends until it closes the connection, which ends the process.
fn read_link(mut link: Link, sender: &mpsc::Sender<Incoming>, shared: &Shared, output: &Output) {
    let mut admission = None;
    loop {
        let frame = match link.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => std::process::exit(0),
            Err(failure) => {
                output.failure(0, &failure);
                std::process::exit(i32::from(EXIT_REFUSED));
            }
        };
        let id = frame.request_id;
        match take_frame(&frame, &mut admission, shared, output) {
            Ok(Some(incoming)) => {
                // The main thread is gone only when the process ends.
                let _ = sender.send(incoming);
            }
            Ok(None) => {}
            Err(failure) => output.failure(id, &failure),
        }
    }
}

/// Answers a frame, or makes of it what the main thread is to do.
/// `admission` is what was told of the client of the next request to generate, under its number.
fn take_frame(
    frame: &Frame,
    admission: &mut Option<(u64, Admission)>,
    shared: &Shared,
    output: &Output,
) -> Result<Option<Incoming>, Failure> {
    let id = frame.request_id;
    let texts = || shared.loaded.get().ok_or_else(|| Failure::internal("no model is loaded yet"));
    match frame.kind {
        Kind::WORKER_ORDER => return Ok(Some(Incoming::Order(Box::new(decode_json(frame)?)))),
        Kind::WORKER_PING => output.json(Kind::WORKER_PONG, id, &shared.pulse().pong())?,
        Kind::GENERATE => {
            let admission = admission.take().filter(|(of, _)| *of == id).map(|(_, admission)| admission);
            let mut request = texts()?.generate(&frame.message()?)?;
            if let Some(admission) = admission {
                request.admit(&admission, shared.now_ms());
            }
            return Ok(Some(Incoming::Serve(serve::Command::Submit(id, Box::new(request)))));
        }
        Kind::WORKER_CLIENT => *admission = Some((id, decode_json(frame)?)),
        Kind::CANCEL => return Ok(Some(Incoming::Serve(serve::Command::Cancel(id)))),
        Kind::WORKER_PAUSE => return Ok(Some(Incoming::Serve(serve::Command::Pause(id, true)))),
        Kind::WORKER_RESUME => return Ok(Some(Incoming::Serve(serve::Command::Pause(id, false)))),
        Kind::TOKENIZE => output.message(Kind::TOKENIZE_REPLY, id, &texts()?.tokenize(&frame.message()?)?)?,
        Kind::DETOKENIZE => {
            output.message(Kind::DETOKENIZE_REPLY, id, &texts()?.detokenize(&frame.message()?)?)?;
        }
        Kind::EMBED => return Err(texts()?.no_embeddings()),
        other => return Err(Failure::internal(format!("a worker takes no {other}"))),
    }
    Ok(None)
}
