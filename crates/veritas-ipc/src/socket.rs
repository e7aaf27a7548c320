//! Unix sockets without a runtime: making one, its address, connecting within a time, and exchanging bytes within one.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, sockopt};

use crate::Error;
use crate::deadline::Deadline;
use crate::limits::{QUEUE_POLL, SOCKET_PATH_BYTES_MAX};

/// The address of the socket at `path`.
///
/// # Errors
/// If the path is too long, abstract, or names no file.
pub(crate) fn address(path: &Path) -> Result<SocketAddrUnix, Error> {
    let bytes = path.as_os_str().as_bytes();
    if matches!(bytes.first(), Some(b'@' | 0)) {
        return Err(Error::AbstractAddress { path: path.to_owned() });
    }
    if path.file_name().is_none() || bytes.ends_with(b"/") || bytes.contains(&0) {
        return Err(Error::PathInvalid { path: path.to_owned() });
    }
    if bytes.len() > SOCKET_PATH_BYTES_MAX {
        let (found, limit) = (bytes.len(), SOCKET_PATH_BYTES_MAX);
        return Err(Error::PathTooLong { path: path.to_owned(), found, limit });
    }
    SocketAddrUnix::new(path).map_err(|source| Error::file("make an address of", path, source))
}

/// A socket that no other program inherits.
pub(crate) fn new_socket() -> Result<OwnedFd, Error> {
    let what = "make a socket";
    #[cfg(not(target_vendor = "apple"))]
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|source| Error::socket(what, source))?;
    #[cfg(target_vendor = "apple")]
    let socket = {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)
            .map_err(|source| Error::socket(what, source))?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
            .map_err(|source| Error::socket(what, source))?;
        sockopt::set_socket_nosigpipe(&socket, true).map_err(|source| Error::socket(what, source))?;
        socket
    };
    Ok(socket)
}

/// A connection whose every operation has a bound.
#[derive(Debug)]
pub(crate) struct Stream(UnixStream);

/// Judges the user who listens, before anything is said to it.
pub(crate) type MayServe<'a> = &'a (dyn Fn(u32) -> Result<(), Error> + Sync);

/// Connects to the socket at `path`.
///
/// A daemon that is stopped accepts nothing, but the kernel lets connections in until its queue is full; from then on
/// connecting waits, which the socket's timeout for sending bounds.
pub(crate) fn connect(path: &Path, may_serve: MayServe<'_>, deadline: Deadline) -> Result<Stream, Error> {
    let address = address(path)?;
    let socket = new_socket()?;
    loop {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, deadline.left()?)
            .map_err(|source| Error::socket("bound the time of a connection", source))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                may_serve(server_uid(&socket, path)?)?;
                return Ok(Stream(UnixStream::from(socket)));
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(deadline.timeout()),
            Err(source) => {
                return Err(Error::Unreachable { path: path.to_owned(), source: source.into() });
            }
        }
    }
}

/// The user who made the socket listen to which `stream` is connected: the kernel keeps its name with the socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn server_uid(stream: impl AsFd, _path: &Path) -> Result<u32, Error> {
    let cred = sockopt::socket_peercred(stream);
    Ok(cred.map_err(|source| Error::socket("ask who listens", source))?.uid.as_raw())
}

/// The user whom the socket's file belongs to: here the kernel cannot be asked without a runtime.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn server_uid(_stream: impl AsFd, path: &Path) -> Result<u32, Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata().map_err(|source| Error::file("look at", path, source))?;
    Ok(metadata.uid())
}

/// Connects to the socket at `path`, for tokio. It waits for as long as the daemon's queue is full.
pub(crate) async fn connect_async(
    path: &Path,
    may_serve: MayServe<'_>,
) -> Result<tokio::net::UnixStream, Error> {
    address(path)?;
    loop {
        match tokio::net::UnixStream::connect(path).await {
            Ok(stream) => {
                may_serve(server_uid(&stream, path)?)?;
                return Ok(stream);
            }
            // The kernel does not say when there is room again.
            Err(error) if error.kind() == ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_POLL).await,
            Err(source) => return Err(Error::Unreachable { path: path.to_owned(), source }),
        }
    }
}

impl Stream {
    /// Reads what there is, waiting for it if need be. 0 is the end.
    ///
    /// It waits in `poll`, which asks for bytes to read. Who waits in `recv` is woken for nothing, too, when the other
    /// side has read what was written to it.
    pub(crate) fn read(&self, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
        loop {
            let timeout = deadline.left()?.map(timespec);
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Err(deadline.timeout()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(source) => return Err(Error::socket("wait for bytes", source)),
            }
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((n, _)) => return Ok(n),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(source) => {
                    return Err(Error::exchange("read from the connection", io::Error::from(source)));
                }
            }
        }
    }

    /// Writes all of `bytes`. After an error it is not known how many have left.
    pub(crate) fn write_all(&self, mut bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
        // A daemon that is gone is an error, also in a program that is killed by the signal that says so.
        #[cfg(not(target_vendor = "apple"))]
        let flags = SendFlags::NOSIGNAL;
        #[cfg(target_vendor = "apple")]
        let flags = SendFlags::empty();
        while !bytes.is_empty() {
            self.0
                .set_write_timeout(deadline.left()?)
                .map_err(|source| Error::socket("bound the time of writing", source))?;
            match rustix::net::send(&self.0, bytes, flags) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(deadline.timeout()),
                Err(source) => {
                    return Err(Error::exchange("write to the connection", io::Error::from(source)));
                }
            }
        }
        Ok(())
    }
}

/// A time for `poll`; one beyond what it can count is the longest that it can.
fn timespec(time: Duration) -> Timespec {
    let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec, tv_nsec: time.subsec_nanos().into() }
}

/// Whether somebody listens on the socket at `path`: `None` if nothing is there any more.
pub(crate) fn is_served(path: &Path) -> Result<Option<bool>, Error> {
    let socket = new_socket()?;
    let socket = UnixStream::from(socket);
    // A queue that is full must not make this wait.
    socket.set_nonblocking(true).map_err(|source| Error::socket("set up a socket", source))?;
    match rustix::net::connect(&socket, &address(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(Some(true)),
        Err(Errno::CONNREFUSED) => Ok(Some(false)),
        Err(Errno::NOENT) => Ok(None),
        Err(source) => Err(Error::file("find out who serves", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_no_place_for_a_socket_have_errors_of_their_own() {
        let of = |path: &str| address(Path::new(path)).map(drop).unwrap_err();
        assert!(matches!(of("@veritas"), Error::AbstractAddress { .. }));
        assert!(matches!(of("\0veritas"), Error::AbstractAddress { .. }));
        for path in ["", "/", "/run/veritas/", "/run/..", "/run/a\0b"] {
            assert!(matches!(of(path), Error::PathInvalid { .. }), "{path:?}");
        }
        let longest = "/".to_owned() + &"a".repeat(SOCKET_PATH_BYTES_MAX - 1);
        assert!(address(Path::new(&longest)).is_ok());
        let found = SOCKET_PATH_BYTES_MAX + 1;
        assert!(matches!(of(&(longest + "a")), Error::PathTooLong { found: f, .. } if f == found));
    }
}
