//! Frames over a connection, for tokio: what reads them, and what writes them.
//!
//! Both can stand in a `select!`: whatever is cut off loses nothing and says nothing twice.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use veritas_proto::{Frame, FrameDecoder, Kind, Message};
use zeroize::Zeroize;

use crate::Error;
use crate::limits::{READ_BYTES, WRITE_BYTES_KEPT};

/// Reads frames. Several that come at once cost one call of the kernel.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    decoder: FrameDecoder,
    buffer: Box<[u8]>,
    /// Bytes at the front of the buffer that may hold a token.
    secret_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `inner` frames whose bodies have at most `body_bytes_max` bytes.
    pub fn new(inner: R, body_bytes_max: u32) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { inner, decoder: FrameDecoder::new(body_bytes_max), buffer, secret_bytes: 0 }
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
                if frame.kind == Kind::HELLO {
                    self.buffer[..self.secret_bytes].zeroize();
                    self.secret_bytes = 0;
                }
                return Ok(Some(frame));
            }
            let read = self.inner.read(&mut self.buffer).await;
            match read.map_err(|source| Error::exchange("read from the connection", source))? {
                0 => return self.decoder.end().map(|()| None).map_err(Error::from),
                n => {
                    self.secret_bytes = self.secret_bytes.max(n);
                    self.decoder.push(&self.buffer[..n]);
                }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;
    use veritas_proto::v1;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn frames(bodies: &[Vec<u8>]) -> Vec<Frame> {
        let frame = |(id, body): (u64, &Vec<u8>)| Frame {
            kind: Kind::ALL[id as usize % Kind::ALL.len()],
            request_id: id,
            body: body.clone(),
        };
        (0..).zip(bodies).map(frame).collect()
    }

    proptest! {
        /// Hunts for bytes that are lost or said twice when a call is dropped while it waits: the pipe is so narrow that
        /// every frame needs many reads and writes, and each of them is given up once before it goes on.
        #[test]
        fn frames_arrive_whole_and_in_order_however_often_calls_are_dropped(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            pipe_bytes in 1_usize..64,
        ) {
            let expected = frames(&bodies);
            let (near, far) = duplex(pipe_bytes);
            let received = block_on(async {
                let write = async {
                    let mut writer = FrameWriter::new(near);
                    for frame in &expected {
                        writer.put_body(frame.kind, frame.request_id, &frame.body);
                        while writer.pending_bytes() > 0 {
                            tokio::select! {
                                biased;
                                flushed = writer.flush() => flushed.unwrap(),
                                () = tokio::task::yield_now() => {}
                            }
                        }
                    }
                    writer.shutdown().await.unwrap();
                };
                let read = async {
                    let mut reader = FrameReader::new(far, 1 << 20);
                    let mut received = Vec::new();
                    loop {
                        tokio::select! {
                            biased;
                            frame = reader.next() => match frame.unwrap() {
                                Some(frame) => received.push(frame),
                                None => break received,
                            },
                            () = tokio::task::yield_now() => {}
                        }
                    }
                };
                tokio::join!(write, read).1
            });
            prop_assert_eq!(received, expected);
        }
    }

    #[test]
    fn several_frames_leave_and_come_together() {
        block_on(async {
            let (near, far) = duplex(1 << 16);
            let mut writer = FrameWriter::new(near);
            for id in 1..=3 {
                writer.put(Kind::CREDIT, id, &v1::Credit { deltas: 5 });
            }
            writer.flush().await.unwrap();
            assert_eq!(writer.pending_bytes(), 0);
            let mut reader = FrameReader::new(far, 1 << 20);
            assert_eq!(reader.next().await.unwrap().unwrap().request_id, 1);
            assert_eq!(reader.buffered().unwrap().unwrap().request_id, 2);
            let last = reader.buffered().unwrap().unwrap();
            assert_eq!(last.message::<v1::Credit>().unwrap().deltas, 5);
            assert_eq!(reader.buffered().unwrap(), None);
        });
    }

    #[test]
    fn an_end_within_a_frame_is_a_lost_connection_and_one_after_it_is_not() {
        let mut whole = Vec::new();
        veritas_proto::encode_body(&mut whole, Kind::LIVE, 1, b"abc");
        for cut in 0..=whole.len() {
            let outcome = block_on(async {
                let mut reader = FrameReader::new(&whole[..cut], 1 << 20);
                reader.next().await?;
                reader.next().await
            });
            if cut == 0 || cut == whole.len() {
                assert_eq!(outcome.unwrap(), None);
            } else {
                assert!(matches!(outcome, Err(Error::Disconnected)), "{cut}: {outcome:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_frame_are_a_violation_and_so_is_a_body_beyond_the_limit() {
        block_on(async {
            let mut reader = FrameReader::new(&b"GET / HTTP/1.1\r\nHost: localhost\r\n"[..], 1 << 20);
            assert!(matches!(reader.next().await, Err(Error::Protocol { .. })));
            let mut long = Vec::new();
            veritas_proto::encode_body(&mut long, Kind::LIVE, 1, &[0; 101]);
            let mut reader = FrameReader::new(&long[..], 100);
            assert!(matches!(reader.next().await, Err(Error::Protocol { .. })));
            let mut reader = FrameReader::new(&long[..], 100);
            reader.set_body_bytes_max(101);
            assert!(reader.next().await.unwrap().is_some());
        });
    }

    #[test]
    fn a_writer_that_is_never_idle_does_not_grow() {
        block_on(async {
            let (near, mut far) = duplex(1 << 10);
            let mut writer = FrameWriter::new(near);
            let mut sink = vec![0; 1 << 10];
            for _ in 0..10_000 {
                writer.put_body(Kind::DELTA, 1, &[0; 900]);
                // Some is always left over, since the pipe takes less than was put in.
                tokio::select! {
                    biased;
                    flushed = writer.flush() => flushed.unwrap(),
                    read = far.read(&mut sink) => assert!(read.unwrap() > 0),
                }
                while writer.pending_bytes() > 2000 {
                    tokio::select! {
                        biased;
                        read = far.read(&mut sink) => assert!(read.unwrap() > 0),
                        flushed = writer.flush() => flushed.unwrap(),
                    }
                }
            }
            assert!(writer.buffer.capacity() < 1 << 20, "{}", writer.buffer.capacity());
        });
    }
}
