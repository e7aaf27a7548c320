//! Frames: a header of fixed length, then a body.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "VSDR"
//!      4      2  version of the protocol, little-endian as all numbers
//!      6      2  kind
//!      8      4  flags, all reserved: zero
//!     12      4  length of the body in bytes
//!     16      8  request id; 0 for what concerns the session
//! ```

use prost::Message;

use crate::{Error, Kind, VERSION};

/// The first bytes of every frame.
const MAGIC: [u8; 4] = *b"VSDR";

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the body is.
    pub kind: Kind,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// The request that the frame belongs to; 0 for the session.
    pub request_id: u64,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 24;

    /// The header as it is sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.request_id.to_le_bytes());
        bytes
    }

    /// Reads a header. A body may have at most `body_bytes_max` bytes.
    ///
    /// # Errors
    /// What is wrong with the first field that is wrong.
    pub fn parse(bytes: &[u8; Self::BYTES], body_bytes_max: u32) -> Result<Self, Error> {
        let [m0, m1, m2, m3, v0, v1, k0, k1, f0, f1, f2, f3, l0, l1, l2, l3, id @ ..] = *bytes;
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        let found = u16::from_le_bytes([v0, v1]);
        if found != VERSION {
            return Err(Error::Version { found, expected: VERSION });
        }
        let found = u32::from_le_bytes([f0, f1, f2, f3]);
        if found != 0 {
            return Err(Error::Flags { found });
        }
        let kind = Kind(u16::from_le_bytes([k0, k1]));
        if kind.name().is_none() {
            return Err(Error::UnknownKind { found: kind.0 });
        }
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        if body_bytes > body_bytes_max {
            return Err(Error::BodyTooLong { found: body_bytes, limit: body_bytes_max });
        }
        Ok(Self { kind, body_bytes, request_id: u64::from_le_bytes(id) })
    }
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// The request that the frame belongs to; 0 for the session.
    pub request_id: u64,
    /// The message in protobuf, or JSON on the link to a worker.
    pub body: Vec<u8>,
}

impl Frame {
    /// The body as a message.
    ///
    /// # Errors
    /// [`Error::Body`] if it is none.
    pub fn message<M: Message + Default>(&self) -> Result<M, Error> {
        M::decode(self.body.as_slice())
            .map_err(|error| Error::Body { kind: self.kind, reason: error.to_string() })
    }
}

/// Appends a frame with a message.
///
/// # Panics
/// If the message has 4 GiB or more: limits far below are checked before one is built.
pub fn encode(out: &mut Vec<u8>, kind: Kind, request_id: u64, message: &impl Message) {
    let body_bytes = u32::try_from(message.encoded_len()).expect("a message below 4 GiB");
    out.reserve(Header::BYTES + body_bytes as usize);
    out.extend_from_slice(&Header { kind, body_bytes, request_id }.to_bytes());
    message.encode_raw(out);
}

/// Appends a frame with a body that is bytes already.
///
/// # Panics
/// If the body has 4 GiB or more.
pub fn encode_body(out: &mut Vec<u8>, kind: Kind, request_id: u64, body: &[u8]) {
    let body_bytes = u32::try_from(body.len()).expect("a body below 4 GiB");
    out.reserve(Header::BYTES + body.len());
    out.extend_from_slice(&Header { kind, body_bytes, request_id }.to_bytes());
    out.extend_from_slice(body);
}

/// Cuts a stream of bytes into frames.
///
/// Memory is never reserved for what a header announces: the buffer grows with the bytes that came.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that have been handed out.
    taken: usize,
    body_bytes_max: u32,
}

/// Bytes handed out that are kept at the front of the buffer before the rest is moved there.
const COMPACT_BYTES: usize = 64 << 10;

impl FrameDecoder {
    /// A decoder that accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(body_bytes_max: u32) -> Self {
        Self { buffer: Vec::new(), taken: 0, body_bytes_max }
    }

    /// Changes the limit, for frames whose header has not been read yet.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: u32) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Takes bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.buffer.len() {
            self.buffer.clear();
            self.taken = 0;
            self.buffer.shrink_to(COMPACT_BYTES);
        } else if self.taken >= COMPACT_BYTES {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` if more bytes are needed.
    ///
    /// # Errors
    /// What is wrong with a header. The stream is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        let rest = &self.buffer[self.taken..];
        let Some(header) = rest.first_chunk::<{ Header::BYTES }>() else {
            return Ok(None);
        };
        let header = Header::parse(header, self.body_bytes_max)?;
        let end = Header::BYTES + header.body_bytes as usize;
        let Some(body) = rest.get(Header::BYTES..end) else {
            return Ok(None);
        };
        let frame = Frame { kind: header.kind, request_id: header.request_id, body: body.to_vec() };
        self.taken += end;
        Ok(Some(frame))
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// [`Error::Truncated`] if they end within a frame.
    pub fn end(&self) -> Result<(), Error> {
        match self.buffer.len() - self.taken {
            0 => Ok(()),
            found => Err(Error::Truncated { found }),
        }
    }
}
