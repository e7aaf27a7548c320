//! What a frame carries.

/// The kind of a frame: a number that says which message its body is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u16);

/// Whether the side that a row of the table names is the client.
macro_rules! is_client {
    (client) => {
        true
    };
    ($other:ident) => {
        false
    };
}

/// The name of the message that a row of the table has, if it has one.
macro_rules! message {
    () => {
        None
    };
    ($message:ident) => {
        Some(<crate::v1::$message as prost::Name>::NAME)
    };
}

/// A row: name, number, who sends it (client, daemon, or either side of the link to a worker), message.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal $sender:ident $($message:ident)?;)*) => {
        impl Kind {
            $($(#[doc = $doc])* pub const $name: Self = Self($number);)*

            /// The name that documentation and logs use; `None` for a number that is not known, such as 0.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The name of the message that is the body, as the `.proto` file spells it; `None` for the kinds of the
            /// link to a worker, and for a number that is not known.
            pub fn message_name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => message!($($message)?),)*
                    _ => None,
                }
            }

            /// Whether a client sends frames of the kind. The others, sent by a client, break the protocol.
            pub fn is_from_client(self) -> bool {
                match self.0 {
                    $($number => is_client!($sender),)*
                    _ => false,
                }
            }

            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// `Hello`, the first frame of a client.
    HELLO = 1 client Hello;
    /// `Welcome`, its answer.
    WELCOME = 2 daemon Welcome;
    /// `Error`: a request has failed, or with request id 0 the session, which ends with it.
    ERROR = 3 daemon Error;

    /// `GenerateRequest`.
    GENERATE = 16 client GenerateRequest;
    /// `Delta`, any number of them.
    DELTA = 17 daemon Delta;
    /// `Finish`, the end of a request to generate.
    FINISH = 18 daemon Finish;
    /// `Cancel`.
    CANCEL = 19 client Cancel;
    /// `Credit`.
    CREDIT = 20 client Credit;

    /// `TokenizeRequest`.
    TOKENIZE = 32 client TokenizeRequest;
    /// `TokenizeReply`.
    TOKENIZE_REPLY = 33 daemon TokenizeReply;
    /// `DetokenizeRequest`.
    DETOKENIZE = 34 client DetokenizeRequest;
    /// `DetokenizeReply`.
    DETOKENIZE_REPLY = 35 daemon DetokenizeReply;
    /// `EmbedRequest`.
    EMBED = 36 client EmbedRequest;
    /// `EmbedReply`.
    EMBED_REPLY = 37 daemon EmbedReply;

    /// `ModelLoadRequest`.
    MODEL_LOAD = 48 client ModelLoadRequest;
    /// `ModelUnloadRequest`.
    MODEL_UNLOAD = 49 client ModelUnloadRequest;
    /// `ModelListRequest`.
    MODEL_LIST = 50 client ModelListRequest;
    /// `ModelInfoRequest`.
    MODEL_INFO = 51 client ModelInfoRequest;
    /// `ModelList`, the answer to all four.
    MODEL_REPLY = 52 daemon ModelList;

    /// `LiveRequest`.
    LIVE = 64 client LiveRequest;
    /// `LiveReply`.
    LIVE_REPLY = 65 daemon LiveReply;
    /// `ReadyRequest`.
    READY = 66 client ReadyRequest;
    /// `ReadyReply`.
    READY_REPLY = 67 daemon ReadyReply;
    /// `HealthRequest`.
    HEALTH = 68 client HealthRequest;
    /// `HealthReply`.
    HEALTH_REPLY = 69 daemon HealthReply;
    /// `StatusRequest`.
    STATUS = 70 client StatusRequest;
    /// `StatusReply`.
    STATUS_REPLY = 71 daemon StatusReply;
    /// `MetricsRequest`.
    METRICS = 72 client MetricsRequest;
    /// `MetricsReply`.
    METRICS_REPLY = 73 daemon MetricsReply;
    /// `DrainRequest`.
    DRAIN = 74 client DrainRequest;
    /// `DrainReply`.
    DRAIN_REPLY = 75 daemon DrainReply;
    /// `ReloadRequest`.
    RELOAD = 76 client ReloadRequest;
    /// `ReloadReply`.
    RELOAD_REPLY = 77 daemon ReloadReply;

    /// Between supervisor and worker alone: the policy and the threads, as JSON.
    WORKER_START = 4096 link;
    /// Between supervisor and worker alone: the worker is confined, and what it observed, as JSON.
    WORKER_STARTED = 4097 link;
    /// Between supervisor and worker alone: what to do with the files, as JSON.
    WORKER_ORDER = 4098 link;
    /// Between supervisor and worker alone: how far a job is, as JSON.
    WORKER_PROGRESS = 4099 link;
    /// Between supervisor and worker alone: bytes of a job's result.
    WORKER_BYTES = 4100 link;
    /// Between supervisor and worker alone: the result of a job, as JSON.
    WORKER_DONE = 4101 link;
    /// Between supervisor and worker alone: a heartbeat.
    WORKER_PING = 4102 link;
    /// Between supervisor and worker alone: its answer, with counters, as JSON.
    WORKER_PONG = 4103 link;
    /// Between supervisor and worker alone: compute no more tokens of a request for now.
    WORKER_PAUSE = 4104 link;
    /// Between supervisor and worker alone: go on with a request.
    WORKER_RESUME = 4105 link;
    /// Between supervisor and worker alone: where in the code the worker has panicked, as JSON.
    WORKER_PANIC = 4106 link;
    /// What the daemon knows of the client of the request to generate that follows under the same number.
    WORKER_CLIENT = 4107 link;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_each_has_a_name_and_a_message_or_is_internal() {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            assert!(kind.name().is_some());
            assert!(!Kind::ALL[..at].contains(kind), "{kind} stands twice");
            assert_eq!(kind.message_name().is_none(), kind.is_internal(), "{kind}");
            assert!(!kind.is_internal() || !kind.is_from_client(), "{kind}");
        }
    }

    #[test]
    fn zero_and_the_gaps_are_not_known() {
        for number in [0, 4, 15, 21, 31, 38, 47, 53, 63, 78, 4095, 4108, u16::MAX] {
            let kind = Kind(number);
            assert_eq!((kind.name(), kind.message_name(), kind.is_from_client()), (None, None, false));
            assert_eq!(kind.to_string(), format!("kind {number}"));
        }
        assert!(!Kind(4095).is_internal() && Kind(4108).is_internal());
    }
}
