//! The job of a model that is served: requests come and go while the engine steps.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::Instant;

use veritas_engine::{Engine, Model, Occupancy, RequestId};
use veritas_kernels::Team;
use veritas_proto::Kind;

use super::answer::Answer;
use super::prompt::{Prepared, Texts};
use super::{Incoming, Output, Shared};
use crate::failure::Failure;
use crate::jobs::{ServeJob, team_of};
use crate::link::{Loaded, Pong};
use crate::spec::ModelSpec;

/// What the supervisor asks of the engine. The number is its name of a request.
pub(super) enum Command {
    Submit(u64, Box<Prepared>),
    Cancel(u64),
    Pause(u64, bool),
}

/// What heartbeats tell.
#[derive(Default)]
pub(super) struct Pulse {
    steps: u64,
    step_began: Option<Instant>,
    occupancy: Occupancy,
}

impl Pulse {
    pub(super) fn pong(&self) -> Pong {
        let step_ms = self.step_began.map_or(0, |began| began.elapsed().as_millis() as u64);
        Pong::new(self.steps, step_ms, self.occupancy)
    }
}

/// A loaded model, ready to serve.
pub(super) struct Service {
    engine: Option<Engine>,
    texts: Texts,
    loaded: Loaded,
}

impl Service {
    /// Reads the model. Without a specification of an engine only its texts are served, so that the vocabulary of a
    /// file that cannot be run is of use.
    pub(super) fn load(
        spec: &ModelSpec,
        files: &[File],
        job: &ServeJob,
        teams: &[Arc<Team>],
        built_in: &'static [u8],
    ) -> Result<Self, Failure> {
        let began = Instant::now();
        let files = spec.open(files, built_in)?;
        let architecture = super::prompt::architecture(files.metadata()).to_owned();
        let mut loaded = Loaded { architecture, n_params: files.set().n_params(), ..Loaded::default() };
        let (engine, texts) = match &job.engine {
            None => (None, Texts::of_metadata(files.metadata())?),
            Some(spec) => {
                let model = Arc::new(Model::new(files)?);
                let texts = Texts::of_model(&model)?;
                let mut config = spec.runner_config(Some(team_of(teams, spec.n_threads())?))?;
                if let (None, Some(contexts)) = (config.n_pages, spec.contexts_cached) {
                    let n_contexts = contexts.min(config.n_sequences).max(1);
                    config.n_pages = Some(config.pages_of_contexts(model.plan(), n_contexts)?);
                }
                loaded.isa = config.isa.to_string();
                loaded.threads = config.n_threads;
                let engine = Engine::new(model, &config)?;
                loaded.n_context = engine.n_context();
                (Some(engine), texts)
            }
        };
        loaded.n_vocab = texts.n_vocab();
        loaded.has_chat_template = texts.has_chat_template();
        loaded.load_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok(Self { engine, texts, loaded })
    }

    /// Serves until the supervisor closes the connection.
    pub(super) fn run(
        self,
        shared: &Shared,
        incoming: &mpsc::Receiver<Incoming>,
        output: &Output,
    ) -> Result<(), Failure> {
        // It is set here alone.
        let _ = shared.loaded.set(self.texts);
        output.json(Kind::WORKER_DONE, 0, &self.loaded)?;
        let Some(engine) = self.engine else {
            // The link thread answers, and ends the process with the connection.
            while incoming.recv().is_ok() {}
            return Ok(());
        };
        let mut serving =
            Serving { engine, output, answers: HashMap::new(), names: HashMap::new(), frames: Vec::new() };
        shared.pulse().occupancy = serving.engine.occupancy();
        while serving.take_commands(incoming) {
            serving.step(shared)?;
        }
        Ok(())
    }
}

struct Serving<'a> {
    engine: Engine,
    output: &'a Output,
    answers: HashMap<RequestId, Answer>,
    /// The engine's names of requests by the supervisor's.
    names: HashMap<u64, RequestId>,
    /// Frames of the present step, sent together.
    frames: Vec<u8>,
}

impl Serving<'_> {
    /// Takes what has come; waits for something if there is nothing to compute. False where nothing can come any more.
    fn take_commands(&mut self, incoming: &mpsc::Receiver<Incoming>) -> bool {
        let mut waits = !self.engine.is_runnable();
        loop {
            let next = if waits { incoming.recv().map_err(TryRecvError::from) } else { incoming.try_recv() };
            match next {
                Ok(Incoming::Serve(command)) => self.take(command),
                // A second order is a fault of the supervisor; the first one stands.
                Ok(Incoming::Order(_)) => {}
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
            waits = false;
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(wire_id, prepared) => match self.engine.submit(&prepared.request) {
                Ok(id) => {
                    self.names.insert(wire_id, id);
                    self.answers.insert(id, Answer::new(wire_id, *prepared));
                }
                Err(error) => self.output.failure(wire_id, &error.into()),
            },
            Command::Cancel(wire_id) => {
                let Some(id) = self.names.remove(&wire_id) else { return };
                self.engine.cancel(id);
                if let Some(mut answer) = self.answers.remove(&id) {
                    answer.flush(&mut self.frames);
                    answer.finish(&mut self.frames);
                    self.send();
                }
            }
            Command::Pause(wire_id, paused) => {
                if let Some(&id) = self.names.get(&wire_id) {
                    self.engine.set_paused(id, paused);
                }
            }
        }
    }

    fn step(&mut self, shared: &Shared) -> Result<(), Failure> {
        shared.pulse().step_began = Some(Instant::now());
        let Self { engine, answers, names, frames, output } = self;
        let mut touched = Vec::new();
        let mut tell = |told: veritas_engine::Output| {
            let id = told.request();
            if touched.last() != Some(&id) {
                touched.push(id);
            }
            if let veritas_engine::Output::Failed { error, .. } = told {
                if let Some(answer) = answers.remove(&id) {
                    names.remove(&answer.wire_id());
                    output.failure(answer.wire_id(), &error.into());
                }
            } else if let Some(answer) = answers.get_mut(&id) {
                answer.take(told);
            }
        };
        engine.expire(shared.now_ms(), &mut tell);
        engine.step(&mut tell)?;
        for id in touched {
            let Some(answer) = answers.get_mut(&id) else { continue };
            answer.flush(frames);
            if answer.has_ended() {
                answer.finish(frames);
                names.remove(&answer.wire_id());
                answers.remove(&id);
            }
        }
        self.send();
        let mut pulse = shared.pulse();
        pulse.steps += 1;
        pulse.step_began = None;
        pulse.occupancy = self.engine.occupancy();
        Ok(())
    }

    fn send(&mut self) {
        if !self.frames.is_empty() {
            // If the supervisor is gone, the link thread ends the process.
            let _ = self.output.send(&self.frames);
            self.frames.clear();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use veritas_proto::v1::generate_request::Prompt;
    use veritas_proto::{Frame, FrameDecoder, v1};

    use super::*;
    use crate::link::BODY_BYTES_MAX;
    use crate::spec::EngineSpec;

    static MODEL: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/demo-model/veritas-demo.gguf"));

    /// Positions far beyond what fits between a worker and a supervisor that does not read.
    const N_CONTEXT: usize = 16384;

    const REQUEST: u64 = 7;

    fn service() -> Service {
        let spec = ModelSpec {
            built_in: true,
            name: "built-in".to_owned(),
            overrides: vec![format!("llama.context_length=int:{N_CONTEXT}")],
        };
        let engine = EngineSpec { n_context: Some(N_CONTEXT), threads: Some(1), ..EngineSpec::default() };
        let job = ServeJob { engine: Some(engine) };
        Service::load(&spec, &[], &job, &[Arc::new(Team::new(1))], MODEL).unwrap()
    }

    fn prepared(texts: &Texts) -> Box<Prepared> {
        let text = v1::TextPrompt { text: "What".to_owned(), parse_special: false };
        let sampling = v1::Sampling {
            max_tokens: Some(N_CONTEXT as u32 / 2),
            ignore_eos: true,
            ..v1::Sampling::default()
        };
        let request = v1::GenerateRequest {
            prompt: Some(Prompt::Text(text)),
            sampling: Some(sampling),
            stream: true,
            ..v1::GenerateRequest::default()
        };
        Box::new(texts.generate(&request).unwrap())
    }

    fn next_frame(mut socket: &UnixStream, decoder: &mut FrameDecoder) -> Frame {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = decoder.next_frame().unwrap() {
                return frame;
            }
            let n = socket.read(&mut buffer).unwrap();
            assert!(n > 0, "the worker has hung up");
            decoder.push(&buffer[..n]);
        }
    }

    #[test]
    fn a_cancelled_request_is_computed_no_further_than_to_the_end_of_the_step_that_runs() {
        let (supervisor_end, worker_end) = UnixStream::pair().unwrap();
        let (shared, output) = (Shared::new(), Output::new(Arc::new(worker_end)));
        let service = service();
        let submit = Command::Submit(REQUEST, prepared(&service.texts));
        let (sender, incoming) = mpsc::channel();
        std::thread::scope(|scope| {
            // Moved, so that they are gone, and the worker ends, however this test does.
            let (sender, supervisor_end) = (sender, supervisor_end);
            let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
            let mut next = || next_frame(&supervisor_end, &mut decoder);
            let (shared, output) = (&shared, &output);
            let worker = scope.spawn(move || service.run(shared, &incoming, output));
            assert_eq!(next().kind, Kind::WORKER_DONE);
            sender.send(Incoming::Serve(submit)).unwrap();
            assert_eq!(next().kind, Kind::DELTA);
            // From here on the worker computes as fast as it can, at most until nothing more fits in the socket.
            sender.send(Incoming::Serve(Command::Cancel(REQUEST))).unwrap();
            // Steps that ended before, or while the worker could know of it. The one after them may have begun.
            let n_steps = shared.pulse().steps;
            let finish = loop {
                let frame = next();
                assert_eq!(frame.request_id, REQUEST);
                if frame.kind == Kind::FINISH {
                    break frame.message::<v1::Finish>().unwrap();
                }
                assert_eq!(frame.kind, Kind::DELTA);
            };
            assert_eq!(finish.choices[0].finish_reason(), v1::FinishReason::FinishCancelled);
            // The prompt fits in one step, so that each step has given one token.
            let n_tokens = finish.usage.unwrap().completion_tokens;
            assert!((1..=n_steps + 1).contains(&n_tokens), "{n_tokens} tokens, {n_steps} steps");
            drop(sender);
            worker.join().unwrap().unwrap();
        });
    }
}
