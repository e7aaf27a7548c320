//! Whom a conversation is with: a worker of one's own, or the daemon.

use veritas_ipc::blocking::{Client, Flow};
use veritas_proto::v1;
use veritas_runtime::host::OpenModel;

use crate::answer::Answers;
use crate::args::ChatArgs;
use crate::daemon_args::DaemonArgs;
use crate::failure::Failure;
use crate::interrupt;
use crate::load::{Served, open_model, serve};

/// A partner.
pub(crate) enum Talk<'a> {
    /// A confined worker of one's own, and the number of the next request.
    Worker(Box<Served<'a>>, u64),
    /// The daemon, by one of its models.
    Daemon(Box<Remote>),
}

impl Talk<'_> {
    /// Does something with the partner that the flags name.
    pub(crate) fn with<R>(
        args: &ChatArgs,
        work: impl FnOnce(&mut Talk<'_>) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        if args.connect.connect {
            let remote = Remote::connect(&args.connect.daemon, &args.model.name())?;
            return work(&mut Talk::Daemon(Box::new(remote)));
        }
        let model: OpenModel = open_model(&args.model)?;
        let quiet = args.output.quiet || args.output.json;
        let served = serve(&model, &args.model, &args.engine, 1, quiet)?;
        if args.output.verbose {
            served.describe();
        }
        if !served.loaded.has_chat_template {
            return Err(Failure::usage("the model has no chat template")
                .hint("`veritas-sdr run --raw` continues a text"));
        }
        work(&mut Talk::Worker(Box::new(served), 1))
    }

    /// Tokens that a conversation may have.
    pub(crate) fn n_context(&self) -> u64 {
        match self {
            Self::Worker(served, _) => served.loaded.n_context as u64,
            Self::Daemon(remote) => remote.n_context,
        }
    }

    /// Asks, shows what comes, and returns the whole answer.
    pub(crate) fn generate(
        &mut self,
        request: &v1::GenerateRequest,
        show: &mut dyn FnMut(&v1::ChoiceDelta) -> std::io::Result<()>,
    ) -> Result<v1::Finish, Failure> {
        match self {
            Self::Worker(served, id) => {
                *id += 1;
                served.generate(*id - 1, request, show)
            }
            Self::Daemon(remote) => remote.generate(request.clone(), show),
        }
    }
}

/// A model of a daemon.
pub(crate) struct Remote {
    client: Client,
    model: String,
    n_context: u64,
}

impl Remote {
    /// Connects; an answer may take as long as it takes. The name is empty for the daemon's only model.
    pub(crate) fn connect(daemon: &DaemonArgs, name: &str) -> Result<Self, Failure> {
        let mut client = Client::connect(&daemon.path(), &daemon.options(Some(CONNECT_TIMEOUT))?)?;
        client.set_timeout(None);
        let handle = client.cancel_handle();
        interrupt::on_request(move || {
            // A daemon that is gone has ended the request.
            let _ = handle.cancel();
        });
        let is_meant = |model: &&v1::Model| name.is_empty() || model.name == name;
        let n_context = client.welcome().models.iter().find(is_meant).map_or(0, |model| model.n_context);
        Ok(Self { client, model: name.to_owned(), n_context })
    }

    /// Asks, shows what comes, and returns the whole answer.
    pub(crate) fn generate(
        &mut self,
        mut request: v1::GenerateRequest,
        show: &mut dyn FnMut(&v1::ChoiceDelta) -> std::io::Result<()>,
    ) -> Result<v1::Finish, Failure> {
        request.model.clone_from(&self.model);
        let mut answers = Answers::new(request.n_choices);
        let mut taken = Ok(());
        let finish = self.client.generate(request, &mut |delta| {
            if taken.is_ok() {
                taken = answers.take(delta, show);
            }
            if taken.is_ok() { Flow::Continue } else { Flow::Cancel }
        })?;
        taken?;
        Ok(answers.complete(finish))
    }
}

/// How long the handshake with a daemon may take.
pub(crate) const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
