//! What a frame carries.

/// The kind of a frame: a number that says which message its body is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal;)*) => {
        impl Kind {
            $($(#[doc = $doc])* pub const $name: Self = Self($number);)*

            /// The name that documentation and logs use; `None` for a number that is not known.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// `Hello`, the first frame of a client.
    HELLO = 1;
    /// `Welcome`, its answer.
    WELCOME = 2;
    /// `Error`: a request has failed, or with request id 0 the session, which ends with it.
    ERROR = 3;

    /// `GenerateRequest`.
    GENERATE = 16;
    /// `Delta`, any number of them.
    DELTA = 17;
    /// `Finish`, the end of a request to generate.
    FINISH = 18;
    /// `Cancel`.
    CANCEL = 19;
    /// `Credit`.
    CREDIT = 20;

    /// `TokenizeRequest`.
    TOKENIZE = 32;
    /// `TokenizeReply`.
    TOKENIZE_REPLY = 33;
    /// `DetokenizeRequest`.
    DETOKENIZE = 34;
    /// `DetokenizeReply`.
    DETOKENIZE_REPLY = 35;
    /// `EmbedRequest`.
    EMBED = 36;
    /// `EmbedReply`.
    EMBED_REPLY = 37;

    /// `ModelLoadRequest`.
    MODEL_LOAD = 48;
    /// `ModelUnloadRequest`.
    MODEL_UNLOAD = 49;
    /// `ModelListRequest`.
    MODEL_LIST = 50;
    /// `ModelInfoRequest`.
    MODEL_INFO = 51;
    /// `ModelList`, the answer to all four.
    MODEL_REPLY = 52;

    /// `LiveRequest`.
    LIVE = 64;
    /// `LiveReply`.
    LIVE_REPLY = 65;
    /// `ReadyRequest`.
    READY = 66;
    /// `ReadyReply`.
    READY_REPLY = 67;
    /// `HealthRequest`.
    HEALTH = 68;
    /// `HealthReply`.
    HEALTH_REPLY = 69;
    /// `StatusRequest`.
    STATUS = 70;
    /// `StatusReply`.
    STATUS_REPLY = 71;
    /// `MetricsRequest`.
    METRICS = 72;
    /// `MetricsReply`.
    METRICS_REPLY = 73;
    /// `DrainRequest`.
    DRAIN = 74;
    /// `DrainReply`.
    DRAIN_REPLY = 75;
    /// `ReloadRequest`.
    RELOAD = 76;
    /// `ReloadReply`.
    RELOAD_REPLY = 77;

    /// Between supervisor and worker alone: the policy and the threads, as JSON.
    WORKER_START = 4096;
    /// Between supervisor and worker alone: the worker is confined, and what it observed, as JSON.
    WORKER_STARTED = 4097;
    /// Between supervisor and worker alone: what to do with the files, as JSON.
    WORKER_ORDER = 4098;
    /// Between supervisor and worker alone: how far a job is, as JSON.
    WORKER_PROGRESS = 4099;
    /// Between supervisor and worker alone: bytes of a job's result.
    WORKER_BYTES = 4100;
    /// Between supervisor and worker alone: the result of a job, as JSON.
    WORKER_DONE = 4101;
    /// Between supervisor and worker alone: a heartbeat.
    WORKER_PING = 4102;
    /// Between supervisor and worker alone: its answer, with counters, as JSON.
    WORKER_PONG = 4103;
    /// Between supervisor and worker alone: compute no more tokens of a request for now.
    WORKER_PAUSE = 4104;
    /// Between supervisor and worker alone: go on with a request.
    WORKER_RESUME = 4105;
    /// Between supervisor and worker alone: where in the code the worker has panicked, as JSON.
    WORKER_PANIC = 4106;
}

impl Kind {
    /// Whether the kind belongs to the link between supervisor and worker; a client that uses it is refused.
    pub fn is_internal(self) -> bool {
        self.0 >= Self::WORKER_START.0
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}
