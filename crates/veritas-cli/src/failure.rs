//! How a command ends that fails: what is printed, and the exit status.

use std::process::ExitCode;

use serde_json::json;
pub(crate) use veritas_runtime::Code;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    inner: veritas_runtime::Failure,
    /// Nothing is printed: the command has said all there is, or nobody reads it any more.
    silent: bool,
    exit: u8,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        veritas_runtime::Failure::new(code, message).into()
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn code(&self) -> Code {
        self.inner.code
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner = self.inner.hint(hint);
        self
    }

    /// Says where it happened: a line, a tensor, a file.
    pub(crate) fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.inner = self.inner.within(place);
        self
    }

    /// The user interrupted, and what there was has been printed.
    pub(crate) fn interrupted() -> Self {
        Self { silent: true, ..Self::new(Code::Cancelled, "interrupted") }
    }

    /// The answer is no, and it has been printed.
    pub(crate) fn answered_no() -> Self {
        Self { silent: true, ..Self::new(Code::Internal, "no") }
    }

    /// Prints the failure to stderr, as text or as one line of JSON, and gives the exit status.
    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        if !self.silent {
            let mut error = json!({"code": self.inner.code.name(), "message": self.inner.message});
            if let Some(hint) = &self.inner.hint {
                error["hint"] = json!(hint);
            }
            if let Some(ms) = self.inner.retry_after_ms {
                error["retry_after_ms"] = json!(ms);
            }
            if as_json {
                crate::terminal::say(format_args!("{}", json!({"error": error})));
            } else {
                crate::terminal::say(format_args!("error: {}", self.inner.message));
                if let Some(hint) = &self.inner.hint {
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
    ExitCode::from(Code::Usage.exit())
}

impl From<veritas_runtime::Failure> for Failure {
    fn from(inner: veritas_runtime::Failure) -> Self {
        let exit = inner.code.exit();
        Self { inner, silent: false, exit }
    }
}

impl From<std::io::Error> for Failure {
    /// A reader that went away ends the command quietly and successfully, as the end of a pipe does for other tools.
    fn from(error: std::io::Error) -> Self {
        let kind = error.kind();
        let failure = Self::from(veritas_runtime::Failure::from(error));
        match kind {
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

impl From<veritas_ipc::Error> for Failure {
    fn from(error: veritas_ipc::Error) -> Self {
        match error {
            veritas_ipc::Error::Refused(error) => veritas_runtime::Failure::from_wire(error).into(),
            error => {
                let code = Code::from_wire(error.code().into());
                let failure = Self::new(code, error.to_string());
                if let veritas_ipc::Error::UntrustedServer { uid, .. } = error {
                    return failure.hint(format!(
                        "if that user is meant to serve you, say so with --trust-uid {uid} or VERITAS_TRUSTED_UIDS"
                    ));
                }
                match code {
                    Code::Unreachable => {
                        failure.hint("`veritas-sdr serve` starts a daemon; --socket names its socket")
                    }
                    _ => failure,
                }
            }
        }
    }
}
