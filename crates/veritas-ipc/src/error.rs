//! What can go wrong between a program and its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use veritas_proto::v1::{self, Code};

/// Any error of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that this system does not offer.
    #[error(
        "{what} needs Unix sockets; on this system named pipes will take their place, and do not exist yet"
    )]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },

    /// The path of a socket is longer than the kernel takes.
    #[error("the socket's path {} has {found} bytes; at most {limit} are possible", .path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        found: usize,
        /// Bytes that are possible.
        limit: usize,
    },
    /// The path is an abstract address, which has no permissions.
    #[error("{} is an abstract address, which everybody on the machine can reach; give a path", .path.display())]
    AbstractAddress {
        /// The address.
        path: PathBuf,
    },
    /// The path does not name a file.
    #[error("{} does not name a file that could be a socket", .path.display())]
    PathInvalid {
        /// The path.
        path: PathBuf,
    },
    /// Others can write to the folder of the socket, or to one above it, and so could put their own in its place.
    #[error("the folder {} is not safe for a socket: {reason}", .path.display())]
    FolderUnsafe {
        /// The folder.
        path: PathBuf,
        /// Who can write to it.
        reason: String,
    },
    /// Something else stands where the socket should be.
    #[error("{} exists and is {found}, not a socket", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Another process serves this socket.
    #[error("another process is serving {}", .path.display())]
    AlreadyRunning {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The service manager handed over something that cannot be served.
    #[error("the socket that the service manager handed over cannot be used: {reason}")]
    Activation {
        /// What is wrong with it.
        reason: String,
    },

    /// There is no daemon to talk to.
    #[error("cannot reach the daemon at {}: {}", .path.display(), why_unreachable(.source))]
    Unreachable {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What listens is not run by a user whom this client was told to trust. Nothing was sent to it.
    #[error("the daemon at {} is run by user {uid}, whom this client does not trust", .path.display())]
    UntrustedServer {
        /// The path of the socket.
        path: PathBuf,
        /// The user, as the kernel says.
        uid: u32,
    },
    /// The daemon did not answer in time.
    #[error("{what} took longer than {} ms", .limit.as_millis())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The daemon answered with an error.
    #[error("{}", .0.message)]
    Refused(v1::Error),
    /// The connection ended before the answer did.
    #[error("the other side has closed the connection")]
    Disconnected,
    /// The other side does not keep to the protocol. The connection is of no use any more.
    #[error("the other side does not keep to the protocol: {reason}")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// A message is longer than the daemon accepts.
    #[error("the request has {found} bytes; the daemon accepts {limit}")]
    RequestTooLong {
        /// Bytes of the message.
        found: u64,
        /// Bytes that are accepted.
        limit: u64,
    },

    /// A token without a byte.
    #[error("the token is empty")]
    EmptyToken,
    /// A token that is too long.
    #[error("the token has more than {limit} bytes")]
    TokenTooLong {
        /// Bytes that are accepted.
        limit: usize,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes: {reason}")]
    Random {
        /// What it says.
        reason: String,
    },

    /// A file or folder cannot be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused an operation on a socket.
    #[error("cannot {what}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn why_unreachable(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => "there is no socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nothing listens on the socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => source.to_string(),
    }
}

impl Error {
    /// The code that stands for the error towards users and clients.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(error) => error.code(),
            Self::Unreachable { .. } | Self::Disconnected => Code::Unreachable,
            Self::Timeout { .. } => Code::Timeout,
            Self::UntrustedServer { .. } => Code::Forbidden,
            Self::RequestTooLong { .. } => Code::Usage,
            Self::Protocol { .. } | Self::Random { .. } | Self::Socket { .. } => Code::Internal,
            Self::Unsupported { .. }
            | Self::PathTooLong { .. }
            | Self::AbstractAddress { .. }
            | Self::PathInvalid { .. }
            | Self::FolderUnsafe { .. }
            | Self::NotASocket { .. }
            | Self::AlreadyRunning { .. }
            | Self::Activation { .. }
            | Self::EmptyToken
            | Self::TokenTooLong { .. }
            | Self::File { .. } => Code::Config,
        }
    }

    #[cfg_attr(not(unix), allow(dead_code, reason = "no socket is made there"))]
    pub(crate) fn file(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { what, path: path.to_owned(), source: source.into() }
    }

    #[cfg_attr(not(unix), allow(dead_code, reason = "no socket is made there"))]
    pub(crate) fn socket(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Socket { what, source: source.into() }
    }

    pub(crate) fn protocol(reason: impl ToString) -> Self {
        Self::Protocol { reason: reason.to_string() }
    }

    /// What an error while bytes were exchanged means: an end that was not announced is an end all the same.
    pub(crate) fn exchange(what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotConnected => Self::Disconnected,
            _ => Self::Socket { what, source },
        }
    }
}

impl From<veritas_proto::Error> for Error {
    /// Bytes that end within a frame are an end; all else is a violation.
    fn from(error: veritas_proto::Error) -> Self {
        match error {
            veritas_proto::Error::Truncated { .. } => Self::Disconnected,
            other => Self::protocol(other),
        }
    }
}
