//! A client's connection as the daemon holds it: read with tokio, written at once as far as the kernel takes it.
//!
//! tokio's own stream asks the kernel to tell of bytes to read and of room to write. Of room there is news whenever the
//! client has read something, so that each token that a client takes would wake the daemon for nothing. Here room is
//! asked for only while something waits for it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

use crate::{Connection, Error};

/// A connection of which the kernel tells only that there is something to read.
#[derive(Debug)]
pub struct ServedConnection {
    stream: AsyncFd<UnixStream>,
}

impl ServedConnection {
    /// Takes over a connection. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be registered.
    pub fn new(connection: Connection) -> Result<Self, Error> {
        let stream = connection.into_std().and_then(|stream| watched(stream, Interest::READABLE));
        let stream = stream.map_err(|source| Error::socket("serve a connection", source))?;
        Ok(Self { stream })
    }

    /// Writes as much as the kernel takes now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where that is nothing; others if the client is gone.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.get_ref().write(bytes)
    }

    /// Waits until the kernel has room for something.
    ///
    /// # Errors
    /// If the connection cannot be watched.
    pub async fn writable(&self) -> io::Result<()> {
        // The kernel watches a descriptor once; a second one of the same connection can be watched for something else.
        let second = OwnedFd::from(self.stream.get_ref().try_clone()?);
        let second = watched(second, Interest::WRITABLE)?;
        second.writable().await.map(drop)
    }

    /// Writes all of `bytes`. How many have left is not known where the call is dropped before it ends.
    ///
    /// # Errors
    /// If the client is gone.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Has the kernel tell of `interest` alone.
#[allow(
    deprecated,
    reason = "what the new, unsafe form asks for holds: the descriptor of these types stays the same while they live"
)]
fn watched<T: AsRawFd + AsFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, interest)
}

impl AsyncRead for &ServedConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            let n_room = room.len();
            match guard.try_io(|stream| stream.get_ref().read(room)) {
                Ok(Ok(n)) => {
                    // Less than there was room for: there is no more, and the kernel tells when more comes. Zero is the
                    // end, which stays.
                    if 0 < n && n < n_room {
                        guard.clear_ready();
                    }
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    /// More than a socket holds.
    const N_BYTES: usize = 4 << 20;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn pattern() -> Vec<u8> {
        (0..N_BYTES).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    #[test]
    fn what_is_written_beyond_what_the_kernel_holds_arrives_when_the_client_reads() {
        block_on(async {
            let (near, mut far) = Connection::pair().unwrap();
            let served = ServedConnection::new(near).unwrap();
            let sent = pattern();
            let mut received = vec![0; N_BYTES];
            let (wrote, read) = tokio::join!(served.write_all(&sent), far.read_exact(&mut received));
            wrote.unwrap();
            read.unwrap();
            assert!(received == sent);
        });
    }

    #[test]
    fn a_client_that_does_not_read_is_seen_and_room_is_waited_for() {
        block_on(async {
            let (near, mut far) = Connection::pair().unwrap();
            let served = ServedConnection::new(near).unwrap();
            let bytes = pattern();
            let mut n = 0;
            let full = loop {
                match served.try_write(&bytes[n..]) {
                    Ok(wrote) => n += wrote,
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
            assert!(timeout(Duration::from_millis(20), served.writable()).await.is_err());
            let mut received = vec![0; n];
            let (room, read) = tokio::join!(served.writable(), far.read_exact(&mut received));
            room.unwrap();
            read.unwrap();
            assert!(received == bytes[..n]);
        });
    }

    /// Hunts for a wake-up that is lost when readiness is given up after a short read.
    #[test]
    fn every_byte_is_read_however_it_was_cut() {
        block_on(async {
            let (near, mut far) = Connection::pair().unwrap();
            let served = ServedConnection::new(near).unwrap();
            let sent = pattern();
            let write = async {
                let mut rest = &sent[..];
                for length in [1, 2, 3, 5, 4096, 100, 32 << 10, 1 << 20].into_iter().cycle() {
                    let (piece, others) = rest.split_at(length.min(rest.len()));
                    far.write_all(piece).await.unwrap();
                    rest = others;
                    if rest.is_empty() {
                        break;
                    }
                }
                drop(far);
            };
            let read = async {
                let mut received = Vec::new();
                let mut piece = vec![0; 32 << 10];
                let mut reader = &served;
                loop {
                    match reader.read(&mut piece).await.unwrap() {
                        0 => break received,
                        n => received.extend_from_slice(&piece[..n]),
                    }
                }
            };
            assert!(tokio::join!(write, read).1 == sent);
        });
    }

    #[test]
    fn a_client_that_is_gone_is_an_error() {
        block_on(async {
            let (near, far) = Connection::pair().unwrap();
            let served = ServedConnection::new(near).unwrap();
            drop(far);
            assert!(served.write_all(&[0; 10]).await.is_err());
            assert_eq!((&served).read(&mut [0; 10]).await.unwrap(), 0);
        });
    }
}
