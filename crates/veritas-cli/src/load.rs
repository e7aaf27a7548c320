//! From the flags to a confined worker that has loaded a model.

use std::time::Instant;

use veritas_proto::v1;
use veritas_runtime::host::{Confined, OpenModel};
use veritas_runtime::jobs::ServeJob;
use veritas_runtime::link::Loaded;

use crate::args::{EngineArgs, ModelArgs};
use crate::failure::{Code, Failure};
use crate::terminal;

/// The model that is part of the program, so that the first run needs no download.
pub(crate) const BUILT_IN: &[u8] = include_bytes!("../../../tools/demo-model/veritas-demo.gguf");

/// Opens the files of the model that the flags name. They are not read here.
pub(crate) fn open_model(args: &ModelArgs) -> Result<OpenModel, Failure> {
    match &args.model {
        None => Ok(OpenModel::built_in(BUILT_IN)),
        Some(path) => Ok(OpenModel::open(path)?),
    }
}

/// A worker that serves one user, and what is known of its model.
pub(crate) struct Served<'a> {
    pub(crate) worker: Confined<'a>,
    pub(crate) loaded: Loaded,
    /// Of all the model's files; `None` if the user did not want it computed.
    digest: Option<String>,
    load_ms: f64,
}

/// Starts a worker and has it load the model. Meanwhile, unless the flags forbid it, the digest is computed here.
pub(crate) fn serve<'a>(
    model: &'a OpenModel,
    args: &'a ModelArgs,
    engine: &EngineArgs,
    n_sequences: usize,
    quiet: bool,
) -> Result<Served<'a>, Failure> {
    let start = Instant::now();
    let policy = args.sandbox.policy()?;
    let job = ServeJob { engine: Some(engine.spec(n_sequences)?) };
    let bar = terminal::progress_bar(model.bytes, "bytes", quiet || args.no_digest).with_message("digest");
    let (served, digest) = std::thread::scope(|scope| {
        let hashing = (!args.no_digest)
            .then(|| scope.spawn(|| model.digest(BUILT_IN, &mut |done| bar.set_position(done))));
        let served = Confined::serve(model, &args.override_kv, job, &policy);
        let digest = hashing.map(|hashing| {
            hashing.join().unwrap_or_else(|_| Err(veritas_runtime::Failure::internal("the digest failed")))
        });
        (served, digest)
    });
    bar.finish_and_clear();
    let (worker, loaded) = served?;
    let digest = digest.transpose()?.map(|digest| digest.to_string());
    Ok(Served { worker, loaded, digest, load_ms: start.elapsed().as_secs_f64() * 1e3 })
}

impl Served<'_> {
    /// Adds to an answer what the worker does not know.
    pub(crate) fn complete(&self, finish: &mut v1::Finish) {
        finish.model_digest = self.digest.clone().unwrap_or_default();
        finish.timings.get_or_insert_default().load_ms = self.load_ms;
        let layers = self.worker.report().iter();
        finish.effective = Some(v1::Effective {
            isa: self.loaded.isa.clone(),
            threads: self.loaded.threads as u32,
            sandbox: layers
                .map(|(layer, state, _)| (layer.name().to_owned(), state.name().to_owned()))
                .collect(),
        });
    }

    /// Says on stderr what confines the worker, layer by layer, and how the model is run.
    pub(crate) fn describe(&self) {
        for (layer, state, reason) in self.worker.report().iter() {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            terminal::say(format_args!("sandbox: {:16} {}{reason}", layer.name(), state.name()));
        }
        let Loaded { architecture, n_context, n_params, isa, threads, .. } = &self.loaded;
        terminal::say(format_args!(
            "model: {architecture}, {n_params} parameters, context {n_context}; {isa}, {threads} threads"
        ));
    }

    /// Asks, shows what comes, and returns the whole answer. An interrupt cancels the request.
    pub(crate) fn generate(
        &mut self,
        id: u64,
        request: &v1::GenerateRequest,
        show: &mut dyn FnMut(&v1::ChoiceDelta) -> std::io::Result<()>,
    ) -> Result<v1::Finish, Failure> {
        use veritas_proto::Kind;
        self.worker.request(Kind::GENERATE, id, request)?;
        let mut cancel = self.worker.canceller()?;
        crate::interrupt::on_request(move || cancel(id));
        let mut answers = crate::answer::Answers::new(request.n_choices);
        loop {
            let frame = self.worker.receive()?;
            match frame.kind {
                Kind::DELTA => answers.take(frame.message().map_err(malformed)?, show)?,
                Kind::FINISH => {
                    let mut finish = answers.complete(frame.message().map_err(malformed)?);
                    self.complete(&mut finish);
                    return Ok(finish);
                }
                other => return Err(Failure::new(Code::Internal, format!("the worker sent {other}"))),
            }
        }
    }
}

fn malformed(error: veritas_proto::Error) -> Failure {
    Failure::new(Code::Internal, error.to_string())
}
