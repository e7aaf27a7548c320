//! Where a setting comes from, and what can be wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::limits::{ERRORS_MAX, SHOWN_MAX};

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A place in the file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: &'static str,
    },
    /// A flag of the command line.
    Flag {
        /// The flag, with its dashes.
        flag: &'static str,
    },
    /// A client's request to the running daemon.
    Request,
}

impl Origin {
    pub(super) const fn flag(flag: &'static str) -> Self {
        Self::Flag { flag }
    }

    pub(super) const fn variable(variable: &'static str) -> Self {
        Self::Environment { variable }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag { flag } => write!(f, "flag {flag}"),
            Self::Request => f.write_str("request"),
        }
    }
}

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: the configuration cannot be read: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file is longer than is read.
    #[error("{}: the configuration has more than the {limit} bytes that are read", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that are read.
        limit: usize,
    },
    /// The file is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// The place.
        origin: Origin,
        /// What is wrong there.
        message: String,
    },
    /// There is no such key.
    #[error("{origin}: there is no key `{key}`; allowed is {allowed}")]
    UnknownKey {
        /// The place.
        origin: Origin,
        /// The key, with its table.
        key: String,
        /// The keys that there are.
        allowed: String,
    },
    /// A key has a value that it cannot have.
    #[error("{origin}: `{key}` is {found}; allowed is {allowed}")]
    Value {
        /// The place.
        origin: Origin,
        /// The key, with its table.
        key: String,
        /// The value, shortened.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// A key that must be there is not.
    #[error("{origin}: `{key}` is missing; it must be {allowed}")]
    Missing {
        /// The place of the table.
        origin: Origin,
        /// The key, with its table.
        key: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two settings contradict each other.
    #[error("{origin}: {message}")]
    Contradiction {
        /// The place of one of them.
        origin: Origin,
        /// Which settings, and what to do.
        message: String,
    },
    /// The token cannot be had from where it is said to be.
    #[error("{origin}: the token {reason}")]
    Token {
        /// What names the token's place.
        origin: String,
        /// Why it is not accepted. The token is no part of it.
        reason: String,
    },
}

impl Error {
    /// Where the setting stands that is wrong.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Syntax { origin, .. }
            | Self::UnknownKey { origin, .. }
            | Self::Value { origin, .. }
            | Self::Missing { origin, .. }
            | Self::Contradiction { origin, .. } => Some(origin),
            Self::Read { .. } | Self::FileTooLong { .. } | Self::Token { .. } => None,
        }
    }

    /// A wrong value of a text.
    pub(super) fn value(origin: Origin, key: &str, found: &str, allowed: &str) -> Self {
        let (key, allowed) = (key.to_owned(), allowed.to_owned());
        Self::Value { origin, key, found: quoted(found), allowed }
    }
}

/// A text from outside for a message: in quotes, without control characters, not too long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

/// Everything that is wrong with the configuration; at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// `Ok` if there is no error.
    pub(super) fn none_or(errors: Vec<Error>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }
}

impl std::ops::Deref for Errors {
    type Target = [Error];

    fn deref(&self) -> &[Error] {
        &self.0
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Errors {
    /// One error a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().take(ERRORS_MAX).enumerate() {
            write!(f, "{}{error}", if number == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(ERRORS_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Errors {}
