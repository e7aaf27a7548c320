//! The sockets of Veritas SDR: what stands between the bytes of `veritas-proto` and the kernel.
//!
//! - For the daemon: [`Listener`] (a socket in a folder that nobody else can write to, behind a lock, or one that systemd
//!   handed over), [`Peer`] and [`AllowList`] (who is calling, as the kernel says), [`Handshake`] (what is asked of them,
//!   pure), [`FrameReader`] and [`FrameWriter`] (frames over a connection), `ServedConnection`, [`systemd::Notifier`].
//! - For clients: [`blocking::Client`] without a runtime, so that a probe costs next to nothing, and
//!   [`asynchronous::Client`], which has many requests open on one connection.
//!
//! Everything is a Unix socket. On other systems the crate compiles, and every way to a connection ends in
//! [`Error::Unsupported`].
//!
//! Architecture invariant: no socket but of the family AF_UNIX, and no request is understood here beyond its kind.
#![forbid(unsafe_code)]

mod client;
mod deadline;
mod error;
mod handshake;
pub mod limits;
#[cfg(unix)]
mod listener;
mod peer;
mod request;
#[cfg(unix)]
mod served;
mod session;
#[cfg(unix)]
mod socket;
pub mod systemd;
mod token;

#[cfg(not(unix))]
mod elsewhere;
#[cfg(not(unix))]
use elsewhere as platform;
#[cfg(unix)]
mod platform {
    pub use crate::listener::{Incoming, Listener};
    pub(crate) use crate::socket::{Stream, connect, connect_async};
    pub use tokio::net::UnixStream as Connection;
}

pub use client::{ClientOptions, asynchronous, blocking};
pub use error::Error;
pub use handshake::{Accepted, Handshake, HandshakeConfig, SessionId, session_id};
pub use peer::{AllowList, Peer};
pub use platform::{Connection, Incoming, Listener};
pub use request::Unary;
#[cfg(unix)]
pub use served::ServedConnection;
pub use session::{FrameReader, FrameWriter};
pub use token::{Token, TokenFile, TokenHash, TokenWarning};

/// Who may connect to a socket, as far as its file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SocketMode {
    /// The owner alone: mode 0600, in a folder of mode 0700 where it has to be made.
    #[default]
    Owner,
    /// The owner and a group: mode 0660, in a folder of mode 0710 where it has to be made.
    Group {
        /// The group; the process's own if there is none.
        gid: Option<u32>,
    },
}
