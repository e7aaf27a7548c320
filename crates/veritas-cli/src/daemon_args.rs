//! The command line of the daemon and of its clients.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use veritas_ipc::{ClientOptions, Token};
use veritas_runtime::config::{Config, Environment, Errors, Overrides, Resolved, default_socket_path, load};

use crate::args::{OutputArgs, PromptArgs, SamplingArgs};
use crate::failure::{Code, Failure};
use crate::terminal;

/// Variable that names the daemon's socket.
const SOCKET_VARIABLE: &str = "VERITAS_SOCKET_PATH";
/// Variable that names the file of the token.
const TOKEN_FILE_VARIABLE: &str = "VERITAS_TOKEN_FILE";
/// Variable that holds the token.
const TOKEN_VARIABLE: &str = "VERITAS_TOKEN";
/// Variable that names users whose daemons are trusted.
const TRUSTED_UIDS_VARIABLE: &str = "VERITAS_TRUSTED_UIDS";

/// Where a daemon listens, and the token that it asks for.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct SocketArgs {
    /// The daemon's socket; by default VERITAS_SOCKET_PATH, else $XDG_RUNTIME_DIR/veritas-sdr/veritas-sdr.sock, or
    /// below /run for root.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The file with the daemon's token; by default what VERITAS_TOKEN_FILE names, or VERITAS_TOKEN itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// How a daemon is reached.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Daemon")]
pub(crate) struct DaemonArgs {
    #[command(flatten)]
    at: SocketArgs,
    /// A user whose daemon is believed, besides one's own and root's (repeatable); by default those that
    /// VERITAS_TRUSTED_UIDS lists.
    #[arg(long, value_name = "UID")]
    trust_uid: Vec<u32>,
}

impl DaemonArgs {
    /// The socket.
    pub(crate) fn path(&self) -> PathBuf {
        let given = self.at.socket.clone().or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from));
        given.unwrap_or_else(|| default_socket_path(&environment()))
    }

    /// How a client connects whose answers may take `timeout`.
    pub(crate) fn options(&self, timeout: Option<Duration>) -> Result<ClientOptions, Failure> {
        let mut options = ClientOptions { timeout, ..ClientOptions::default() };
        options.name = "veritas-sdr".to_owned();
        options.token = self.token()?;
        options.trusted_uids.extend(self.trusted_uids()?);
        Ok(options)
    }

    fn trusted_uids(&self) -> Result<Vec<u32>, Failure> {
        if !self.trust_uid.is_empty() {
            return Ok(self.trust_uid.clone());
        }
        let Some(list) = std::env::var_os(TRUSTED_UIDS_VARIABLE) else { return Ok(Vec::new()) };
        let list = list.to_string_lossy();
        let uids = list.split(',').filter(|_| !list.is_empty()).map(|uid| uid.trim().parse());
        uids.collect::<Result<_, _>>().map_err(|_| {
            let message = format!("{TRUSTED_UIDS_VARIABLE} is {list:?}, which is no list of user ids");
            Failure::new(Code::Config, message).hint("write it as 1000,1001")
        })
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        let file =
            self.at.token_file.clone().or_else(|| std::env::var_os(TOKEN_FILE_VARIABLE).map(PathBuf::from));
        if let Some(path) = file {
            return Ok(Some(Token::read(&path)?.token));
        }
        match std::env::var_os(TOKEN_VARIABLE) {
            Some(token) => Ok(Some(Token::new(token.into_encoded_bytes())?)),
            None => Ok(None),
        }
    }
}

/// Whether the daemon is asked in place of a worker of one's own.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectArgs {
    /// Ask a model of the daemon; --model is its name then, and not needed if there is only one.
    #[arg(long)]
    pub(crate) connect: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
}

/// What the configuration takes from this process.
pub(crate) fn environment() -> Environment<'static> {
    #[cfg(unix)]
    let uid = Some(rustix::process::geteuid().as_raw());
    #[cfg(not(unix))]
    let uid = None;
    Environment { uid, variable: &|name| std::env::var_os(name) }
}

/// `serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// A model to serve: [NAME=]PATH (repeatable; replaces the models of the file).
    #[arg(long, short, value_name = "[NAME=]PATH")]
    pub(crate) model: Vec<OsString>,
    /// The configuration; by default VERITAS_CONFIG, else veritas-sdr.toml below $XDG_CONFIG_HOME/veritas-sdr or
    /// /etc/veritas-sdr.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sequences that a model computes together. [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) max_sequences: Option<u32>,
    /// Pages of the KV cache, of 16 tokens each; by default as many as 8 contexts have.
    #[arg(long, value_name = "N")]
    pub(crate) kv_pages: Option<u32>,
    /// Compute every prompt from its first token, whatever the same user sent before.
    #[arg(long)]
    pub(crate) no_prefix_cache: bool,
    /// Threads that compute; by default one per processor.
    #[arg(long, short, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Instruction set of the kernels: auto, portable, avx2, avx512 or neon. [default: auto]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) isa: Option<String>,
    /// Tokens that prompt and answer may have together; by default the model's context, at most 4096.
    #[arg(long, short, value_name = "N")]
    pub(crate) ctx: Option<u32>,
    /// Tokens of prompts that one step computes. [default: 512]
    #[arg(long, value_name = "N")]
    pub(crate) prefill_chunk: Option<u32>,
    /// How the cache stores keys: f32, f16, q8_0 or q4_0. [default: f16]
    #[arg(long, value_name = "TYPE")]
    pub(crate) cache_type_k: Option<String>,
    /// How the cache stores values: f32, f16, q8_0 or q4_0. [default: f16]
    #[arg(long, value_name = "TYPE")]
    pub(crate) cache_type_v: Option<String>,
    /// The policy of the sandbox: `default`, `strict` (every layer is required), or a policy file.
    #[arg(long, value_name = "FILE|default|strict")]
    pub(crate) sandbox: Option<OsString>,
    #[command(flatten)]
    pub(crate) at: SocketArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ServeArgs {
    /// The configuration: flags over the environment over the file.
    pub(crate) fn resolve(&self) -> Result<Resolved, Errors> {
        load(self.config.as_deref(), &environment(), &self.overrides())
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            socket: self.at.socket.clone(),
            token_file: self.at.token_file.clone(),
            models: self.model.clone(),
            threads: self.threads,
            isa: self.isa.clone(),
            ctx: self.ctx,
            prefill_chunk: self.prefill_chunk,
            cache_type_k: self.cache_type_k.clone(),
            cache_type_v: self.cache_type_v.clone(),
            max_sequences: self.max_sequences,
            kv_pages: self.kv_pages,
            no_prefix_cache: self.no_prefix_cache,
            sandbox: self.sandbox.clone(),
        }
    }

    /// Reads the configuration again, with the same flags.
    pub(crate) fn reread(self) -> impl Fn() -> Result<Config, Errors> {
        move || self.resolve().map(|resolved| resolved.config)
    }
}

/// Priority of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    /// When nothing else waits.
    Low,
    /// As it comes.
    #[default]
    Normal,
    /// Before those that are normal.
    High,
    /// Before all others.
    Critical,
}

/// `generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) prompt: PromptArgs,
    /// Name of a model that the daemon has loaded; not needed if there is only one.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Which requests go first.
    #[arg(long, value_enum, value_name = "PRIORITY", default_value_t)]
    pub(crate) priority: Priority,
    /// Milliseconds after which the request fails.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline_ms: Option<u64>,
    /// Print a line {"index", "text", "ids"} for each piece of the answer as it comes, then the object of --json.
    #[arg(long, conflicts_with = "json")]
    pub(crate) stream_json: bool,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `health`, `live`, `ready`.
#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Milliseconds that the answer may take.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub(crate) timeout_ms: u64,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `status`, `metrics`, `drain`, `reload`.
#[derive(Args, Debug)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `models …`.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

/// What is done with the models of a daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Load a model: [NAME=]PATH.
    Load {
        /// The file, as the daemon finds it, and what clients call it.
        #[arg(value_name = "[NAME=]PATH")]
        model: OsString,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Unload a model; its requests fail.
    Unload {
        /// Its name.
        name: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// List the models.
    List {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show one model.
    Info {
        /// Its name.
        name: String,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `config …`.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// What is done with the daemon's configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration, and list everything that is wrong with it.
    Check {
        /// The file; by default the one that `serve` would read.
        file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show every setting that would be in force.
    Show {
        /// The file; by default the one that `serve` would read.
        file: Option<PathBuf>,
        /// Say where each comes from.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the JSON Schema of the file.
    Schema,
}

/// `embed`.
#[derive(Args, Debug)]
pub(crate) struct EmbedArgs {
    /// The text; `-` reads it from stdin.
    pub(crate) text: String,
    /// Name of a model that the daemon has loaded; not needed if there is only one.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Ask the daemon.
    #[arg(long, required = true)]
    pub(crate) connect: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Every error of a configuration, one a line.
pub(crate) fn config_failure(errors: &Errors) -> Failure {
    let errors = errors.to_string();
    let mut lines = errors.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let rest = lines.collect::<Vec<_>>();
    let failure = Failure::new(Code::Config, if rest.is_empty() { first } else { errors.clone() });
    failure.hint("`veritas-sdr config check` lists all that is wrong")
}

/// Says what may be wrong with a token's file.
pub(crate) fn warn_of_token_file(path: &std::path::Path) -> Result<Token, Failure> {
    let file = Token::read(path)?;
    if let Some(warning) = &file.warning {
        terminal::say(format_args!("warning: {warning}"));
    }
    Ok(file.token)
}
