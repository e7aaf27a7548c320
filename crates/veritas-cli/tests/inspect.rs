//! `inspect` through the binary: what a file holds, whatever the file is.

mod common;

use common::{data, folder, in_folder, veritas};
use serde_json::{Value, json};
use veritas_gguf::{Metadata, Writer};
use veritas_quant::GgmlType;

fn inspect(path: &str, flags: &[&str]) -> common::Outcome {
    veritas(&[&["inspect", path, "--json"], flags].concat(), b"")
}

/// A file with these metadata and one tensor.
fn write_file(path: &str, entries: Vec<(String, veritas_gguf::Value)>) {
    let mut writer = Writer::new(Metadata::from_entries(entries).expect("entries")).expect("metadata");
    writer.tensor("token_embd.weight", GgmlType::F32, &[4, 2]).expect("a tensor");
    let mut out = writer.start(std::fs::File::create(path).expect("a file")).expect("a header");
    out.write(&[0; 32]).expect("data");
    out.finish().expect("a whole file");
}

#[test]
fn the_report_of_a_golden_model_holds_what_its_reader_says() {
    let path = data("golden/llama/model-f16.gguf");
    let bytes = std::fs::read(&path).expect("the fixture");
    let gguf = veritas_gguf::parse(&bytes).expect("the fixture is a GGUF file");
    let report = inspect(&path, &["--tensors"]).json();
    assert_eq!(report["format"], "gguf");
    assert_eq!(report["version"], 3);
    assert_eq!(report["architecture"], "llama");
    assert_eq!(report["name"], gguf.name().expect("a name"));
    assert_eq!(report["n_params"], gguf.n_params());
    assert_eq!(report["file_bytes"], bytes.len());
    assert_eq!((&report["supported"], report.get("reason")), (&json!(true), None));
    let metadata = report["metadata"].as_object().expect("an object");
    assert_eq!(metadata.len(), gguf.metadata.len());
    assert_eq!(metadata["llama.embedding_length"], 64);
    assert_eq!(metadata["llama.attention.layer_norm_rms_epsilon"], 1e-5);
    let tensors = report["tensors"].as_array().expect("a list");
    assert_eq!(tensors.len(), gguf.tensors.len());
    for (row, tensor) in tensors.iter().zip(&gguf.tensors) {
        let expected = json!({
            "name": tensor.name, "type": tensor.ty.name(), "shape": tensor.dims, "offset": tensor.offset,
            "bytes": tensor.bytes,
        });
        assert_eq!(row, &expected);
    }
    assert!(inspect(&path, &[]).json().get("tensors").is_none());
}

#[test]
fn models_that_cannot_be_run_are_shown_with_the_reason() {
    for (name, reason) in [("mixtral", "mixture of experts"), ("bert", "bert"), ("gpt_oss", "gpt-oss")] {
        let report = inspect(&data(&format!("golden/{name}/model-f16.gguf")), &[]).json();
        assert_eq!(report["supported"], false, "{name}");
        let found = report["reason"].as_str().expect("a reason");
        assert!(found.contains(reason), "{name}: {found}");
    }
    // Only quantised rows, no model at all.
    let report = inspect(&data("quants/quants.gguf"), &["--tensors"]).json();
    assert_eq!(report["supported"], false);
    assert!(report["tensors"].as_array().is_some_and(|tensors| tensors.len() >= 27));
}

#[test]
fn the_text_names_the_same_things_without_colours_in_a_pipe() {
    let path = data("golden/llama/model-f16.gguf");
    let text = veritas(&["inspect", &path, "--tensors"], b"").text();
    for part in ["llama", "123.2 K", "250.44 KiB", "F16", "blk.0.attn_q.weight", "64 × 64"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(veritas(&["inspect", &path, "--color", "always"], b"").text().contains("\x1b[1m"));
}

#[test]
fn values_that_json_lacks_and_long_arrays_give_valid_json() {
    let folder = folder();
    let path = in_folder(&folder, "strange.gguf");
    let entry = |key: &str, value: veritas_gguf::Value| (key.to_owned(), value);
    write_file(
        &path,
        vec![
            entry("general.architecture", "no-such-architecture".into()),
            entry("a.nan", f32::NAN.into()),
            entry("a.inf", vec![f64::INFINITY, 1.5].into()),
            entry("a.long", (0..5000u32).collect::<Vec<_>>().into()),
            entry("a.text", "\x1b[31mred\u{85}\u{2028}".into()),
            entry("a.large", u64::MAX.into()),
        ],
    );
    let outcome = inspect(&path, &[]);
    assert!(!outcome.text().trim_end().contains(['\n', '\u{85}', '\u{2028}', '\x1b']));
    let metadata = outcome.json()["metadata"].clone();
    assert_eq!(metadata["a.nan"], "NaN");
    assert_eq!(metadata["a.inf"], json!(["inf", 1.5]));
    assert_eq!(metadata["a.long"], json!({"type": "u32", "len": 5000, "first": [0, 1, 2, 3, 4, 5, 6, 7]}));
    assert_eq!(metadata["a.text"], "\x1b[31mred\u{85}\u{2028}");
    assert_eq!(metadata["a.large"], u64::MAX);
    assert!(outcome.json()["reason"].as_str().is_some_and(|reason| reason.contains("no-such-architecture")));
    // In text, nothing of the file commands the terminal.
    assert!(!veritas(&["inspect", &path], b"").text().contains('\x1b'));
}

#[test]
fn hostile_and_foreign_files_are_typed_errors() {
    let good = std::fs::read(data("golden/llama/model-f16.gguf")).expect("the fixture");
    let folder = folder();
    let path = in_folder(&folder, "hostile.gguf");
    let huge = |at: usize, n: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "malformed_model"),
        ("magic alone", b"GGUF".to_vec(), "malformed_model"),
        ("version 4", [&b"GGUF\x04\0\0\0"[..], &good[8..]].concat(), "malformed_model"),
        ("2^40 tensors", huge(8, 1 << 40), "malformed_model"),
        ("2^64 - 1 keys", huge(16, u64::MAX), "malformed_model"),
        ("a key of 2^63 bytes", huge(24, 1 << 63), "malformed_model"),
        ("cut in the header", good[..300].to_vec(), "malformed_model"),
        ("cut in the data", good[..good.len() - 1].to_vec(), "malformed_model"),
        ("text", b"Once upon a time".to_vec(), "malformed_model"),
        ("ONNX", b"\x08\x07\x12\x07pytorch".to_vec(), "unsupported_model"),
        ("a ZIP archive", b"PK\x03\x04xxxxxxxxxxxx".to_vec(), "unsupported_model"),
    ];
    for (name, bytes, expected) in cases {
        std::fs::write(&path, bytes).expect("a file");
        let (exit, code, message) = inspect(&path, &[]).error();
        assert_eq!((exit, code.as_str()), (4, expected), "{name}: {message}");
    }
    let (exit, code, message) = inspect(&data("quants/expected.safetensors"), &[]).error();
    assert_eq!((exit, code.as_str()), (4, "unsupported_model"));
    assert!(message.contains("safetensors"), "{message}");
    assert_eq!(inspect("/no/such/file", &[]).error().1, "not_found");
    assert_eq!(inspect(&data("golden"), &[]).error().0, 4);
}

#[test]
fn every_cut_of_the_header_is_an_error_and_no_panic() {
    let good = std::fs::read(data("golden/llama/model-f16.gguf")).expect("the fixture");
    let folder = folder();
    let path = in_folder(&folder, "cut.gguf");
    for cut in (0..2000).step_by(83) {
        std::fs::write(&path, &good[..cut]).expect("a file");
        assert_eq!(inspect(&path, &[]).error().0, 4, "cut at {cut}");
    }
}

#[test]
fn a_split_model_is_one_model() {
    let folder = folder();
    let path = in_folder(&folder, "m-00001-of-00002.gguf");
    let entries = |no: u16| {
        let entry = |key: &str, value: veritas_gguf::Value| (key.to_owned(), value);
        vec![
            entry("general.architecture", "llama".into()),
            entry("split.no", no.into()),
            entry("split.count", 2u16.into()),
            entry("split.tensors.count", 1i32.into()),
        ]
    };
    write_file(&path, entries(0));
    // A part is missing.
    assert_eq!(inspect(&path, &[]).error().1, "not_found");
    let empty = Writer::new(Metadata::from_entries(entries(1)).expect("entries")).expect("metadata");
    let out =
        empty.start(std::fs::File::create(in_folder(&folder, "m-00002-of-00002.gguf")).expect("a file"));
    out.expect("a header").finish().expect("a whole file");
    for part in [path, in_folder(&folder, "m-00002-of-00002.gguf")] {
        let report: Value = inspect(&part, &["--tensors"]).json();
        assert_eq!(report["n_params"], 8);
        assert_eq!(report["tensors"][0]["part"], 0);
    }
}
