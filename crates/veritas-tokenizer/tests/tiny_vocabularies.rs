//! The ids of the tiny vocabularies in tests/data/golden, as second implementations give them.

use std::fs;

use serde_json::Value;
use veritas_testkit::{Tensors, committed, test_data};
use veritas_tokenizer::{EncodeOptions, Tokenizer};

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };
const PROMPT: EncodeOptions = EncodeOptions { add_special: true, parse_special: false };

/// The text that every fixture's first sequence begins with (make_golden.py).
const SEQUENCE: &str = "Alice was very tired of sitting by her sister, so she ran after the White Rabbit. \
                        \"Oh dear!\" it said.";

fn load(path: &std::path::Path) -> Tokenizer {
    let bytes = fs::read(path).unwrap();
    Tokenizer::from_gguf(&veritas_gguf::parse(&bytes).unwrap().metadata).unwrap()
}

fn golden(name: &str) -> Tokenizer {
    load(&committed(&format!("golden/{name}/model-f16.gguf")))
}

#[test]
fn the_tiny_vocabularies_give_the_ids_of_a_second_implementation() {
    for name in ["gpt2", "llama", "qwen2", "llama_tied", "gemma", "bert"] {
        let tokenizer = golden(name);
        let lines = fs::read_to_string(committed(&format!("tokenizers/tiny/{name}.jsonl"))).unwrap();
        assert!(lines.lines().count() > 150);
        for line in lines.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let (text, ids) = (row["text"].as_str().unwrap(), row["ids"].as_array().unwrap());
            let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), ids, "{name} {text:?}");
        }
    }
}

#[test]
fn the_first_sequence_of_every_fixture_is_its_text() {
    for folder in fs::read_dir(committed("golden")).unwrap() {
        let folder = folder.unwrap().path();
        let model = folder.join("model-f16.gguf");
        if !model.exists() {
            continue;
        }
        let tokens = Tensors::read(&folder.join("logits.safetensors"));
        let tokens = tokens.tensor("tokens");
        let row = &tokens.token_ids()[..tokens.shape[1]];
        let ids = load(&model).encode(SEQUENCE, PROMPT).unwrap();
        // An encoder's sequence was cut before its last token.
        let n = row.len().min(ids.len()) - 1;
        assert!(n > 16, "{}", folder.display());
        assert_eq!(row[..n], ids[..n], "{}", folder.display());
    }
}

#[test]
fn the_prompts_of_the_story_models_are_theirs() {
    let Some(folder) = test_data("models") else { return };
    let expected: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
    for name in ["stories260K", "tinystories-656k"] {
        let tokenizer = load(&folder.join(format!("{name}-f16.gguf")));
        let ids = tokenizer.encode(expected[name]["prompt"].as_str().unwrap(), PROMPT).unwrap();
        assert_eq!(serde_json::to_value(ids).unwrap(), expected[name]["prompt_ids"], "{name}");
    }
}

#[test]
fn unknown_characters_in_a_row_are_one_unknown_token_where_a_vocabulary_has_no_bytes() {
    let Some(path) = test_data("models/tinystories-656k-f16.gguf") else { return };
    let tokenizer = load(&path);
    for (text, ids) in
        [("你好，世界！", vec![80, 0]), ("😀", vec![80, 0]), ("a\0b", vec![85, 0, 54]), (" ", vec![80, 80])]
    {
        assert_eq!(tokenizer.encode(text, PLAIN).unwrap(), ids, "{text:?}");
    }
}
