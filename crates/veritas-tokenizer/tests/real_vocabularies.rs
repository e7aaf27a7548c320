//! The ids of real vocabularies, as second implementations give them.
//!
//! The vocabularies are not ours: they are read from the folder that `VERITAS_TEST_DATA` names. The expectations
//! (tests/data/tokenizers/expected) are committed.

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
