//! What must hold for any bytes that come over a connection.

use std::fmt::Debug;

use veritas_proto::{Error, Frame, FrameDecoder, Header, Kind, Name, encode, encode_body, v1};

/// Longest body that is accepted here: so short that a small input can be beyond it.
const BODY_BYTES_MAX: u32 = 4096;

/// Longest message of an error: none holds anything of the input but numbers.
const MESSAGE_CHARS_MAX: usize = 200;

/// The frames of a stream, and how it ended.
pub type Stream = (Vec<Frame>, Result<(), Error>);

/// Takes `bytes` as all that comes over a connection. However they are cut, they give the frames that the definition
/// gives, and the same end; a body is refused exactly if it must be, and what is taken means the same when it is sent
/// again.
///
/// # Panics
/// If a promise is broken.
pub fn check(bytes: &[u8]) -> Stream {
    let expected = naive(bytes);
    for pieces in [vec![bytes], every(1, bytes), every(24, bytes), every(25, bytes), irregular(bytes)] {
        assert_eq!(decode(pieces), expected);
    }
    let mut again = Vec::new();
    for frame in &expected.0 {
        encode_body(&mut again, frame.kind, frame.request_id, &frame.body);
        check_body(frame);
    }
    assert!(bytes.starts_with(&again), "the frames are not the bytes that they were cut from");
    if let Err(error) = &expected.1 {
        check_message(error);
    }
    expected
}

/// The definition of a stream, with the whole of it at hand.
fn naive(bytes: &[u8]) -> Stream {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.len() < 24 {
            return (frames, Err(Error::Truncated { found: rest.len() }));
        }
        let u16_at = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if &rest[..4] != b"VSDR" {
            let verbs = ["GET ", "POST", "PUT ", "HEAD", "OPTI", "DELE", "PATC", "PRI "];
            let is_http = verbs.iter().any(|verb| rest.starts_with(verb.as_bytes()));
            return (frames, Err(Error::Magic { is_http }));
        }
        if u16_at(4) != 1 {
            return (frames, Err(Error::Version { found: u16_at(4), expected: 1 }));
        }
        if u32_at(8) != 0 {
            return (frames, Err(Error::Flags { found: u32_at(8) }));
        }
        if !Kind::ALL.contains(&Kind(u16_at(6))) {
            return (frames, Err(Error::UnknownKind { found: u16_at(6) }));
        }
        let body_bytes = u32_at(12);
        if body_bytes > BODY_BYTES_MAX {
            return (frames, Err(Error::BodyTooLong { found: body_bytes, limit: BODY_BYTES_MAX }));
        }
        if rest.len() < 24 + body_bytes as usize {
            return (frames, Err(Error::Truncated { found: rest.len() }));
        }
        let body = rest[24..24 + body_bytes as usize].to_vec();
        at += 24 + body.len();
        frames.push(Frame { kind: Kind(u16_at(6)), request_id: u64_at(16), body });
    }
    (frames, Ok(()))
}

/// What the decoder makes of the pieces of a stream.
fn decode(pieces: Vec<&[u8]>) -> Stream {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    decoder.push(b"VSDR");
                    assert_eq!(
                        decoder.next_frame(),
                        Err(error.clone()),
                        "a stream that failed has recovered"
                    );
                    return (frames, Err(error));
                }
            }
        }
    }
    let end = decoder.end();
    (frames, end)
}

fn every(length: usize, bytes: &[u8]) -> Vec<&[u8]> {
    bytes.chunks(length).collect()
}

/// Pieces of 0 to 63 bytes, as the bytes themselves say.
fn irregular(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut state = bytes.len();
    while !bytes.is_empty() {
        state = state.wrapping_mul(31).wrapping_add(usize::from(bytes[0]));
        let (piece, rest) = bytes.split_at((state >> 3 & 63).min(bytes.len()));
        pieces.push(piece);
        // A piece without a byte is followed by one with a byte, so that there is an end.
        let (piece, rest) = rest.split_at(rest.len().min(1));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Decodes the body by the kind of its frame.
fn check_body(frame: &Frame) {
    macro_rules! by_kind {
        ($($kind:ident $message:ident,)*) => {
            match frame.kind {
                $(Kind::$kind => check_as::<v1::$message>(frame),)*
                kind => {
                    assert!(kind.is_internal(), "{kind} has no line here");
                    let expected = Err(Error::Unexpected { found: kind, expected: "Hello" });
                    assert_eq!(frame.message::<v1::Hello>(), expected);
                }
            }
        };
    }
    by_kind! {
        HELLO Hello, WELCOME Welcome, ERROR Error,
        GENERATE GenerateRequest, DELTA Delta, FINISH Finish, CANCEL Cancel, CREDIT Credit,
        TOKENIZE TokenizeRequest, TOKENIZE_REPLY TokenizeReply,
        DETOKENIZE DetokenizeRequest, DETOKENIZE_REPLY DetokenizeReply,
        EMBED EmbedRequest, EMBED_REPLY EmbedReply,
        MODEL_LOAD ModelLoadRequest, MODEL_UNLOAD ModelUnloadRequest, MODEL_LIST ModelListRequest,
        MODEL_INFO ModelInfoRequest, MODEL_REPLY ModelList,
        LIVE LiveRequest, LIVE_REPLY LiveReply, READY ReadyRequest, READY_REPLY ReadyReply,
        HEALTH HealthRequest, HEALTH_REPLY HealthReply, STATUS StatusRequest, STATUS_REPLY StatusReply,
        METRICS MetricsRequest, METRICS_REPLY MetricsReply, DRAIN DrainRequest, DRAIN_REPLY DrainReply,
        RELOAD ReloadRequest, RELOAD_REPLY ReloadReply,
    }
}

fn check_as<M: Name + Default + Debug>(frame: &Frame) {
    let plain = M::decode(frame.body.as_slice());
    let is_strict = frame.kind.is_from_client() && frame.kind != Kind::HELLO;
    match frame.message::<M>() {
        Ok(message) => {
            let plain = plain.expect("what is taken can be decoded");
            // Compared as bytes, since NaN is not equal to itself.
            assert_eq!(message.encode_to_vec(), plain.encode_to_vec());
            let mut bytes = Vec::new();
            encode(&mut bytes, frame.kind, frame.request_id, &message);
            let (header, body) = bytes.split_first_chunk::<{ Header::BYTES }>().expect("a header");
            let header = Header::parse(header, u32::MAX).expect("what is written is read");
            assert_eq!((header.kind, header.request_id), (frame.kind, frame.request_id));
            assert_eq!(header.body_bytes as usize, body.len());
            let again = Frame { body: body.to_vec(), ..frame.clone() }.message::<M>();
            assert_eq!(again.expect("what is written is read").encode_to_vec(), body);
        }
        Err(error) => {
            check_message(&error);
            let stricter = match &error {
                Error::Body { reason, .. } => is_strict || reason.contains("group"),
                Error::UnknownField { .. } => is_strict,
                Error::TooMuchMemory { .. } => true,
                _ => false,
            };
            assert!(stricter || plain.is_err(), "refused without a reason: {error}");
        }
    }
}

/// A message is one short line.
fn check_message(error: &Error) {
    let message = error.to_string();
    assert!(!message.is_empty() && message.chars().count() <= MESSAGE_CHARS_MAX, "{message:?}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
