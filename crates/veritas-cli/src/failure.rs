//! Every error that a user can see: its code, its message, what to do about it, and the exit status.

use std::process::ExitCode;

use serde_json::json;
use veritas_engine::ErrorKind;

/// Exit status of a broken or refused run; see the table in the README.
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_MODEL: u8 = 4;
const EXIT_INTERRUPTED: u8 = 130;

/// The codes that programs may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Internal,
    Usage,
    NotFound,
    ContextExceeded,
    MalformedModel,
    UnsupportedModel,
    Cancelled,
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::ContextExceeded => "context_exceeded",
            Self::MalformedModel => "malformed_model",
            Self::UnsupportedModel => "unsupported_model",
            Self::Cancelled => "cancelled",
        }
    }

    fn exit(self) -> u8 {
        match self {
            Self::Internal => EXIT_FAILED,
            Self::Usage | Self::NotFound | Self::ContextExceeded => EXIT_USAGE,
            Self::MalformedModel | Self::UnsupportedModel => EXIT_MODEL,
            Self::Cancelled => EXIT_INTERRUPTED,
        }
    }
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
    /// Nothing is printed: the command has said all there is, or nobody reads it any more.
    silent: bool,
    exit: u8,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, silent: false, exit: code.exit() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where it happened: a line, a tensor, a file.
    pub(crate) fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The user interrupted, and what there was has been printed.
    pub(crate) fn interrupted() -> Self {
        Self { silent: true, ..Self::new(Code::Cancelled, "interrupted") }
    }

    /// Prints the failure to stderr, as text or as one line of JSON, and gives the exit status.
    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        if !self.silent {
            let mut error = json!({"code": self.code.name(), "message": self.message});
            if let Some(hint) = &self.hint {
                error["hint"] = json!(hint);
            }
            if as_json {
                crate::terminal::say(format_args!("{}", json!({"error": error})));
            } else {
                crate::terminal::say(format_args!("error: {}", self.message));
                if let Some(hint) = &self.hint {
                    crate::terminal::say(format_args!("hint: {hint}"));
                }
            }
        }
        ExitCode::from(self.exit)
    }
}

/// Reports what the parser of the command line found; `--help` and `--version` are no errors.
pub(crate) fn report_usage(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away does not make `--help` fail.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if as_json {
        let text = error.render().to_string();
        let message = text.trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned();
        return Failure::usage(message).hint("see `veritas-sdr --help`").report(true);
    }
    let _ = error.print();
    ExitCode::from(EXIT_USAGE)
}

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
            ErrorKind::Internal => (Code::Internal, None),
        };
        let failure = Self::new(code, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<veritas_gguf::Error> for Failure {
    fn from(error: veritas_gguf::Error) -> Self {
        veritas_engine::Error::from(error).into()
    }
}

impl From<veritas_tokenizer::Error> for Failure {
    fn from(error: veritas_tokenizer::Error) -> Self {
        veritas_engine::Error::from(error).into()
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
            | E::NoFreeGuard => Code::Usage,
            _ => Code::MalformedModel,
        };
        Self::new(code, error.to_string())
    }
}

impl From<veritas_quant::Error> for Failure {
    fn from(error: veritas_quant::Error) -> Self {
        veritas_engine::Error::from(error).into()
    }
}

impl From<veritas_engine::sampler::Error> for Failure {
    fn from(error: veritas_engine::sampler::Error) -> Self {
        veritas_engine::Error::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    /// A reader that went away ends the command quietly and successfully, as the end of a pipe does for other tools.
    fn from(error: std::io::Error) -> Self {
        let failure = Self::new(Code::Internal, format!("reading or writing failed: {error}"));
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self { silent: true, exit: 0, ..failure },
            _ => failure,
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            return std::io::Error::from(error).into();
        }
        Self::usage(format!("the input is not the JSON that was expected: {error}"))
    }
}
