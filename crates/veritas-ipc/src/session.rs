//! Frames over a connection, for tokio: what reads them, and what writes them.
//!
//! Both can stand in a `select!`: whatever is cut off loses nothing and says nothing twice.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use veritas_proto::{Frame, FrameDecoder, Kind, Message};

use crate::Error;
use crate::limits::{READ_BYTES, WRITE_BYTES_KEPT};

/// Reads frames. Several that come at once cost one call of the kernel.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    decoder: FrameDecoder,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `inner` frames whose bodies have at most `body_bytes_max` bytes.
    pub fn new(inner: R, body_bytes_max: u32) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { inner, decoder: FrameDecoder::new(body_bytes_max), buffer }
    }

    /// Changes the limit, for frames that have not been asked for yet.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: u32) {
        self.decoder.set_body_bytes_max(body_bytes_max);
    }

    /// The next frame; `None` once the other side has closed the connection after a whole one.
    ///
    /// A call that is dropped before it ends loses no byte.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the connection ended within a frame, [`Error::Protocol`] if the bytes are no frame,
    /// after which the connection is of no use.
    pub async fn next(&mut self) -> Result<Option<Frame>, Error> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let read = self.inner.read(&mut self.buffer).await;
            match read.map_err(|source| Error::exchange("read from the connection", source))? {
                0 => return self.decoder.end().map(|()| None).map_err(Error::from),
                n => self.decoder.push(&self.buffer[..n]),
            }
        }
    }

    /// A frame that has come already, without waiting.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the bytes are no frame.
    pub fn buffered(&mut self) -> Result<Option<Frame>, Error> {
        self.decoder.next_frame().map_err(Error::from)
    }
}

/// Writes frames. Those that are put in before a flush leave together.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that the kernel has taken.
    written: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new(), written: 0 }
    }

    /// Puts in a frame. Nothing is written yet, and how much is put in is for the caller to bound.
    ///
    /// # Panics
    /// If the message has 4 GiB or more.
    pub fn put(&mut self, kind: Kind, request_id: u64, message: &impl Message) {
        self.compact();
        veritas_proto::encode(&mut self.buffer, kind, request_id, message);
    }

    /// Puts in a frame with a body that is bytes already.
    ///
    /// # Panics
    /// If the body has 4 GiB or more.
    pub fn put_body(&mut self, kind: Kind, request_id: u64, body: &[u8]) {
        self.compact();
        veritas_proto::encode_body(&mut self.buffer, kind, request_id, body);
    }

    /// Puts in frames that are encoded already.
    pub fn put_encoded(&mut self, frames: &[u8]) {
        self.compact();
        self.buffer.extend_from_slice(frames);
    }

    /// Lets go of what has been written, so that a connection that is never idle does not grow.
    fn compact(&mut self) {
        if self.written >= WRITE_BYTES_KEPT {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
    }

    /// Bytes that wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Writes all that waits. A call that is dropped before it ends goes on where it was when it is called again.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the other side is gone.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while self.written < self.buffer.len() {
            let wrote = self.inner.write(&self.buffer[self.written..]).await;
            match wrote.map_err(|source| Error::exchange("write to the connection", source))? {
                0 => return Err(Error::Disconnected),
                n => self.written += n,
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(WRITE_BYTES_KEPT);
        self.written = 0;
        Ok(())
    }

    /// Tells the other side that no more will come.
    ///
    /// # Errors
    /// [`Error::Disconnected`] if the other side is gone.
    pub async fn shutdown(&mut self) -> Result<(), Error> {
        self.flush().await?;
        self.inner.shutdown().await.map_err(|source| Error::exchange("close the connection", source))
    }
}
