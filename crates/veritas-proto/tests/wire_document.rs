//! `docs/formats/wire.md` says what the code does: its kinds, codes, limits, messages and examples.

use std::path::Path;

use veritas_proto::{Header, Kind, VERSION, encode, limits, v1};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn document() -> String {
    read("../../docs/formats/wire.md")
}

/// The cells of the rows of each table below the heading that begins so.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let section =
        document.split("\n## ").find(|section| section.starts_with(heading)).expect("the section exists");
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

/// The bytes of the example of that name.
fn example(document: &str, name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let block =
        document.split(&fence).nth(1).expect("the example exists").split("```").next().unwrap_or_default();
    let digits = block.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

#[test]
fn the_kinds_are_those_of_the_code() {
    let expected = Kind::ALL.iter().filter(|kind| !kind.is_internal()).map(|kind| {
        let sender = if kind.is_from_client() { "client" } else { "daemon" };
        let (name, message) = (kind.name().unwrap_or_default(), kind.message_name().unwrap_or_default());
        [kind.0.to_string(), name.to_owned(), sender.to_owned(), message.to_owned()]
    });
    let rows = rows(&document(), "3. ");
    assert_eq!(rows.iter().map(|row| row[..4].to_vec()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for row in rows {
        let is_question = row[2] == "client";
        assert_eq!(row[4].is_empty(), !is_question, "{}: {:?}", row[1], row[4]);
        let first = row[4].split([',', ' ']).next().unwrap_or_default();
        let is_answer = Kind::ALL.iter().any(|kind| kind.name() == Some(first) && !kind.is_from_client());
        assert!(is_answer || !is_question || first == "nothing", "{}: {first}", row[1]);
    }
}

#[test]
fn the_codes_are_those_of_the_messages() {
    let rows = rows(&document(), "7. ");
    for (number, row) in (0..).zip(&rows) {
        let code = v1::Code::try_from(number).expect("the number is a code");
        assert_eq!((row[0].as_str(), row[1].as_str()), (number.to_string().as_str(), code.as_str_name()));
        assert!(["1", "2", "3", "4", "5", "130"].contains(&row[2].as_str()), "{}", row[2]);
    }
    assert!(v1::Code::try_from(rows.len() as i32).is_err(), "a code is missing");
}

#[test]
fn the_limits_are_those_of_the_code() {
    let document = document();
    let rows = rows(&document, "8. ");
    let expected = [
        u64::from(limits::HANDSHAKE_BODY_BYTES_MAX),
        limits::BODY_BYTES_DEFAULT.into(),
        limits::BODY_BYTES_MAX.into(),
        limits::DECODED_BYTES_PER_BYTE,
        limits::TOKEN_BYTES_MAX as u64,
        limits::CLIENT_NAME_BYTES_MAX as u64,
        limits::REQUESTS_PER_SESSION_MAX.into(),
        limits::CREDIT_DEFAULT.into(),
        limits::CREDIT_MAX.into(),
        limits::HANDSHAKE_MS_MAX,
        limits::CREDIT_WAIT_MS_MAX,
    ];
    let first_number = |row: &Vec<String>| {
        let digits = row[1].split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
        digits.and_then(|digits| digits.parse::<u64>().ok()).expect("each limit has a number")
    };
    assert_eq!(rows.iter().map(first_number).collect::<Vec<_>>(), expected);
    assert!(rows[3][1].contains(&limits::DECODED_BYTES_FREE.to_string()));
    assert!(document.starts_with(&format!("# The wire, version {VERSION}\n")));
}

#[test]
fn the_header_has_the_fields_of_the_table() {
    let rows = rows(&document(), "2. ");
    let (offsets, last) = rows.split_at(6);
    let mut at = 0;
    for row in offsets {
        assert_eq!(row[0].parse(), Ok(at), "{}", row[2]);
        at += row[1].parse::<usize>().expect("a number of bytes");
    }
    assert_eq!((at, last[0][0].parse()), (Header::BYTES, Ok(Header::BYTES)));
    let header = Header { kind: Kind(16), body_bytes: 0x0102_0304, request_id: 0x1112_1314_1516_1718 };
    assert_eq!(example(&document(), "header"), header.to_bytes());
}

#[test]
fn the_messages_are_those_of_the_definitions() {
    let (document, definitions) = (document(), read("proto/veritas/v1/veritas.proto"));
    let blocks =
        document.split("```proto\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let blocks = blocks.map(str::trim_end).collect::<Vec<_>>();
    let defined = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("message ") || line.starts_with("enum "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        blocks.iter().all(|block| definitions.contains(block)),
        "a block is not in the definitions as it stands"
    );
    assert_eq!(blocks.iter().flat_map(|block| defined(block)).collect::<Vec<_>>(), defined(&definitions));
}

#[test]
fn the_examples_are_the_bytes_that_the_code_writes() {
    let document = document();
    let hello = v1::Hello {
        versions: vec![1],
        client_name: "example".to_owned(),
        token: b"secret".to_vec(),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, Kind::HELLO, 0, &hello);
    assert_eq!(example(&document, "hello"), bytes);

    let prompt = v1::TextPrompt { text: "Hi".to_owned(), parse_special: false };
    let generate = v1::GenerateRequest {
        prompt: Some(v1::generate_request::Prompt::Text(prompt)),
        sampling: Some(v1::Sampling { seed: Some(7), max_tokens: Some(5), ..Default::default() }),
        stream: true,
        ..Default::default()
    };
    bytes.clear();
    encode(&mut bytes, Kind::GENERATE, 1, &generate);
    assert_eq!(example(&document, "generate"), bytes);

    let choice = v1::ChoiceDelta { text: " an".to_owned(), ids: vec![261, 29], ..Default::default() };
    bytes.clear();
    encode(&mut bytes, Kind::DELTA, 1, &v1::Delta { choices: vec![choice] });
    assert_eq!(example(&document, "delta"), bytes);

    let choice = v1::Choice { finish_reason: v1::FinishReason::Length.into(), ..Default::default() };
    let finish = v1::Finish {
        choices: vec![choice],
        prompt_ids: vec![5],
        seed: 7,
        usage: Some(v1::Usage { prompt_tokens: 1, completion_tokens: 5, ..Default::default() }),
        ..Default::default()
    };
    bytes.clear();
    encode(&mut bytes, Kind::FINISH, 1, &finish);
    assert_eq!(example(&document, "finish"), bytes);
}
