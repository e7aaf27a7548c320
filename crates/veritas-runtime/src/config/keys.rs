//! Every setting: its name, its place and bounds, its variable, its flag, what it means.

use super::limits::{HOUR_MS, MINUTE_MS, PATH_BYTES_MAX, SOCKET_PATH_BYTES_MAX, WEEK_MS};
use super::slot::{Bounds, Root, Slot, Unit};
use super::{Config, Engine, ModelConfig};

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// Its table in the file.
    pub table: &'static str,
    /// Its name in the table.
    pub name: &'static str,
    /// The variable that it can be given in.
    pub variable: Option<&'static str>,
    /// The flag that it can be given with, with its dashes.
    pub flag: Option<&'static str>,
    /// Whether a reload applies it; otherwise the daemon must be started again.
    pub reloadable: bool,
    /// What it means, in whole sentences.
    pub about: &'static str,
    /// The default in words, where it is not a value that could be written into the file.
    pub default: Option<&'static str>,
    place: Place,
}

/// Where a setting is kept.
#[derive(Debug)]
enum Place {
    Config(for<'a> fn(&'a mut Config) -> Slot<'a>),
    /// In `[engine]`, and under the same name in each `[[models]]`.
    Engine(for<'a> fn(&'a mut Engine) -> Slot<'a>),
    Model(for<'a> fn(&'a mut ModelConfig) -> Slot<'a>),
}

/// There is one of each name.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.table, self.name) == (other.table, other.name)
    }
}

impl Key {
    const fn new(table: &'static str, name: &'static str, place: Place, about: &'static str) -> Self {
        Self { table, name, variable: None, flag: None, reloadable: false, about, default: None, place }
    }

    const fn of(
        table: &'static str,
        name: &'static str,
        about: &'static str,
        slot: for<'a> fn(&'a mut Config) -> Slot<'a>,
    ) -> Self {
        Self::new(table, name, Place::Config(slot), about)
    }

    const fn of_engine(
        name: &'static str,
        about: &'static str,
        slot: for<'a> fn(&'a mut Engine) -> Slot<'a>,
    ) -> Self {
        Self::new("engine", name, Place::Engine(slot), about)
    }

    const fn of_model(
        name: &'static str,
        about: &'static str,
        slot: for<'a> fn(&'a mut ModelConfig) -> Slot<'a>,
    ) -> Self {
        Self::new("models", name, Place::Model(slot), about)
    }

    const fn variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    const fn reloadable(mut self) -> Self {
        self.reloadable = true;
        self
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Table and name: `socket.path`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }

    /// Its place in the configuration; `None` for what only a model has.
    pub(super) fn slot<'a>(&self, config: &'a mut Config) -> Option<Slot<'a>> {
        match self.place {
            Place::Config(slot) => Some(slot(config)),
            Place::Engine(slot) => Some(slot(&mut config.engine)),
            Place::Model(_) => None,
        }
    }

    /// Its place in a model; `None` for what a model has no settings of.
    pub(super) fn model_slot<'a>(&self, model: &'a mut ModelConfig) -> Option<Slot<'a>> {
        match self.place {
            Place::Config(_) => None,
            Place::Engine(slot) => Some(slot(&mut model.engine)),
            Place::Model(slot) => Some(slot(model)),
        }
    }

    /// Whether a model can have it: as its own, or instead of what `[engine]` says.
    pub(super) fn is_of_models(&self) -> bool {
        !matches!(self.place, Place::Config(_))
    }

    /// Whether it stands in `[engine]`, for all models.
    pub(super) fn is_of_engine(&self) -> bool {
        matches!(self.place, Place::Engine(_))
    }
}

/// Every setting, in the order of the documentation.
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// The tables of the file, in the order of the documentation, with what each is about.
pub(super) const TABLES: [(&str, &str); 9] = [
    ("socket", "Where clients connect, and who may."),
    ("auth", "What clients must present besides their user id. The token itself never stands in the file."),
    ("engine", "What every model runs with. A model's own table may say otherwise."),
    (
        "models",
        "A model that is served. The table is repeated for each; it may hold every key of `[engine]` besides.",
    ),
    ("limits", "How much work may wait or run."),
    ("worker", "How workers are watched and replaced."),
    ("sandbox", "What a worker is confined by."),
    ("shutdown", "How the daemon ends."),
    ("log", "What is logged."),
];

const BODY_BYTES: Bounds = Bounds::new(
    veritas_proto::limits::HANDSHAKE_BODY_BYTES_MAX as u64,
    veritas_proto::limits::BODY_BYTES_MAX as u64,
);

/// From 64 MiB, with which no model runs, to 64 TiB, which no machine has.
const MEMORY_BYTES: Bounds = Bounds::or_zero(64 << 20, 64 << 40, "what the policy says");

static KEYS: [Key; 50] = [
    Key::of("socket", "path", "The Unix socket. Its folder is made with mode 0700 if it is not there.", |c| {
        Slot::Path(&mut c.socket.path, SOCKET_PATH_BYTES_MAX)
    })
    .variable("VERITAS_SOCKET_PATH")
    .flag("--socket")
    .default(
        "`$XDG_RUNTIME_DIR/veritas-sdr/veritas-sdr.sock`; as root, or where the variable is not set, \
         `/run/veritas-sdr/veritas-sdr.sock`",
    ),
    Key::of("socket", "mode", "The mode of the socket's file. 0660 lets the socket's group reach it.", |c| {
        Slot::Choice(&mut c.socket.mode)
    })
    .variable("VERITAS_SOCKET_MODE"),
    Key::of("socket", "allowed_uids", "User ids whose processes may connect. Root (0) always may.", |c| {
        Slot::Ids(&mut c.socket.allowed_uids, Root::Always)
    })
    .variable("VERITAS_SOCKET_ALLOWED_UIDS")
    .default("the daemon's own user and root")
    .reloadable(),
    Key::of(
        "socket",
        "allowed_gids",
        "Group ids whose processes may connect, whatever their user. What counts is the effective group of a process, not \
         those that it belongs to besides. They need `mode = \"0660\"`.",
        |c| Slot::Ids(&mut c.socket.allowed_gids, Root::IfListed),
    )
    .variable("VERITAS_SOCKET_ALLOWED_GIDS")
    .reloadable(),
    Key::of(
        "socket",
        "admin_uids",
        "User ids that may load and unload models, drain and reload. Root (0) always may. They must be allowed to \
         connect as well.",
        |c| Slot::Ids(&mut c.socket.admin_uids, Root::Always),
    )
    .variable("VERITAS_SOCKET_ADMIN_UIDS")
    .default("the daemon's own user and root")
    .reloadable(),
    Key::of("socket", "max_sessions", "Connections at once. Further ones are refused.", |c| {
        Slot::Count(&mut c.socket.max_sessions, Bounds::new(1, 65_536))
    })
    .variable("VERITAS_SOCKET_MAX_SESSIONS")
    .reloadable(),
    Key::of("socket", "handshake_timeout_ms", "How long a connection may take until its handshake is done.", |c| {
        Slot::Time(&mut c.socket.handshake_timeout, Unit::Milliseconds, Bounds::new(100, 10 * MINUTE_MS))
    })
    .variable("VERITAS_SOCKET_HANDSHAKE_TIMEOUT_MS")
    .reloadable(),
    Key::of("socket", "body_bytes_max", "Bytes of the body of a frame: the longest prompt that is accepted.", |c| {
        Slot::Bytes(&mut c.socket.body_bytes_max, BODY_BYTES)
    })
    .variable("VERITAS_SOCKET_BODY_BYTES_MAX"),
    Key::of(
        "socket",
        "slow_client_timeout_ms",
        "How long a client may leave data unread before its connection ends.",
        |c| Slot::Time(&mut c.socket.slow_client_timeout, Unit::Milliseconds, Bounds::new(100, HOUR_MS)),
    )
    .variable("VERITAS_SOCKET_SLOW_CLIENT_TIMEOUT_MS")
    .reloadable(),
    Key::of(
        "auth",
        "token_file",
        "The file that holds the token which clients must present; whitespace at its end is ignored, and an empty \
         token is an error.",
        |c| Slot::TokenFile(&mut c.auth.token),
    )
    .variable("VERITAS_TOKEN_FILE")
    .flag("--token-file")
    .default("the variable `VERITAS_TOKEN`, else the systemd credential `veritas-token`, else no token is asked for"),
    Key::of_engine("threads", "Threads that compute; 0 is one per processor.", |e| {
        Slot::Count(&mut e.threads, Bounds::or_zero(1, 512, "one per processor"))
    })
    .variable("VERITAS_ENGINE_THREADS")
    .flag("--threads"),
    Key::of_engine("isa", "Instruction set of the kernels; \"auto\" is the best that the machine has.", |e| {
        Slot::Choice(&mut e.isa)
    })
    .variable("VERITAS_ENGINE_ISA")
    .flag("--isa"),
    Key::of_engine(
        "ctx",
        "Tokens that prompt and answer may have together; 0 is the model's context, at most 4096.",
        |e| Slot::Count(&mut e.ctx, Bounds::or_zero(1, 1 << 24, "the model's context, at most 4096")),
    )
    .variable("VERITAS_ENGINE_CTX")
    .flag("--ctx"),
    Key::of_engine("prefill_chunk", "Tokens of prompts that one step computes.", |e| {
        Slot::Count(&mut e.prefill_chunk, Bounds::new(1, 65_536))
    })
    .variable("VERITAS_ENGINE_PREFILL_CHUNK")
    .flag("--prefill-chunk"),
    Key::of_engine("cache_type_k", "How the KV cache stores keys.", |e| Slot::Choice(&mut e.cache_type_k))
        .variable("VERITAS_ENGINE_CACHE_TYPE_K")
        .flag("--cache-type-k"),
    Key::of_engine("cache_type_v", "How the KV cache stores values.", |e| Slot::Choice(&mut e.cache_type_v))
        .variable("VERITAS_ENGINE_CACHE_TYPE_V")
        .flag("--cache-type-v"),
    Key::of_engine("max_sequences", "Sequences that are computed together.", |e| {
        Slot::Count(&mut e.max_sequences, Bounds::new(1, 4096))
    })
    .variable("VERITAS_ENGINE_MAX_SEQUENCES")
    .flag("--max-sequences"),
    Key::of_engine("kv_pages", "Pages of the KV cache, of 16 tokens each; 0 is automatic.", |e| {
        Slot::Count(&mut e.kv_pages, Bounds::or_zero(1, 1 << 24, "automatic"))
    })
    .variable("VERITAS_ENGINE_KV_PAGES")
    .flag("--kv-pages"),
    Key::of_engine(
        "prefix_cache",
        "Keep the beginnings of texts that were computed, for later requests of the same user. `--no-prefix-cache` is false.",
        |e| Slot::Bool(&mut e.prefix_cache),
    )
    .variable("VERITAS_ENGINE_PREFIX_CACHE")
    .flag("--no-prefix-cache"),
    Key::of_engine(
        "sequences_per_principal_max",
        "Sequences of one user that are computed together; 0 is without a limit of its own.",
        |e| Slot::Count(&mut e.sequences_per_principal_max, Bounds::or_zero(1, 4096, "no limit")),
    )
    .variable("VERITAS_ENGINE_SEQUENCES_PER_PRINCIPAL_MAX"),
    Key::of_engine(
        "kv_pages_per_principal_max",
        "Pages of the KV cache that the sequences of one user hold; 0 is without a limit of its own. A request that may \
         need more, its longest answer included, is refused.",
        |e| Slot::Count(&mut e.kv_pages_per_principal_max, Bounds::or_zero(1, 1 << 24, "no limit")),
    )
    .variable("VERITAS_ENGINE_KV_PAGES_PER_PRINCIPAL_MAX"),
    Key::of_model("name", "What clients call the model. Each has a name of its own.", |m| Slot::Name(&mut m.name))
        .default("none; it must be given"),
    Key::of_model("path", "The model's file. A relative path starts at the folder of the configuration file.", |m| {
        Slot::Path(&mut m.path, PATH_BYTES_MAX)
    })
    .default("none; it must be given"),
    Key::of_model("override_kv", "Changes of the model's metadata: KEY=TYPE:VALUE, with int, float, bool or str.", |m| {
        Slot::Overrides(&mut m.override_kv)
    }),
    Key::of_model("digest", "The SHA-256 digest that the file must have, or the model is not loaded.", |m| {
        Slot::Digest(&mut m.digest)
    })
    .default("not set, so that any file is accepted"),
    Key::of_model("no_digest", "Do not compute the file's digest, which saves time at the start.", |m| {
        Slot::Bool(&mut m.no_digest)
    }),
    Key::of_model(
        "idle_unload_s",
        "Seconds without a request after which the worker ends until the next one; 0 is never.",
        |m| Slot::Time(&mut m.idle_unload, Unit::Seconds, Bounds::or_zero(1, WEEK_MS / 1000, "never")),
    )
    .reloadable(),
    Key::of_model("preload", "Load the model when the daemon starts, not at its first request.", |m| {
        Slot::Bool(&mut m.preload)
    }),
    Key::of("limits", "queue_max", "Requests that may wait for a model. Further ones are refused.", |c| {
        Slot::Count(&mut c.limits.queue_max, Bounds::new(1, 65_536))
    })
    .variable("VERITAS_LIMITS_QUEUE_MAX")
    .reloadable(),
    Key::of(
        "limits",
        "request_timeout_ms",
        "How long a request may take, its wait included; 0 is without a limit.",
        |c| Slot::Time(&mut c.limits.request_timeout, Unit::Milliseconds, Bounds::or_zero(1, WEEK_MS, "no limit")),
    )
    .variable("VERITAS_LIMITS_REQUEST_TIMEOUT_MS")
    .reloadable(),
    Key::of(
        "limits",
        "requests_per_principal_max",
        "Requests of one user that wait or run at once; 0 is without a limit.",
        |c| Slot::Count(&mut c.limits.requests_per_principal_max, Bounds::or_zero(1, 65_536, "no limit")),
    )
    .variable("VERITAS_LIMITS_REQUESTS_PER_PRINCIPAL_MAX")
    .reloadable(),
    Key::of(
        "limits",
        "queue_per_principal_max",
        "Requests of one user that wait for a model; 0 is without a limit of its own.",
        |c| Slot::Count(&mut c.limits.queue_per_principal_max, Bounds::or_zero(1, 65_536, "no limit")),
    )
    .variable("VERITAS_LIMITS_QUEUE_PER_PRINCIPAL_MAX")
    .reloadable(),
    Key::of(
        "limits",
        "sharing_groups",
        "Users who share cached prefixes with each other, and so may learn that another has sent the same beginning of a \
         text. Without a group nobody shares.",
        |c| Slot::Groups(&mut c.limits.sharing_groups),
    )
    .variable("VERITAS_LIMITS_SHARING_GROUPS")
    .reloadable(),
    Key::of(
        "limits",
        "weights",
        "Users whose share of the computation, when several ask for more than there is, is another than 1.",
        |c| Slot::Weights(&mut c.limits.weights),
    )
    .variable("VERITAS_LIMITS_WEIGHTS")
    .reloadable(),
    Key::of("worker", "heartbeat_ms", "How often a worker says that it lives.", |c| {
        Slot::Time(&mut c.worker.heartbeat, Unit::Milliseconds, Bounds::new(10, MINUTE_MS))
    })
    .variable("VERITAS_WORKER_HEARTBEAT_MS"),
    Key::of(
        "worker",
        "heartbeat_timeout_ms",
        "Silence after which a worker is killed and replaced. It must be longer than `heartbeat_ms`.",
        |c| Slot::Time(&mut c.worker.heartbeat_timeout, Unit::Milliseconds, Bounds::new(100, HOUR_MS)),
    )
    .variable("VERITAS_WORKER_HEARTBEAT_TIMEOUT_MS")
    .reloadable(),
    Key::of("worker", "start_timeout_ms", "How long a worker may take from its start until it is ready.", |c| {
        Slot::Time(&mut c.worker.start_timeout, Unit::Milliseconds, Bounds::new(100, 24 * HOUR_MS))
    })
    .variable("VERITAS_WORKER_START_TIMEOUT_MS")
    .reloadable(),
    Key::of("worker", "restart_backoff_ms", "Wait before the first restart. It doubles with each further one.", |c| {
        Slot::Time(&mut c.worker.restart_backoff, Unit::Milliseconds, Bounds::new(1, MINUTE_MS))
    })
    .variable("VERITAS_WORKER_RESTART_BACKOFF_MS")
    .reloadable(),
    Key::of(
        "worker",
        "restart_backoff_max_ms",
        "The longest wait before a restart. It must be at least `restart_backoff_ms`.",
        |c| Slot::Time(&mut c.worker.restart_backoff_max, Unit::Milliseconds, Bounds::new(1, HOUR_MS)),
    )
    .variable("VERITAS_WORKER_RESTART_BACKOFF_MAX_MS")
    .reloadable(),
    Key::of(
        "worker",
        "quarantine_after",
        "Failures in a row after which a model is not started again until an operator loads it.",
        |c| Slot::Count(&mut c.worker.quarantine_after, Bounds::new(1, 100)),
    )
    .variable("VERITAS_WORKER_QUARANTINE_AFTER")
    .reloadable(),
    Key::of("worker", "step_timeout_ms", "How long one step of the engine may take; 0 is without a limit.", |c| {
        Slot::Time(&mut c.worker.step_timeout, Unit::Milliseconds, Bounds::or_zero(100, 24 * HOUR_MS, "no limit"))
    })
    .variable("VERITAS_WORKER_STEP_TIMEOUT_MS")
    .reloadable(),
    Key::of(
        "sandbox",
        "policy",
        "The policy of the sandbox: \"default\", \"strict\" (every layer is required), or a policy file. A file of one \
         of these names is written `./strict`.",
        |c| Slot::Policy(&mut c.sandbox.policy),
    )
    .variable("VERITAS_SANDBOX_POLICY")
    .flag("--sandbox"),
    Key::of(
        "sandbox",
        "require",
        "Layers without which no worker starts, besides those that the policy requires.",
        |c| Slot::Layers(&mut c.sandbox.require),
    )
    .variable("VERITAS_SANDBOX_REQUIRE"),
    Key::of("sandbox", "strict", "Require every layer, whatever the policy says.", |c| {
        Slot::Bool(&mut c.sandbox.strict)
    })
    .variable("VERITAS_SANDBOX_STRICT"),
    Key::of(
        "sandbox",
        "allow_missing",
        "Let workers run without a sandbox on a system for which there is none yet. Without it, `serve` refuses to start \
         there. On Linux it changes nothing: what is always required stays required.",
        |c| Slot::Bool(&mut c.sandbox.allow_missing),
    )
    .variable("VERITAS_SANDBOX_ALLOW_MISSING"),
    Key::of(
        "sandbox",
        "memory_bytes",
        "The most memory that a worker may have of its own, its model's file apart; 0 is what the policy says.",
        |c| Slot::Bytes(&mut c.sandbox.memory_bytes, MEMORY_BYTES),
    )
    .variable("VERITAS_SANDBOX_MEMORY_BYTES"),
    Key::of(
        "shutdown",
        "timeout_ms",
        "How long running requests may still take when the daemon is told to end; 0 ends them at once.",
        |c| Slot::Time(&mut c.shutdown.timeout, Unit::Milliseconds, Bounds::new(0, HOUR_MS)),
    )
    .variable("VERITAS_SHUTDOWN_TIMEOUT_MS")
    .reloadable(),
    Key::of("log", "format", "The form of a line: text for people, or one JSON object.", |c| {
        Slot::Choice(&mut c.log.format)
    })
    .variable("VERITAS_LOG_FORMAT"),
    Key::of("log", "level", "The least important messages that are written.", |c| Slot::Choice(&mut c.log.level))
        .variable("VERITAS_LOG")
        .reloadable(),
    Key::of("log", "file", "The file that the log is appended to.", |c| Slot::OptionalPath(&mut c.log.file))
        .variable("VERITAS_LOG_FILE")
        .default("not set, which is stderr"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Environment;
    use super::*;

    #[test]
    fn every_key_has_a_table_and_no_two_have_a_name_a_variable_or_a_flag_in_common() {
        let tables = TABLES.map(|(table, _)| table);
        let (mut paths, mut variables, mut flags) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for key in keys() {
            assert!(tables.contains(&key.table), "{}", key.path());
            assert!(paths.insert(key.path()), "{}", key.path());
            assert!(key.variable.is_none_or(|variable| variables.insert(variable)), "{}", key.path());
            assert!(key.flag.is_none_or(|flag| flags.insert(flag)), "{}", key.path());
            assert!(key.about.ends_with('.'), "{}", key.path());
        }
        let in_models = keys().iter().filter(|key| key.is_of_models()).map(|key| key.name);
        assert_eq!(in_models.clone().count(), in_models.collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn variables_are_called_as_their_keys_but_for_the_two_that_have_shorter_names() {
        for key in keys().iter().filter(|key| key.table != "models") {
            let expected = match key.path().as_str() {
                "auth.token_file" => "VERITAS_TOKEN_FILE".to_owned(),
                "log.level" => "VERITAS_LOG".to_owned(),
                path => format!("VERITAS_{}", path.to_uppercase().replace('.', "_")),
            };
            assert_eq!(key.variable, Some(expected.as_str()));
        }
    }

    #[test]
    fn durations_and_sizes_end_in_their_units() {
        let mut config = Config::defaults(&Environment { uid: None, variable: &|_| None });
        for key in keys() {
            let Some(slot) = key.slot(&mut config) else { continue };
            let has_unit = |unit: &str| key.name.ends_with(unit);
            match slot {
                Slot::Time(_, Unit::Milliseconds, _) => assert!(has_unit("_ms"), "{}", key.path()),
                Slot::Time(_, Unit::Seconds, _) => assert!(has_unit("_s"), "{}", key.path()),
                Slot::Bytes(..) => assert!(key.name.contains("bytes"), "{}", key.path()),
                _ => assert!(!has_unit("_ms") && !has_unit("_s") && !has_unit("_bytes"), "{}", key.path()),
            }
        }
    }
}
