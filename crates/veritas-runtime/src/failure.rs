//! Every error that a user can see: its code, its message, what to do about it, and the exit status.

use serde::{Deserialize, Serialize};
use veritas_engine::ErrorKind;
use veritas_proto::v1;

/// The codes that programs may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// A fault of ours.
    Internal,
    /// The worker died, and the request could not be tried again.
    WorkerLost,
    /// The daemon ends.
    ShuttingDown,
    /// The request makes no sense.
    Usage,
    /// The configuration makes no sense.
    Config,
    /// A file or a model that is not there.
    NotFound,
    /// The prompt does not fit.
    ContextExceeded,
    /// A schema that cannot be enforced.
    SchemaUnsupported,
    /// There is no daemon.
    Unreachable,
    /// The daemon, or the client, took too long.
    Timeout,
    /// The model's file contradicts itself.
    MalformedModel,
    /// The model needs what is not supported.
    UnsupportedModel,
    /// The token is missing or wrong.
    Unauthenticated,
    /// This user may not do that.
    Forbidden,
    /// Too many requests.
    RateLimited,
    /// Too many requests wait.
    QueueFull,
    /// A filter refused the prompt.
    BlockedInput,
    /// The file is not the one that was expected.
    ModelHashMismatch,
    /// The model's signature is missing or wrong.
    UnverifiedModel,
    /// The model's worker died too often.
    ModelQuarantined,
    /// The user interrupted.
    Cancelled,
}

/// Each code with its name, its number on the wire, and the exit status of a command that ends with it.
const CODES: [(Code, &str, v1::Code, u8); 21] = [
    (Code::Internal, "internal", v1::Code::Internal, 1),
    (Code::WorkerLost, "worker_lost", v1::Code::WorkerLost, 1),
    (Code::ShuttingDown, "shutting_down", v1::Code::ShuttingDown, 1),
    (Code::Usage, "usage", v1::Code::Usage, 2),
    (Code::Config, "config", v1::Code::Config, 2),
    (Code::NotFound, "not_found", v1::Code::NotFound, 2),
    (Code::ContextExceeded, "context_exceeded", v1::Code::ContextExceeded, 2),
    (Code::SchemaUnsupported, "schema_unsupported", v1::Code::SchemaUnsupported, 2),
    (Code::Unreachable, "unreachable", v1::Code::Unreachable, 3),
    (Code::Timeout, "timeout", v1::Code::Timeout, 3),
    (Code::MalformedModel, "malformed_model", v1::Code::MalformedModel, 4),
    (Code::UnsupportedModel, "unsupported_model", v1::Code::UnsupportedModel, 4),
    (Code::Unauthenticated, "unauthenticated", v1::Code::Unauthenticated, 5),
    (Code::Forbidden, "forbidden", v1::Code::Forbidden, 5),
    (Code::RateLimited, "rate_limited", v1::Code::RateLimited, 5),
    (Code::QueueFull, "queue_full", v1::Code::QueueFull, 5),
    (Code::BlockedInput, "blocked_input", v1::Code::BlockedInput, 5),
    (Code::ModelHashMismatch, "model_hash_mismatch", v1::Code::ModelHashMismatch, 5),
    (Code::UnverifiedModel, "unverified_model", v1::Code::UnverifiedModel, 5),
    (Code::ModelQuarantined, "model_quarantined", v1::Code::ModelQuarantined, 5),
    (Code::Cancelled, "cancelled", v1::Code::Cancelled, 130),
];

impl Code {
    fn row(self) -> &'static (Self, &'static str, v1::Code, u8) {
        // The table follows the order of the variants; a test holds it to that.
        &CODES[self as usize]
    }

    /// The name that `--json` prints.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The exit status of a command that ends with it.
    pub fn exit(self) -> u8 {
        self.row().3
    }

    /// The number on the wire.
    pub fn to_wire(self) -> v1::Code {
        self.row().2
    }

    /// The code of a number on the wire; one that is not known is a fault of the other side.
    pub fn from_wire(code: i32) -> Self {
        CODES.iter().find(|row| row.2 as i32 == code).map_or(Self::Internal, |row| row.0)
    }
}

/// Why a command or a request ends without success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What programs decide by.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it may be worth trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_ms: None }
    }

    /// A request that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Says where it happened: a line, a tensor, a file.
    #[must_use]
    pub fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// As it is sent.
    pub fn to_wire(&self) -> v1::Error {
        v1::Error {
            code: self.code.to_wire().into(),
            message: self.message.clone(),
            hint: self.hint.clone(),
            retry_after_ms: self.retry_after_ms,
        }
    }

    /// As it was received.
    pub fn from_wire(error: v1::Error) -> Self {
        Self {
            code: Code::from_wire(error.code),
            message: error.message,
            hint: error.hint,
            retry_after_ms: error.retry_after_ms,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<veritas_engine::Error> for Failure {
    fn from(error: veritas_engine::Error) -> Self {
        let (code, hint) = match error.kind() {
            ErrorKind::MalformedModel => (Code::MalformedModel, None),
            ErrorKind::UnsupportedModel => {
                (Code::UnsupportedModel, Some("`veritas-sdr inspect FILE` shows what the file holds"))
            }
            ErrorKind::NotFound => (Code::NotFound, Some("check the path and its permissions")),
            ErrorKind::ContextExceeded => {
                (Code::ContextExceeded, Some("shorten the prompt, or raise --ctx where the model allows it"))
            }
            ErrorKind::Usage => (Code::Usage, None),
            ErrorKind::QueueFull => (Code::QueueFull, Some("try again when others have been answered")),
            ErrorKind::Timeout => (Code::Timeout, None),
            ErrorKind::Internal => (Code::Internal, None),
        };
        let failure = Self::new(code, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<veritas_tokenizer::chat::Error> for Failure {
    /// What is wrong with a template is wrong with the model's file; what is wrong with the messages is the user's.
    fn from(error: veritas_tokenizer::chat::Error) -> Self {
        use veritas_tokenizer::chat::Error as E;
        let code = match error {
            E::ChatTooLarge
            | E::MessagesNotAList
            | E::InvalidRole { .. }
            | E::InvalidDate { .. }
            | E::NoFreeGuard
            | E::TooManyNames => Code::Usage,
            E::NoThread { .. } => Code::Internal,
            _ => Code::MalformedModel,
        };
        Self::new(code, error.to_string())
    }
}

impl From<veritas_proto::Error> for Failure {
    fn from(error: veritas_proto::Error) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::internal(format!("reading or writing failed: {error}"))
    }
}

macro_rules! as_of_the_engine {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                veritas_engine::Error::from(error).into()
            }
        })*
    };
}

as_of_the_engine!(
    veritas_gguf::Error,
    veritas_tokenizer::Error,
    veritas_quant::Error,
    veritas_engine::sampler::Error
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_name_its_number_and_its_exit_status() {
        for (index, (code, name, wire, exit)) in CODES.into_iter().enumerate() {
            assert_eq!(code as usize, index);
            assert_eq!((code.name(), code.to_wire(), code.exit()), (name, wire, exit));
            assert_eq!(Code::from_wire(wire as i32), code);
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("{name:?}"));
            assert_eq!(wire.as_str_name().to_ascii_lowercase(), name);
        }
        assert_eq!(Code::from_wire(9999), Code::Internal);
    }
}
