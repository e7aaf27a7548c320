//! Streams that are wrong in one known way, and the error that each must give.
//!
//! With `UPDATE_EXPECT=1` they are written to `fuzz/corpus/frame`, where fuzzing begins from them.

use std::path::{Path, PathBuf};

use veritas_proto::{Error, Frame, Header, Kind, Message, encode, encode_body, v1};
use veritas_testkit::fuzz::frame::check;

/// A name, the bytes, and the variant of the error; `Ok` for streams that are unusual but valid.
type Case = (String, Vec<u8>, &'static str);

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |name: &str, bytes: Vec<u8>, expected| cases.push((name.replace(' ', "-"), bytes, expected));
    streams(&mut add);
    headers(&mut add);
    bodies(&mut add);
    requests(&mut add);
    kinds(&mut add);
    cases
}

fn streams(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let (hello, generate) = (message(Kind::HELLO, 0, &hello()), message(Kind::GENERATE, 7, &generate()));
    add("empty", vec![], "Ok");
    add("hello", hello.clone(), "Ok");
    add("generate", generate.clone(), "Ok");
    let more =
        [message(Kind::CREDIT, 7, &v1::Credit { deltas: 8 }), message(Kind::CANCEL, 7, &v1::Cancel {})];
    add("a session", [hello.clone(), generate.clone(), more.concat()].concat(), "Ok");
    for cut in [1, 4, 23, 24, hello.len() - 1] {
        add(&format!("cut at {cut:02}"), hello[..cut].to_vec(), "Truncated");
    }
    add("two frames and a half", [&hello[..], &generate, &hello[..40]].concat(), "Truncated");
    add("http get", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "Magic");
    add("http post", b"POST /v1/chat/completions HTTP/1.1\r\n\r\n{}".to_vec(), "Magic");
    add("http 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "Magic");
    add("tls", [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].repeat(5), "Magic");
    add("all ff", vec![255; 64], "Magic");
    add("all zero", vec![0; 64], "Magic");
    add("a frame and then ff", [&hello[..], &[255; 30]].concat(), "Magic");
    let mut long = hello.clone();
    long[12] -= 1;
    add("a length that is one too short", [&long[..], &generate].concat(), "Magic");
    long[12] += 2;
    add("a length that is one too long", [&long[..], &generate].concat(), "Magic");
}

fn headers(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let hello = message(Kind::HELLO, 0, &hello());
    let with = |at: usize, bytes: &[u8]| {
        let mut stream = hello.clone();
        stream[at..at + bytes.len()].copy_from_slice(bytes);
        stream
    };
    add("wrong magic", with(0, b"VSDr"), "Magic");
    add("magic backwards", with(0, b"RDSV"), "Magic");
    for version in [0u16, 2, 256, u16::MAX] {
        add(&format!("version {version}"), with(4, &version.to_le_bytes()), "Version");
    }
    for bit in [0, 15, 31] {
        add(&format!("flag {bit}"), with(8, &(1u32 << bit).to_le_bytes()), "Flags");
    }
    for kind in [0u16, 4, 15, 21, 31, 38, 53, 78, 4095, 4108, u16::MAX] {
        add(&format!("kind {kind}"), with(6, &kind.to_le_bytes()), "UnknownKind");
    }
    for length in [4097u32, 1 << 20, 64 << 20, 1 << 31, u32::MAX] {
        add(&format!("body of {length}"), with(12, &length.to_le_bytes()), "BodyTooLong");
    }
    add("body of 4096 announced", with(12, &4096u32.to_le_bytes()), "Truncated");
    add("request id ff", with(16, &u64::MAX.to_le_bytes()), "Ok");
}

/// Bodies in replies, where protobuf's own rules hold.
fn bodies(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let welcome = |body: &[u8]| raw(Kind::WELCOME, 0, body);
    add("reply with an unknown field", welcome(&[0xfa, 0x7f, 1, b'x']), "Ok");
    add("reply with a number cut off", welcome(&[8, 0x80, 0x80, 0x80, 0x80, 0x10]), "Ok");
    add("reply with a value twice", welcome(&[8, 1, 8, 2]), "Ok");
    add("reply with an unpacked list", raw(Kind::TOKENIZE_REPLY, 9, &[8, 1, 8, 2, 10, 1, 3]), "Ok");
    add("field 0", welcome(&[0, 1]), "Body");
    add("field number too large", welcome(&[0xf8, 0xff, 0xff, 0xff, 0x1f, 1]), "Body");
    add("number of 65 bits", welcome(&[[8].as_slice(), &[255; 9], &[2]].concat()), "Body");
    add("number of 11 bytes", welcome(&[[8].as_slice(), &[128; 10], &[0]].concat()), "Body");
    for wire in [1u8, 2, 3, 4, 5, 6, 7] {
        add(&format!("wire type {wire}"), welcome(&[8 | wire, 1, 0, 0, 0, 0, 0, 0, 0]), "Body");
    }
    add("groups nested deeply", welcome(&[0xfb; 2000]), "Body");
    add("text of 1 TiB", welcome(&[0x1a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]), "Body");
    add("text of 16 EiB", welcome(&[[0x1a].as_slice(), &[255; 9], &[1]].concat()), "Body");
    add("text not utf8", welcome(&[0x1a, 2, 0xc3, 0x28]), "Body");
    add("inner message past the end", welcome(&[0x2a, 9, 8, 1]), "Body");
    add("inner value past the inner end", welcome(&[0x2a, 1, 8, 1]), "Body");
    add("packed list with half a number", raw(Kind::TOKENIZE_REPLY, 9, &[10, 2, 1, 0x80]), "Body");
    let floats = [10, 6, 10, 3, 0, 0, 0x80, 0x3f];
    add("packed list with half a float", raw(Kind::EMBED_REPLY, 9, &floats), "Body");
    add("welcome in the place of hello", raw(Kind::HELLO, 0, &[10, 1, 1, 0x2a, 0x80]), "Body");
}

/// Bodies in requests, of which nothing may be ignored.
fn requests(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let generate = |body: &[u8]| raw(Kind::GENERATE, 1, body);
    add("request with an unknown field", generate(&[0xfa, 0x7f, 1, b'x']), "UnknownField");
    add("sampling with an unknown field", generate(&[0x2a, 3, 0xf8, 0x7f, 1]), "UnknownField");
    add("request without a field that has one", raw(Kind::CANCEL, 1, &[8, 1]), "UnknownField");
    add("hello with an unknown field", raw(Kind::HELLO, 0, &[0xfa, 0x7f, 1, b'x']), "Ok");
    add("request with a value twice", generate(&[0x30, 1, 0x30, 2]), "Body");
    add("request with two prompts", generate(&[0x1a, 0, 0x22, 0]), "Body");
    add("request with a number that does not fit", generate(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x10]), "Body");
    add("request with a truth value of 2", generate(&[0x38, 2]), "Body");
    add("request with an unknown priority", generate(&[0x48, 4]), "Body");
    add("request with a list in two parts", generate(&[0x22, 6, 10, 1, 1, 10, 1, 2]), "Ok");
}

/// Each kind with a body that is none, and each kind of a message with an empty one, which is the message of defaults.
fn kinds(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    for &kind in Kind::ALL {
        let name = kind.name().unwrap_or_default().to_lowercase();
        let expected = if kind.is_internal() { "Ok" } else { "Body" };
        add(&format!("{name} malformed"), raw(kind, 3, &[255; 5]), expected);
        add(&format!("{name} of nothing"), raw(kind, 3, &[]), "Ok");
    }
}

fn message(kind: Kind, request_id: u64, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, kind, request_id, message);
    bytes
}

fn raw(kind: Kind, request_id: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_body(&mut bytes, kind, request_id, body);
    bytes
}

fn hello() -> v1::Hello {
    v1::Hello {
        versions: vec![1],
        features: vec!["f".to_owned()],
        client_name: "example".to_owned(),
        token: b"secret".to_vec(),
        session_id: Vec::new(),
    }
}

fn generate() -> v1::GenerateRequest {
    let messages = ["system", "user"]
        .map(|role| v1::Message { role: role.to_owned(), content: "Grüße, 世界".to_owned() });
    let sampling = v1::Sampling {
        seed: Some(u64::MAX),
        temperature: Some(0.5),
        top_k: Some(-1),
        logit_bias: vec![v1::LogitBias { id: 5, bias: f32::NEG_INFINITY }],
        stop: vec!["\n".to_owned(), String::new()],
        ..Default::default()
    };
    let chat =
        v1::ChatPrompt { messages: messages.to_vec(), raw_without_template: true, enable_thinking: None };
    v1::GenerateRequest {
        prompt: Some(v1::generate_request::Prompt::Chat(chat)),
        sampling: Some(sampling),
        stream: true,
        ..Default::default()
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frame")
}

/// The variant of the stream's error, or else of the first body's, or else `Ok`.
fn variant(bytes: &[u8]) -> String {
    let (frames, end) = check(bytes);
    let error = end.err().or_else(|| frames.iter().find_map(body_error));
    let text = error.map_or_else(|| "Ok".to_owned(), |error| format!("{error:?}"));
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// What is wrong with the body, for kinds that have a message: asked for as another message, only the kind is wrong.
fn body_error(frame: &Frame) -> Option<Error> {
    macro_rules! first_that_fits {
        ($($message:ident)*) => {
            $(match frame.message::<v1::$message>() {
                Err(Error::Unexpected { .. }) => {}
                other => return other.err(),
            })*
        };
    }
    first_that_fits! {
        Hello Welcome Error GenerateRequest Delta Finish Cancel Credit TokenizeRequest TokenizeReply DetokenizeRequest
        DetokenizeReply EmbedRequest EmbedReply ModelLoadRequest ModelUnloadRequest ModelListRequest ModelInfoRequest
        ModelList LiveRequest LiveReply ReadyRequest ReadyReply HealthRequest HealthReply StatusRequest StatusReply
        MetricsRequest MetricsReply DrainRequest DrainReply ReloadRequest ReloadReply
    }
    assert!(frame.kind.is_internal(), "{} has no message here", frame.kind);
    None
}

#[test]
fn each_known_class_of_hostile_stream_gives_its_own_error() {
    let wrong = cases().into_iter().filter_map(|(name, bytes, expected)| {
        let found = variant(&bytes);
        (found != expected).then(|| format!("{name}: {found} instead of {expected}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn the_committed_corpus_holds_each_class_and_breaks_no_promise() {
    let cases = cases();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(corpus()).expect("the corpus can be written");
        for (name, bytes, _) in &cases {
            std::fs::write(corpus().join(name), bytes).expect("the corpus can be written");
        }
    }
    for (name, bytes, _) in &cases {
        assert!(bytes.len() <= 2048, "{name} has {} bytes", bytes.len());
        let committed = std::fs::read(corpus().join(name)).expect("run this test with UPDATE_EXPECT=1");
        assert!(&committed == bytes, "{name} is not in the corpus: run this test with UPDATE_EXPECT=1");
    }
    for entry in std::fs::read_dir(corpus()).expect("the corpus is committed") {
        let path = entry.expect("the corpus can be listed").path();
        let _ = check(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
}

#[test]
fn a_header_with_any_byte_changed_is_read_or_refused_for_the_field_that_was_changed() {
    let good = Header { kind: Kind::GENERATE, body_bytes: 300, request_id: 7 };
    for at in 0..Header::BYTES {
        for byte in 0..=255 {
            let mut bytes = good.to_bytes();
            if bytes[at] == byte {
                continue;
            }
            bytes[at] = byte;
            match (at, Header::parse(&bytes, 4096)) {
                (0..4, Err(Error::Magic { is_http: false })) => {}
                (4..6, Err(Error::Version { expected: 1, found })) => assert_ne!(found, 1),
                (6..8, Err(Error::UnknownKind { found })) => assert_eq!(Kind(found).name(), None),
                (6..8, Ok(header)) => {
                    assert!(header.kind.name().is_some());
                    assert_eq!(header, Header { kind: header.kind, ..good });
                }
                (8..12, Err(Error::Flags { found })) => assert_ne!(found, 0),
                (12..16, Err(Error::BodyTooLong { found, limit: 4096 })) => assert!(found > 4096),
                (12..16, Ok(header)) => {
                    assert!(header.body_bytes <= 4096);
                    assert_eq!(header, Header { body_bytes: header.body_bytes, ..good });
                }
                (16.., Ok(header)) => {
                    assert_ne!(header.request_id, 7);
                    assert_eq!(header, Header { request_id: header.request_id, ..good });
                }
                (_, other) => panic!("byte {at} as {byte}: {other:?}"),
            }
        }
    }
}

/// A secret as a token, a prompt, a wrong type, a text that is not UTF-8, a field number: wherever a decoder might show it.
#[test]
fn no_error_and_no_debug_text_shows_bytes_of_a_body() {
    let secret = b"hunter2-hunter2";
    let number = u64::from_le_bytes(*b"hunter2-").to_string();
    let shown_by = |what: &str, text: String| {
        assert!(!text.contains("hunter") && !text.contains(&number), "{what}: {text}");
        // A list of the bytes as numbers.
        assert!(
            !text.contains("104, 117") && !text.contains("0x68") && !text.contains("68, 75"),
            "{what}: {text}"
        );
    };
    let mut varint = v1::Credit { deltas: 0 }.encode_to_vec();
    prost_varint(&mut varint, u64::from_le_bytes(*b"hunter2-"));
    let bad_text = [&[0x1a, 17][..], secret, &[0xc3, 0x28]].concat();
    for &kind in Kind::ALL {
        for body in [&secret[..], &varint, &bad_text, &[&[0xff, 0xff], &secret[..]].concat()] {
            let frame = Frame { kind, request_id: 1, body: body.to_vec() };
            shown_by("a frame", format!("{frame:?}"));
            if let Some(error) = body_error(&frame) {
                shown_by("an error", format!("{error} {error:?}"));
            }
            let (_, end) = check(&[raw(kind, 1, body), secret.repeat(3)].concat());
            let error = end.expect_err("what follows is no frame");
            shown_by("the end of a stream", format!("{error} {error:?}"));
        }
    }
    let mut decoder = veritas_proto::FrameDecoder::new(4096);
    decoder.push(secret);
    shown_by("a decoder", format!("{decoder:?}"));
    shown_by("a hello", format!("{:?}", v1::Hello { token: secret.to_vec(), ..hello() }));
    assert_eq!(format!("{:?}", v1::TokenizeReply { ids: vec![104, 117] }), "TokenizeReply(4 bytes)");
    let prompt = v1::TextPrompt { text: "hunter2".to_owned(), parse_special: false };
    let prompt = Some(v1::generate_request::Prompt::Text(prompt));
    shown_by("a request", format!("{:?}", v1::GenerateRequest { prompt, ..Default::default() }));
}

fn prost_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
