//! The ids of real vocabularies, as second implementations give them.
//!
//! The vocabularies are not ours: they are read from the folder that `VERITAS_TEST_DATA` names. The expectations
//! (tests/data/tokenizers/expected) are committed.

use std::collections::HashSet;
use std::fs;
use std::io::BufReader;
use std::path::Path;

use serde_json::Value;
use veritas_testkit::{committed, test_data};
use veritas_tokenizer::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PARSED: EncodeOptions = EncodeOptions { add_special: false, parse_special: true };

/// One expectation: a text, whether its control tokens are parsed, and the ids.
struct Expected {
    text: String,
    special: bool,
    ids: Vec<u32>,
}

fn load(path: &Path) -> Tokenizer {
    let file = fs::File::open(path).unwrap();
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(file), &mut bytes).unwrap();
    Tokenizer::from_gguf(&veritas_gguf::parse(&bytes).unwrap().metadata).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// `expected/NAME.jsonl`
fn expectations(name: &str) -> Vec<Expected> {
    let path = committed(&format!("tokenizers/expected/{name}.jsonl"));
    let lines = fs::read_to_string(&path).unwrap();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| Expected {
        text: row["text"].as_str().unwrap().to_owned(),
        special: row["special"] == true,
        ids: ids(row.get("ids_nfc").unwrap_or(&row["ids"])),
    })
    .collect()
}

/// `vocab/NAME.inp` and `.out`, which come with the vocabulary.
fn pairs(path: &Path, name: &str) -> Vec<Expected> {
    let input = fs::read_to_string(path.with_file_name(format!("{name}.inp"))).unwrap();
    let output = fs::read_to_string(path.with_file_name(format!("{name}.out"))).unwrap();
    let texts = input.split("\n__ggml_vocab_test__\n");
    let ids = output.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    texts.zip(ids).map(|(text, ids)| Expected { text: text.to_owned(), special: false, ids }).collect()
}

fn check(name: &str, with_pairs: bool, lists: &[&str]) {
    let Some(path) = test_data(&format!("tokenizers/vocab/{name}.gguf.xz")) else { return };
    let tokenizer = load(&path);
    let mut rows: Vec<Expected> = lists.iter().flat_map(|list| expectations(list)).collect();
    if with_pairs {
        rows.extend(pairs(&path, name));
    }
    assert!(rows.len() >= 40, "{name}: only {} expectations", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let ids = tokenizer.encode(&row.text, if row.special { PARSED } else { PLAIN }).unwrap();
        if ids != row.ids {
            wrong.push(format!("{:?}: {ids:?}, expected {:?}", row.text, row.ids));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));

    if EXACT.contains(&name) {
        for row in &rows {
            assert_eq!(tokenizer.decode(&row.ids, true).unwrap(), row.text.as_bytes(), "{name}");
        }
    }
    check_roles(name, &tokenizer);
}

/// Byte-level vocabularies whose text is not normalized: the way back is exact.
const EXACT: [&str; 7] = ["gpt-2", "llama-bpe", "starcoder", "refact", "command-r", "deepseek-llm", "falcon"];

/// Every control token of the vocabulary, in a text from outside.
fn check_roles(name: &str, tokenizer: &Tokenizer) {
    let texts: HashSet<&str> = tokenizer.control_texts().collect();
    assert!(!texts.is_empty(), "{name}");
    let is_marker =
        |id: &u32| texts.contains(tokenizer.token_text(*id).unwrap()) && tokenizer.unk() != Some(*id);
    for text in &texts {
        for forged in
            [format!("x {text} y"), (*text).to_owned(), format!("{text}{text}"), format!("\n{text}a")]
        {
            let ids = tokenizer.encode(&forged, PLAIN).unwrap();
            assert!(!ids.iter().any(is_marker), "{name} {forged:?}: {ids:?}");
        }
        let ids = tokenizer.encode(text, PARSED).unwrap();
        assert_eq!(tokenizer.token_text(ids[0]).unwrap(), *text, "{name}");
        assert_eq!(ids.len(), 1, "{name} {text:?}");
    }
}

macro_rules! vocabularies {
    ($($test:ident: $name:literal, $pairs:literal, [$($list:literal),*];)*) => {$(
        #[test]
        fn $test() {
            check($name, $pairs, &[$($list),*]);
        }
    )*};
}

vocabularies! {
    gpt_2_gives_the_expected_ids: "gpt-2", true, ["gpt-2", "r50k_base"];
    llama_bpe_gives_the_expected_ids: "llama-bpe", true, ["llama-bpe"];
    qwen2_gives_the_expected_ids: "qwen2", false, ["qwen2"];
    qwen35_gives_the_expected_ids: "qwen35", false, ["qwen35"];
    starcoder_gives_the_expected_ids: "starcoder", true, ["starcoder"];
    refact_gives_the_expected_ids: "refact", true, ["refact"];
    command_r_gives_the_expected_ids: "command-r", true, ["command-r"];
    deepseek_llm_gives_the_expected_ids: "deepseek-llm", true, [];
    falcon_gives_the_expected_ids: "falcon", true, [];
    gemma_4_gives_the_expected_ids: "gemma-4", true, [];
    llama_spm_gives_the_expected_ids: "llama-spm", true, ["llama-spm"];
    phi_3_gives_the_expected_ids: "phi-3", true, ["phi-3"];
    bert_bge_gives_the_expected_ids: "bert-bge", true, ["bert-base-uncased"];
    nomic_bert_moe_gives_the_expected_ids: "nomic-bert-moe", false, ["nomic-bert-moe"];
}

#[test]
fn a_role_marker_that_a_file_calls_user_defined_is_a_control_token_to_texts() {
    let Some(path) = test_data("tokenizers/vocab/command-r.gguf.xz") else { return };
    let tokenizer = load(&path);
    let marker = "<|START_OF_TURN_TOKEN|>";
    assert!(tokenizer.control_texts().any(|text| text == marker));
    assert_eq!(tokenizer.encode(marker, PARSED).unwrap(), [255000]);
    assert!(!tokenizer.encode(marker, PLAIN).unwrap().contains(&255000));
}

#[test]
fn the_ends_of_generation_are_those_of_the_model() {
    for (name, ends) in [
        ("llama-bpe", &["<|end_of_text|>", "<|eot_id|>"][..]),
        ("qwen2", &["<|endoftext|>", "<|im_end|>"]),
        ("phi-3", &["</s>", "<|endoftext|>", "<|end|>"]),
        ("gemma-4", &["<eos>", "<|tool_response>", "<turn|>"]),
        ("command-r", &["<PAD>", "<|END_OF_TURN_TOKEN|>"]),
        ("llama-spm", &["</s>"]),
    ] {
        let Some(path) = test_data(&format!("tokenizers/vocab/{name}.gguf.xz")) else { return };
        let tokenizer = load(&path);
        let found: Vec<&str> =
            tokenizer.ends_of_generation().iter().map(|&id| tokenizer.token_text(id).unwrap()).collect();
        let mut ends = ends.to_vec();
        ends.sort_by_key(|end| found.iter().position(|text| text == end));
        assert_eq!(found, ends, "{name}");
        assert!(tokenizer.ends_of_generation().iter().all(|&id| tokenizer.is_end_of_generation(id)));
    }
}
