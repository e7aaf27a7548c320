//! `tokenize` and `detokenize` through the binary. The built-in model's vocabulary is byte-level BPE.

mod common;

use common::{Outcome, data, folder, in_folder, test_data, veritas};
use serde_json::{Value, json};

fn ids(outcome: &Outcome) -> Vec<u64> {
    outcome.json().as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id")).collect()
}

#[test]
fn a_text_is_tokenised_exactly_as_it_is_sent() {
    for text in ["Hello, world", "Hello, world\n", "  two\n\nlines ", "naïve 日本 🦀", "a"] {
        let sent = ids(&veritas(&["tokenize", "--no-bos"], text.as_bytes()));
        assert!(!sent.is_empty());
        let back = veritas(&["detokenize"], json!(sent).to_string().as_bytes());
        assert_eq!(back.text(), text);
    }
}

#[test]
fn every_line_of_jsonl_gives_the_ids_of_its_text() {
    let texts = ["one", "two\nlines", "", "drei"];
    let lines = texts.map(|text| format!("{}\n", json!({"text": text}))).concat();
    let out = veritas(&["tokenize", "--jsonl", "--no-bos"], lines.as_bytes()).text();
    let got = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    assert_eq!(got.len(), texts.len());
    for (line, text) in got.iter().zip(texts) {
        let alone = veritas(&["tokenize", "--no-bos"], text.as_bytes());
        assert_eq!(line["ids"], alone.json(), "{text:?}");
    }
    let back = veritas(&["detokenize", "--jsonl"], out.as_bytes()).text();
    let back = back.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].clone());
    assert_eq!(back.collect::<Vec<_>>(), texts.map(Value::from));
}

#[test]
fn control_tokens_come_from_a_text_only_where_it_is_asked_for() {
    // The built-in model's prompt begins with one.
    let run = veritas(&["run", "--json", "-n", "1", "--temp", "0", "hello"], b"").json();
    let id = run["prompt_ids"][0].as_u64().expect("an id");
    let text = veritas(&["detokenize"], json!([id]).to_string().as_bytes()).text();
    assert!(!text.is_empty());
    assert!(!ids(&veritas(&["tokenize", "--no-bos"], text.as_bytes())).contains(&id));
    let line = |special| json!({"text": text, "special": special}).to_string();
    let of_line = |flags: &[&str], line: &str| {
        let args = [&["tokenize", "--jsonl", "--no-bos"], flags].concat();
        veritas(&args, line.as_bytes()).json()["ids"].clone()
    };
    assert_eq!(of_line(&[], &line(true)), json!([id]));
    assert_ne!(of_line(&["--special"], &line(false)), json!([id]));
    assert_eq!(of_line(&["--special"], &json!({"text": text}).to_string()), json!([id]));
}

#[test]
fn what_is_wrong_with_the_input_is_said_with_its_line() {
    let fails = |args: &[&str], stdin: &[u8]| {
        let (exit, code, message) = veritas(&[args, &["--json"]].concat(), stdin).error();
        assert_eq!((exit, code.as_str()), (2, "usage"), "{message}");
        message
    };
    assert!(fails(&["tokenize"], b"ab\xff").contains("0xff at 2"));
    assert!(fails(&["tokenize", "--jsonl"], b"{\"text\": \"a\"}\n{\"text\": 1}\n").starts_with("line 2"));
    assert!(fails(&["tokenize", "--jsonl"], b"\n\nnonsense\n").starts_with("line 3"));
    assert!(fails(&["detokenize", "--jsonl"], b"{\"ids\": [4000000]}").starts_with("line 1"));
    assert!(fails(&["detokenize"], b"[1, -1]").contains("stdin"));
    assert!(fails(&["detokenize"], b"[4000000]").contains("4000000"));
}

#[test]
fn bytes_that_are_no_utf8_stay_bytes_alone_and_become_u_fffd_in_json() {
    // A character that is too rare for a token of its own.
    let sent = ids(&veritas(&["tokenize", "--no-bos"], "\u{7ff}".as_bytes()));
    assert!(sent.len() > 1);
    let first = json!([sent[0]]).to_string();
    assert!(String::from_utf8(veritas(&["detokenize"], first.as_bytes()).stdout).is_err());
    let line = format!("{{\"ids\": {first}}}");
    let text = veritas(&["detokenize", "--jsonl"], line.as_bytes()).json();
    assert!(text["text"].as_str().is_some_and(|text| text.contains('\u{fffd}')));
}

#[test]
fn a_file_that_is_no_model_is_malformed() {
    let folder = folder();
    let path = in_folder(&folder, "model.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0").expect("a file");
    let (exit, code, _) = veritas(&["tokenize", "--json", "--model", &path], b"x").error();
    assert_eq!((exit, code.as_str()), (4, "malformed_model"));
    let (exit, code, _) = veritas(&["tokenize", "--json", "--model", "/no/such.gguf"], b"x").error();
    assert_eq!((exit, code.as_str()), (2, "not_found"));
}

#[test]
fn a_model_without_a_runnable_plan_still_tokenises_if_it_has_a_vocabulary() {
    // A mixture of experts, which is not run yet.
    let model = data("golden/mixtral/model-f16.gguf");
    let outcome = veritas(&["tokenize", "--json", "--model", &model], b"hello");
    assert!(!ids(&outcome).is_empty());
    let (exit, code, message) = veritas(&["run", "--json", "--ids", "1,2", "--model", &model], b"").error();
    assert_eq!((exit, code.as_str()), (4, "unsupported_model"), "{message}");
}

#[test]
fn real_vocabularies_give_the_ids_that_are_expected() {
    // In full this stands in the tokenizer's own tests; here it is the way through the binary.
    let Some(packed) = test_data("tokenizers/vocab/llama-bpe.gguf.xz") else { return };
    let folder = folder();
    let path = in_folder(&folder, "vocabulary.gguf");
    let mut vocabulary = Vec::new();
    let packed = std::fs::read(packed).expect("a vocabulary");
    lzma_rs::xz_decompress(&mut &packed[..], &mut vocabulary).expect("a vocabulary packed with xz");
    std::fs::write(&path, vocabulary).expect("a file");
    let expected =
        std::fs::read_to_string(data("tokenizers/expected/llama-bpe.jsonl")).expect("expectations");
    let rows = expected.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
    let line =
        |row: &Value| json!({"text": row["text"], "special": row.get("special").unwrap_or(&json!(false))});
    let stdin = rows.iter().map(|row| format!("{}\n", line(row))).collect::<String>();
    let out = veritas(&["tokenize", "--jsonl", "--no-bos", "--model", &path], stdin.as_bytes()).text();
    assert_eq!(out.lines().count(), rows.len());
    for (line, row) in out.lines().zip(&rows) {
        let ids = row.get("ids_nfc").unwrap_or(&row["ids"]);
        assert_eq!(&serde_json::from_str::<Value>(line).expect("JSON")["ids"], ids, "{}", row["text"]);
    }
}
