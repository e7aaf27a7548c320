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

use std::fmt;

use prost::{Message, Name};
use zeroize::Zeroize;

use crate::body::{self, Fault};
use crate::shape::Shape;
use crate::{Error, Kind, VERSION};

/// The first bytes of every frame.
const MAGIC: [u8; 4] = *b"VSDR";

/// How requests of HTTP begin: the one mistake that is likely enough to deserve a hint.
const HTTP: [&[u8; 4]; 8] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"PRI "];

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
            return Err(Error::Magic { is_http: HTTP.contains(&&found) });
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
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// The request that the frame belongs to; 0 for the session.
    pub request_id: u64,
    /// The message in protobuf, or JSON on the link to a worker.
    pub body: Vec<u8>,
}

impl Frame {
    /// The body as the message that is the body of the frame's kind.
    ///
    /// What a client asks for is taken as a whole or not at all: in frames that a client sends, [`Kind::HELLO`] apart,
    /// a field that is not known, a field that comes twice and a number that does not fit are errors, too. In other
    /// frames they mean what protobuf says that they mean, so that an older client understands a newer daemon.
    ///
    /// The message takes at most [`DECODED_BYTES_PER_BYTE`](crate::limits::DECODED_BYTES_PER_BYTE) times as much memory
    /// as the body and [`DECODED_BYTES_FREE`](crate::limits::DECODED_BYTES_FREE), counted without what the allocator
    /// adds and what vectors reserve.
    ///
    /// # Errors
    /// [`Error::Unexpected`] if the kind of the frame has another body than `M`; [`Error::Body`], [`Error::UnknownField`]
    /// or [`Error::TooMuchMemory`] if the body is not as it must be.
    pub fn message<M: Name + Default>(&self) -> Result<M, Error> {
        let kind = self.kind;
        let shape = Shape::of(M::NAME).filter(|shape| kind.message_name() == Some(shape.name));
        let Some(shape) = shape else {
            return Err(Error::Unexpected { found: kind, expected: M::NAME });
        };
        self.check_shape(shape)?;
        // The decoder's own message may show bytes of the body.
        M::decode(self.body.as_slice()).map_err(|_| Error::Body {
            kind,
            at: shape.name,
            reason: "cannot be decoded",
        })
    }

    /// Checks the body as [`Self::message`] does, where what it says is of no use: a question without words.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub fn check(&self) -> Result<(), Error> {
        match self.kind.message_name().and_then(Shape::of) {
            Some(shape) => self.check_shape(shape),
            None => Ok(()),
        }
    }

    fn check_shape(&self, shape: &Shape) -> Result<(), Error> {
        let kind = self.kind;
        let is_strict = kind.is_from_client() && kind != Kind::HELLO;
        body::check(&self.body, shape, is_strict).map_err(|fault| match fault {
            Fault::Malformed { at, reason } => Error::Body { kind, at, reason },
            Fault::Unknown { at } => Error::UnknownField { kind, at },
            Fault::TooLarge { limit } => Error::TooMuchMemory { kind, limit },
        })
    }
}

/// Without the body, which holds what a client or a model wrote.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, request_id, body } = self;
        write!(f, "{kind} of request {request_id} with {} bytes", body.len())
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
/// Memory is never reserved for what a header announces: the buffer grows with the bytes that came. If the caller takes
/// every whole frame before it pushes more, the buffer holds less than one frame and what was pushed last, in at most
/// twice as many bytes; once a frame is taken, what the buffer has in excess of that is given back.
///
/// A stream that has failed stays failed: each further call of [`next_frame`](Self::next_frame) gives the same error.
///
/// The first frame of a client holds its token: no copy of what came before it was taken, and none of a `HELLO`, stays in
/// memory behind the frame that is handed out.
pub struct FrameDecoder {
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that have been handed out.
    taken: usize,
    body_bytes_max: u32,
    failure: Option<Error>,
    /// Whether a frame has been handed out.
    is_greeted: bool,
}

/// Bytes of the buffer that are not worth the work of moving or giving back.
const KEPT_BYTES: usize = 64 << 10;

impl FrameDecoder {
    /// A decoder that accepts bodies of at most `body_bytes_max` bytes.
    pub fn new(body_bytes_max: u32) -> Self {
        Self { buffer: Vec::new(), taken: 0, body_bytes_max, failure: None, is_greeted: false }
    }

    /// Changes the limit for the frames that have not been taken yet.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: u32) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Takes bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self.buffer.len() + bytes.len();
        if !self.is_greeted && needed > self.buffer.capacity() {
            // The allocator would leave the old bytes behind.
            let mut grown = Vec::with_capacity(needed.max(2 * self.buffer.capacity()));
            grown.extend_from_slice(&self.buffer);
            self.buffer.zeroize();
            self.buffer = grown;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` if more bytes are needed.
    ///
    /// # Errors
    /// What is wrong with a header. The stream is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let Some((header, rest)) = self.buffer[self.taken..].split_first_chunk::<{ Header::BYTES }>() else {
            return Ok(None);
        };
        let header = match Header::parse(header, self.body_bytes_max) {
            Ok(header) => header,
            Err(error) => {
                self.failure = Some(error.clone());
                return Err(error);
            }
        };
        let Some(body) = rest.get(..header.body_bytes as usize) else {
            return Ok(None);
        };
        let frame = Frame { kind: header.kind, request_id: header.request_id, body: body.to_vec() };
        let end = self.taken + Header::BYTES + frame.body.len();
        if header.kind == Kind::HELLO {
            self.buffer[self.taken..end].zeroize();
        }
        self.taken = end;
        self.is_greeted = true;
        self.release();
        Ok(Some(frame))
    }

    /// Gives back the room of what has been handed out.
    ///
    /// Bytes are moved only if no more of them remain than have been handed out since the last time, so that each byte
    /// of the stream is moved at most once on average, however it was cut.
    fn release(&mut self) {
        let remaining = self.buffer.len() - self.taken;
        if remaining == 0 {
            self.buffer.clear();
        } else if self.taken >= KEPT_BYTES && self.taken >= remaining {
            self.buffer.drain(..self.taken);
        } else {
            return;
        }
        self.taken = 0;
        self.buffer.shrink_to(KEPT_BYTES);
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

impl Drop for FrameDecoder {
    fn drop(&mut self) {
        if !self.is_greeted {
            self.buffer.zeroize();
        }
    }
}

/// Without the bytes, which hold what a client or a model wrote.
impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("buffered_bytes", &(self.buffer.len() - self.taken))
            .field("body_bytes_max", &self.body_bytes_max)
            .field("failure", &self.failure)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits, v1};

    fn bytes(kind: Kind, request_id: u64, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_body(&mut bytes, kind, request_id, body);
        bytes
    }

    #[test]
    fn a_header_has_the_bytes_that_the_document_gives() {
        let header =
            Header { kind: Kind::GENERATE, body_bytes: 0x0102_0304, request_id: 0x1112_1314_1516_1718 };
        let expected = [
            b'V', b'S', b'D', b'R', 1, 0, 16, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13,
            0x12, 0x11,
        ];
        assert_eq!(header.to_bytes(), expected);
        assert_eq!(Header::parse(&expected, u32::MAX), Ok(header));
    }

    #[test]
    fn a_hello_has_the_bytes_that_the_document_gives() {
        let hello = v1::Hello {
            versions: vec![1],
            client_name: "example".to_owned(),
            token: b"secret".to_vec(),
            ..Default::default()
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::HELLO, 0, &hello);
        let header = [b'V', b'S', b'D', b'R', 1, 0, 1, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes[..24], header);
        assert_eq!(&bytes[24..], b"\x0a\x01\x01\x1a\x07example\x22\x06secret");
        let mut decoder = FrameDecoder::new(limits::HANDSHAKE_BODY_BYTES_MAX);
        decoder.push(&bytes);
        let frame = decoder.next_frame().expect("a frame").expect("all of it");
        assert_eq!(frame.message::<v1::Hello>(), Ok(hello));
    }

    #[test]
    fn the_body_of_another_kind_is_not_taken_for_the_message() {
        let frame = Frame { kind: Kind::CREDIT, request_id: 1, body: vec![8, 1] };
        let error = Error::Unexpected { found: Kind::CREDIT, expected: "Welcome" };
        assert_eq!(frame.message::<v1::Welcome>(), Err(error.clone()));
        assert_eq!(error.to_string(), "a frame CREDIT came, whose body is not Welcome");
        assert_eq!(frame.message(), Ok(v1::Credit { deltas: 1 }));
    }

    #[test]
    fn a_length_that_is_announced_reserves_nothing() {
        let mut decoder = FrameDecoder::new(limits::BODY_BYTES_MAX);
        let header = Header { kind: Kind::GENERATE, body_bytes: limits::BODY_BYTES_MAX, request_id: 1 };
        decoder.push(&header.to_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 1024, "{}", decoder.buffer.capacity());
    }

    #[test]
    fn a_body_that_comes_byte_by_byte_takes_twice_its_length_at_most() {
        let stream = bytes(Kind::WORKER_BYTES, 1, &vec![7; 300_000]);
        let mut decoder = FrameDecoder::new(limits::BODY_BYTES_DEFAULT);
        for (at, byte) in stream.iter().enumerate() {
            assert_eq!(decoder.next_frame(), Ok(None), "byte {at}");
            decoder.push(&[*byte]);
            assert!(decoder.buffer.capacity() <= (2 * (at + 1)).max(64), "byte {at}");
        }
        let frame = decoder.next_frame().expect("a frame").expect("all of it");
        assert_eq!(frame.body, stream[24..]);
    }

    /// Hunts for memory that an idle connection keeps after one long frame, with or without a byte that follows it.
    #[test]
    fn the_room_of_a_long_frame_is_given_back_when_it_has_been_taken() {
        for tail in [&b""[..], b"V"] {
            let mut decoder = FrameDecoder::new(limits::BODY_BYTES_MAX);
            decoder.push(&bytes(Kind::WORKER_BYTES, 1, &vec![7; 8 << 20]));
            decoder.push(tail);
            assert!(decoder.buffer.capacity() > 8 << 20);
            assert!(decoder.next_frame().expect("a frame").is_some());
            assert!(decoder.buffer.capacity() <= KEPT_BYTES, "{}", decoder.buffer.capacity());
            assert_eq!(decoder.end().is_ok(), tail.is_empty());
        }
    }

    /// Hunts for a buffer that is moved once for each frame: the moves are counted, since time says little.
    #[test]
    fn bytes_are_moved_at_most_once_on_average_even_if_frames_pile_up() {
        let stream = bytes(Kind::CANCEL, 1, &[]).repeat(100_000);
        let mut decoder = FrameDecoder::new(limits::BODY_BYTES_DEFAULT);
        decoder.push(&stream);
        let (mut n_moved, mut taken_before) = (0, 0);
        while decoder.next_frame().expect("frames").is_some() {
            if decoder.taken < taken_before {
                n_moved += decoder.buffer.len();
            }
            taken_before = decoder.taken;
            decoder.push(&[]);
        }
        assert!(n_moved <= stream.len(), "{n_moved} bytes moved of {}", stream.len());
    }

    /// Hunts for a token that stays in the buffer of a connection for as long as it lives. The request that came with the
    /// greeting keeps the buffer from being given back.
    #[test]
    fn nothing_of_a_greeting_stays_in_the_buffer() {
        let hello = v1::Hello { token: b"correct horse battery staple".to_vec(), ..Default::default() };
        let mut stream = Vec::new();
        encode(&mut stream, Kind::HELLO, 0, &hello);
        let request = bytes(Kind::LIVE, 1, &[]);
        for cut in [1, Header::BYTES, stream.len() - 1] {
            let mut decoder = FrameDecoder::new(limits::HANDSHAKE_BODY_BYTES_MAX);
            decoder.push(&stream[..cut]);
            assert_eq!(decoder.next_frame(), Ok(None));
            decoder.push(&stream[cut..]);
            decoder.push(&request[..Header::BYTES - 1]);
            let frame = decoder.next_frame().expect("a frame").expect("all of it");
            assert_eq!(frame.message(), Ok(hello.clone()));
            assert_eq!(decoder.buffer.len(), stream.len() + Header::BYTES - 1, "it is all still there");
            assert!(decoder.buffer[..stream.len()].iter().all(|byte| *byte == 0));
            decoder.push(&request[Header::BYTES - 1..]);
            assert_eq!(decoder.next_frame().expect("a frame").map(|frame| frame.kind), Some(Kind::LIVE));
        }
    }

    #[test]
    fn a_limit_can_be_raised_between_the_handshake_and_the_next_frame() {
        let mut decoder = FrameDecoder::new(limits::HANDSHAKE_BODY_BYTES_MAX);
        let hello = bytes(Kind::HELLO, 0, &[]);
        decoder.push(&[&hello[..], &bytes(Kind::GENERATE, 1, &vec![0; 20_000])].concat());
        assert!(decoder.next_frame().expect("a frame").is_some());
        decoder.set_body_bytes_max(limits::BODY_BYTES_DEFAULT);
        assert!(decoder.next_frame().expect("a frame").is_some());
    }

    #[test]
    fn a_stream_that_has_failed_stays_failed_whatever_the_limit() {
        let mut decoder = FrameDecoder::new(10);
        decoder.push(&bytes(Kind::GENERATE, 1, &[0; 11]));
        let error = Error::BodyTooLong { found: 11, limit: 10 };
        assert_eq!(decoder.next_frame(), Err(error.clone()));
        decoder.set_body_bytes_max(11);
        assert_eq!(decoder.next_frame(), Err(error));
    }
}
