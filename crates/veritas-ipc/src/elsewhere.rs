//! Systems without Unix sockets: every way to a connection ends in an error, so that all else compiles as it is. The
//! types below have no values.
#![allow(dead_code, reason = "nothing makes what cannot be made")]
#![allow(clippy::unused_async, reason = "the signatures are those of the Unix twins")]

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::Deadline;
use crate::{Error, Peer, SocketMode};

const SERVING: Error = Error::Unsupported { what: "serving" };
const CONNECTING: Error = Error::Unsupported { what: "connecting to a daemon" };

fn unsupported<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::from(io::ErrorKind::Unsupported)))
}

/// A connection; there is none.
#[derive(Debug)]
pub struct Connection {
    _private: (),
}

impl Connection {
    /// The two halves.
    pub fn into_split(self) -> (Self, Self) {
        (Self { _private: () }, self)
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unsupported()
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unsupported()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unsupported()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unsupported()
    }
}

/// A socket that listens; there is none.
#[derive(Debug)]
pub struct Listener {
    _private: (),
}

impl Listener {
    /// Binds a socket.
    ///
    /// # Errors
    /// Always.
    pub fn bind(_path: &Path, _mode: SocketMode) -> Result<Self, Error> {
        Err(SERVING)
    }

    /// The socket that a service manager handed over: none.
    ///
    /// # Errors
    /// Never.
    pub fn from_activation() -> Result<Option<Self>, Error> {
        Ok(None)
    }

    /// The path of the socket.
    pub fn path(&self) -> Option<&Path> {
        None
    }

    /// Whether the service manager handed the socket over.
    pub fn is_activated(&self) -> bool {
        false
    }

    /// Makes the listener ready for the runtime.
    ///
    /// # Errors
    /// Always.
    pub fn incoming(self) -> Result<Incoming, Error> {
        Err(SERVING)
    }
}

/// The connections that come in; there are none.
#[derive(Debug)]
pub struct Incoming {
    listener: Listener,
}

impl Incoming {
    /// The next connection.
    ///
    /// # Errors
    /// Always.
    pub async fn accept(&self) -> Result<(Connection, Peer), Error> {
        Err(SERVING)
    }

    /// The listener.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }
}

/// A connection for threads; there is none.
#[derive(Debug)]
pub(crate) struct Stream {
    _private: (),
}

pub(crate) type MayServe<'a> = &'a (dyn Fn(u32) -> Result<(), Error> + Sync);

pub(crate) async fn connect_async(_path: &Path, _may_serve: MayServe<'_>) -> Result<Connection, Error> {
    Err(CONNECTING)
}

pub(crate) fn connect(_path: &Path, _may_serve: MayServe<'_>, _deadline: Deadline) -> Result<Stream, Error> {
    Err(CONNECTING)
}

impl Stream {
    pub(crate) fn read(&self, _buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        deadline.left()?;
        Err(CONNECTING)
    }

    pub(crate) fn write_all(&self, _bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        deadline.left()?;
        Err(CONNECTING)
    }
}
