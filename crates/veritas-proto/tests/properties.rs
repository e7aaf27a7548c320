//! Properties of frames: how a stream is cut makes no difference, and what is written is read.

use proptest::collection::vec;
use proptest::prelude::*;
use veritas_proto::{Error, Frame, FrameDecoder, Header, Kind, encode, encode_body, limits, v1};
use veritas_testkit::fuzz::frame::check;

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL)
}

fn frame() -> impl Strategy<Value = Frame> {
    (kind(), any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(|(kind, request_id, body)| Frame {
        kind,
        request_id,
        body,
    })
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        encode_body(&mut bytes, frame.kind, frame.request_id, &frame.body);
    }
    bytes
}

proptest! {
    #[test]
    fn any_cutting_of_a_stream_gives_the_same_frames(
        frames in vec(frame(), 0..8),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = bytes_of(&frames);
        let mut cuts = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect::<Vec<_>>();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::new(limits::BODY_BYTES_DEFAULT);
        let mut found = Vec::new();
        for cut in cuts.windows(2) {
            decoder.push(&bytes[cut[0]..cut[1]]);
            while let Some(frame) = decoder.next_frame()? {
                found.push(frame);
            }
        }
        prop_assert_eq!(found, frames);
        prop_assert_eq!(decoder.end(), Ok(()));
    }

    #[test]
    fn a_stream_that_ends_anywhere_gives_the_whole_frames_and_says_what_is_missing(
        frames in vec(frame(), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = bytes_of(&frames);
        let cut = cut.index(bytes.len());
        let (found, end) = check(&bytes[..cut]);
        prop_assert!(frames.starts_with(&found));
        let whole = bytes_of(&found).len();
        let expected = if whole == cut { Ok(()) } else { Err(Error::Truncated { found: cut - whole }) };
        prop_assert_eq!(end, expected);
    }

    #[test]
    fn any_bytes_after_a_frame_and_any_change_within_keep_the_promises_of_the_fuzz_target(
        frames in vec(frame(), 1..4),
        tail in vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = [bytes_of(&frames), tail].concat();
        let _ = check(&bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = check(&bytes);
    }

    #[test]
    fn a_header_that_is_written_is_read(kind in kind(), body_bytes in any::<u32>(), request_id in any::<u64>()) {
        let header = Header { kind, body_bytes, request_id };
        prop_assert_eq!(Header::parse(&header.to_bytes(), u32::MAX), Ok(header));
        if let Some(limit) = body_bytes.checked_sub(1) {
            let refused = Header::parse(&header.to_bytes(), limit);
            prop_assert_eq!(refused, Err(Error::BodyTooLong { found: body_bytes, limit }));
        }
    }

    #[test]
    fn a_request_that_is_written_is_read(
        texts in vec(any::<(String, String)>(), 0..5),
        ids in vec(any::<u32>(), 0..50),
        seed in any::<Option<u64>>(),
        top_k in any::<Option<i32>>(),
        temperature in any::<Option<f32>>(),
        is_chat in any::<bool>(),
    ) {
        let messages = texts.iter().map(|(role, content)| {
            v1::Message { role: role.clone(), content: content.clone() }
        });
        let chat = v1::ChatPrompt { messages: messages.collect(), ..Default::default() };
        let request = v1::GenerateRequest {
            prompt: Some(if is_chat {
                v1::generate_request::Prompt::Chat(chat)
            } else {
                v1::generate_request::Prompt::Ids(v1::TokenIds { ids })
            }),
            sampling: Some(v1::Sampling { seed, top_k, temperature, ..Default::default() }),
            ..Default::default()
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::GENERATE, 1, &request);
        let mut decoder = FrameDecoder::new(limits::BODY_BYTES_DEFAULT);
        decoder.push(&bytes);
        let frame = decoder.next_frame()?.expect("the frame is whole");
        prop_assert_eq!(frame.message::<v1::GenerateRequest>()?, request);
    }
}
