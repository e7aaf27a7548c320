//! The daemon's configuration: flags over the environment over `veritas-sdr.toml` over the defaults.
//!
//! Every setting is one entry of [`keys()`]: its name, its bounds, its variable, its flag, what it means. Reading,
//! the JSON Schema, the tables of the documentation, the example file and the list of what a reload applies all come
//! from that one list. The environment and the flags are passed in, so that nothing here depends on the process;
//! [`load`] reads the file and nothing else.
//!
//! What is deliberately absent: a token never stands in the configuration, only the name of the file that holds it.

mod checks;
mod choice;
mod error;
mod file;
mod keys;
mod limits;
mod load;
mod model;
mod override_kv;
mod principals;
mod reload;
mod schema;
mod show;
mod slot;
mod token;

// The paths in these tests are those of Unix.
#[cfg(all(test, unix))]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use veritas_kernels::CacheType;
use veritas_sandbox::Layer;
use veritas_simd::Isa;

pub use choice::{LogFormat, LogLevel, SandboxPolicy, SocketMode};
pub use error::{Error, Errors, Origin};
pub use keys::{Key, keys};
pub use load::{Effective, Environment, Overrides, Resolved, default_socket_path, load, resolve};
pub use model::{ModelConfig, ModelFlag};
pub use override_kv::OverrideKv;
pub use principals::{SharingGroup, Weight};
pub use reload::{Change, reloadable};
pub use schema::schema;
pub use token::{Secret, TokenSource};

/// What the daemon is told to do: every setting resolved, in range and free of contradictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect, and who may.
    pub socket: Socket,
    /// What clients must present besides.
    pub auth: Auth,
    /// What a model runs with where it says nothing else.
    pub engine: Engine,
    /// The models, in the order in which they were given; names are unique.
    pub models: Vec<ModelConfig>,
    /// How much work may wait or run.
    pub limits: Limits,
    /// How workers are watched and replaced.
    pub worker: Worker,
    /// What a worker is confined by.
    pub sandbox: Sandbox,
    /// How the daemon ends.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
}

/// Where clients connect, and who may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The Unix socket. Its folder is made with mode 0700 if it is not there.
    pub path: PathBuf,
    /// The mode of the socket's file.
    pub mode: SocketMode,
    /// User ids whose processes may connect; sorted, root among them.
    pub allowed_uids: Vec<u32>,
    /// Group ids whose processes may connect; sorted.
    pub allowed_gids: Vec<u32>,
    /// User ids that may load and unload models, drain and reload; sorted, root among them.
    pub admin_uids: Vec<u32>,
    /// Connections at once.
    pub max_sessions: u32,
    /// How long a connection may take until its handshake is done.
    pub handshake_timeout: Duration,
    /// Bytes of the body of a frame.
    pub body_bytes_max: u32,
    /// How long a client may leave data unread before its connection ends.
    pub slow_client_timeout: Duration,
}

/// What clients must present besides their user id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Where the token comes from. It is read by [`TokenSource::read`], not when the configuration is.
    pub token: TokenSource,
}

/// What a model runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Threads that compute; `None` is one per processor.
    pub threads: Option<u16>,
    /// Instruction set of the kernels; `None` is the best that the machine has. Whether the machine has a level that is
    /// named here is for [`Isa::is_available`] to say.
    pub isa: Option<Isa>,
    /// Tokens that prompt and answer may have together; `None` is the model's context, at most 4096.
    pub ctx: Option<u32>,
    /// Tokens of prompts that one step computes.
    pub prefill_chunk: u32,
    /// How the cache stores keys.
    pub cache_type_k: CacheType,
    /// How the cache stores values.
    pub cache_type_v: CacheType,
    /// Sequences that are computed together.
    pub max_sequences: u32,
    /// Pages of the KV cache, of 16 tokens each; `None` is for the daemon to choose.
    pub kv_pages: Option<u32>,
    /// Whether prefixes that were computed are found again by later requests of the same principal.
    pub prefix_cache: bool,
    /// Sequences of one principal that are computed together; `None` is without a limit of its own.
    pub sequences_per_principal_max: Option<u32>,
    /// Pages that the sequences of one principal hold; `None` is without a limit of its own.
    pub kv_pages_per_principal_max: Option<u32>,
}

/// How much work may wait or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait for a model.
    pub queue_max: u32,
    /// How long a request may take from its receipt to its end; `None` is without a limit.
    pub request_timeout: Option<Duration>,
    /// Requests of one principal that wait or run at once; `None` is without a limit.
    pub requests_per_principal_max: Option<u32>,
    /// Requests of one principal that wait for a model; `None` is without a limit of its own.
    pub queue_per_principal_max: Option<u32>,
    /// Users who share cached prefixes with each other.
    pub sharing_groups: Vec<SharingGroup>,
    /// Users whose share of the computation is another than 1.
    pub weights: Vec<Weight>,
}

/// How workers are watched and replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// How often a worker says that it lives.
    pub heartbeat: Duration,
    /// Silence after which a worker is killed and replaced; longer than `heartbeat`.
    pub heartbeat_timeout: Duration,
    /// How long a worker may take from its start until it is ready.
    pub start_timeout: Duration,
    /// Wait before the first restart; it doubles with each further one.
    pub restart_backoff: Duration,
    /// The longest wait before a restart; at least `restart_backoff`.
    pub restart_backoff_max: Duration,
    /// Failures in a row after which a model is not started again until an operator says so.
    pub quarantine_after: u32,
    /// How long one step of the engine may take; `None` is without a limit.
    pub step_timeout: Option<Duration>,
}

/// What a worker is confined by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The policy.
    pub policy: SandboxPolicy,
    /// Layers without which no worker starts, besides those that the policy requires.
    pub require: Vec<Layer>,
    /// Whether every layer is required, whatever the policy says.
    pub strict: bool,
    /// Whether workers may run without a sandbox on a system for which there is none.
    pub allow_missing: bool,
    /// The most memory that a worker may have of its own; `None` is what the policy says.
    pub memory_bytes: Option<u64>,
}

impl Sandbox {
    /// The layers that are required by the configuration itself; the policy may require more.
    pub fn required_layers(&self) -> Vec<Layer> {
        if self.strict || self.policy == SandboxPolicy::Strict {
            Layer::ALL.to_vec()
        } else {
            self.require.clone()
        }
    }
}

/// How the daemon ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long running requests may still take; zero ends them at once.
    pub timeout: Duration,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important messages that are written.
    pub level: LogLevel,
    /// The file; `None` is stderr.
    pub file: Option<PathBuf>,
}

impl Config {
    /// What holds where nobody says otherwise. The socket's path and the users come from `environment`.
    pub fn defaults(environment: &Environment<'_>) -> Self {
        let mut users = environment.uid.into_iter().chain(environment.uid.map(|_| 0)).collect::<Vec<_>>();
        users.sort_unstable();
        users.dedup();
        Self {
            socket: Socket {
                path: default_socket_path(environment),
                mode: SocketMode::Owner,
                allowed_uids: users.clone(),
                allowed_gids: Vec::new(),
                admin_uids: users,
                max_sessions: 1024,
                handshake_timeout: Duration::from_secs(5),
                body_bytes_max: veritas_proto::limits::BODY_BYTES_DEFAULT,
                slow_client_timeout: Duration::from_secs(30),
            },
            auth: Auth { token: TokenSource::None },
            engine: Engine::default(),
            models: Vec::new(),
            limits: Limits {
                queue_max: 256,
                request_timeout: None,
                requests_per_principal_max: None,
                queue_per_principal_max: None,
                sharing_groups: Vec::new(),
                weights: Vec::new(),
            },
            worker: Worker {
                heartbeat: Duration::from_secs(1),
                heartbeat_timeout: Duration::from_secs(10),
                start_timeout: Duration::from_secs(120),
                restart_backoff: Duration::from_millis(100),
                restart_backoff_max: Duration::from_secs(10),
                quarantine_after: 3,
                step_timeout: None,
            },
            sandbox: Sandbox {
                policy: SandboxPolicy::Default,
                require: Vec::new(),
                strict: false,
                allow_missing: false,
                memory_bytes: None,
            },
            shutdown: Shutdown { timeout: Duration::from_secs(30) },
            log: Log { format: LogFormat::Text, level: LogLevel::Info, file: None },
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            threads: None,
            isa: None,
            ctx: None,
            prefill_chunk: 512,
            cache_type_k: CacheType::F16,
            cache_type_v: CacheType::F16,
            max_sequences: 64,
            kv_pages: None,
            prefix_cache: true,
            sequences_per_principal_max: None,
            kv_pages_per_principal_max: None,
        }
    }
}
