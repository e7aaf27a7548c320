//! Systems without Unix sockets: every way to a connection ends in an error, so that all else compiles as it is.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::deadline::Deadline;
use crate::{Error, Peer, SocketMode};

/// A connection; there is none.
#[derive(Debug)]
pub enum Connection {}

impl Connection {
    /// The two halves.
    pub fn into_split(self) -> (Self, Self) {
        match self {}
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match *self {}
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match *self {}
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match *self {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match *self {}
    }
}

/// A socket that listens; there is none.
#[derive(Debug)]
pub enum Listener {}

impl Listener {
    /// Binds a socket.
    ///
    /// # Errors
    /// Always.
    pub fn bind(_path: &Path, _mode: SocketMode) -> Result<Self, Error> {
        Err(Error::Unsupported { what: "serving" })
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
        match *self {}
    }

    /// Whether the service manager handed the socket over.
    pub fn is_activated(&self) -> bool {
        match *self {}
    }

    /// Makes the listener ready for the runtime.
    ///
    /// # Errors
    /// Never.
    pub fn incoming(self) -> Result<Incoming, Error> {
        match self {}
    }
}

/// The connections that come in; there are none.
#[derive(Debug)]
pub enum Incoming {}

impl Incoming {
    /// The next connection.
    ///
    /// # Errors
    /// Never.
    #[allow(clippy::unused_async, reason = "the signature is that of the Unix twin")]
    pub async fn accept(&self) -> Result<(Connection, Peer), Error> {
        match *self {}
    }

    /// The listener.
    pub fn listener(&self) -> &Listener {
        match *self {}
    }
}

/// A connection for threads; there is none.
#[derive(Debug)]
pub(crate) enum Stream {}

#[allow(clippy::unused_async, reason = "the signature is that of the Unix twin")]
pub(crate) async fn connect_async(_path: &Path) -> Result<Connection, Error> {
    Err(Error::Unsupported { what: "connecting to a daemon" })
}

pub(crate) fn connect(_path: &Path, _deadline: Deadline) -> Result<Stream, Error> {
    Err(Error::Unsupported { what: "connecting to a daemon" })
}

impl Stream {
    pub(crate) fn read(&self, _buffer: &mut [u8], _deadline: Deadline) -> Result<usize, Error> {
        match *self {}
    }

    pub(crate) fn write_all(&self, _bytes: &[u8], _deadline: Deadline) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn try_clone(&self) -> Result<Self, Error> {
        match *self {}
    }
}
