//! Vocabularies and texts that nobody should trust.

use std::fs;

use proptest::prelude::*;
use veritas_gguf::Metadata;
use veritas_testkit::committed;
use veritas_tokenizer::{EncodeOptions, Error, StreamDecoder, Tokenizer};

mod oracle;
use oracle::{KEYS, MODELS, PRE_TOKENIZERS};

fn golden(name: &str) -> Metadata {
    let bytes = fs::read(committed(&format!("golden/{name}/model-f16.gguf"))).unwrap();
    veritas_gguf::parse(&bytes).unwrap().metadata
}

fn with(name: &str, change: impl FnOnce(&mut Metadata)) -> Result<Tokenizer, Error> {
    let mut metadata = golden(name);
    change(&mut metadata);
    Tokenizer::from_gguf(&metadata)
}

#[test]
fn an_id_beyond_the_vocabulary_is_a_typed_error_wherever_it_stands() {
    for name in ["llama", "llama_tied", "bert"] {
        for key in KEYS {
            let key = format!("tokenizer.ggml.{key}");
            let result = with(name, |metadata| metadata.insert(key.as_str(), 1u32 << 31).unwrap());
            match result {
                Err(Error::SpecialTokenOutOfRange { key: found, .. }) => assert_eq!(found, key),
                Ok(_) => assert!(key.ends_with("mask_token_id"), "{name} {key} is used and was not checked"),
                Err(error) => {
                    // The first of two names of the same token wins.
                    panic!("{name} {key}: {error}")
                }
            }
        }
    }
    let tokenizer = with("llama", |_| {}).unwrap();
    assert!(matches!(tokenizer.decode(&[384], true), Err(Error::TokenOutOfRange { id: 384, n_vocab: 384 })));
    assert!(matches!(tokenizer.token_bytes(u32::MAX), Err(Error::TokenOutOfRange { .. })));
    assert!(StreamDecoder::after(&tokenizer, false, &[384]).is_err());
    assert!(!tokenizer.is_control(384) && !tokenizer.is_end_of_generation(384));
}

#[test]
fn an_unknown_name_is_an_error_that_names_it() {
    let pre =
        with("llama", |metadata| metadata.insert("tokenizer.ggml.pre", "no-such").unwrap()).unwrap_err();
    assert!(matches!(pre, Error::UnknownPreTokenizer { .. }) && pre.to_string().contains("no-such"), "{pre}");
    let model =
        with("llama", |metadata| metadata.insert("tokenizer.ggml.model", "rwkv").unwrap()).unwrap_err();
    assert!(matches!(model, Error::UnknownModel { .. }) && model.to_string().contains("rwkv"), "{model}");
}

#[test]
fn what_is_missing_or_of_the_wrong_length_is_a_typed_error() {
    for (name, key) in [
        ("llama", "model"),
        ("llama", "tokens"),
        ("llama", "merges"),
        ("llama_tied", "scores"),
        ("llama", "bos_token_id"),
    ] {
        let result = with(name, |metadata| drop(metadata.remove(&format!("tokenizer.ggml.{key}"))));
        assert!(
            matches!(result, Err(Error::Metadata(_) | Error::MissingSpecialToken { .. })),
            "{name} {key}"
        );
    }
    let short = |name, key: &str, value: veritas_gguf::Value| {
        with(name, |metadata| metadata.insert(format!("tokenizer.ggml.{key}"), value).unwrap()).unwrap_err()
    };
    assert!(matches!(
        short("llama", "token_type", vec![1i32].into()),
        Error::LengthMismatch { found: 1, .. }
    ));
    assert!(matches!(
        short("llama_tied", "scores", vec![1f32].into()),
        Error::LengthMismatch { found: 1, .. }
    ));
    assert!(matches!(
        short("llama_tied", "scores", vec![f32::NAN; 384].into()),
        Error::ScoreNotANumber { id: 0 }
    ));
    assert!(matches!(short("llama", "tokens", Vec::<String>::new().into()), Error::EmptyVocabulary));
    assert!(matches!(
        short("llama", "tokens", vec!["x".to_owned(); 384].into()),
        Error::DuplicateToken { first: 0, second: 1, .. }
    ));
    assert!(matches!(short("llama", "merges", vec!["ab".to_owned()].into()), Error::MalformedMerge { .. }));
    assert!(matches!(short("llama", "tokens", vec!["x".repeat(5000)].into()), Error::VocabularyLimit { .. }));
}

#[test]
fn a_merge_may_lead_through_texts_that_are_no_tokens() {
    let mut metadata = golden("gpt2");
    let mut tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().to_vec();
    tokens[0] = "qqqq".into();
    metadata.insert("tokenizer.ggml.tokens", tokens).unwrap();
    metadata.insert("tokenizer.ggml.merges", vec!["q q".to_owned(), "qq qq".to_owned()]).unwrap();
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let encode = |text| tokenizer.encode(text, EncodeOptions::default()).unwrap();
    let q = encode("q");
    assert_eq!(encode("qqqq"), [0]);
    // Two of them are no token: they come as their bytes.
    assert_eq!(encode("qq"), [q[0], q[0]]);
    assert_eq!(encode("qqqqqq"), [0, q[0], q[0]]);
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let tokenizer = with("llama", |_| {}).unwrap();
    let text = "a".repeat(veritas_tokenizer::limits::MAX_TEXT_BYTES + 1);
    assert!(matches!(tokenizer.encode(&text, EncodeOptions::default()), Err(Error::TextTooLong { .. })));
}

#[test]
fn a_megabyte_without_a_space_does_not_take_quadratic_time() {
    for name in ["gpt2", "llama", "llama_tied", "gemma", "bert"] {
        let tokenizer = with(name, |_| {}).unwrap();
        for unit in ["a", "the", "▁", "<", "<|im_start", "é", "😀", " ", "."] {
            let text = unit.repeat((1 << 20) / unit.len());
            assert!(!tokenizer.encode(&text, EncodeOptions::default()).unwrap().is_empty() || unit == " ");
        }
    }
}

prop_compose! {
    /// A vocabulary of short texts, so that merges, prefixes and duplicates happen.
    fn vocabularies()(
        model in proptest::sample::select(MODELS.to_vec()),
        pre in proptest::sample::select(PRE_TOKENIZERS.to_vec()),
        tokens in proptest::collection::hash_set("[abĠ▁<|> é]{0,3}|<0x[0-9A-F]{2}>", 1..40),
        types in proptest::collection::vec(0i32..8, 40),
        scores in proptest::collection::vec(prop_oneof![-5f32..5.0, any::<f32>()], 40),
        merges in proptest::collection::vec("[abĠ▁]{1,2} [abĠ▁]{1,2}", 0..20),
        ids in proptest::collection::vec((proptest::sample::select(KEYS.to_vec()), 0u32..12), 0..6),
        flags in any::<[bool; 6]>(),
        charsmap in proptest::collection::vec(any::<u8>(), 0..64),
    ) -> Metadata {
        let mut metadata = Metadata::new();
        let mut set = |key: &str, value: veritas_gguf::Value| {
            metadata.insert(format!("tokenizer.ggml.{key}"), value).unwrap();
        };
        let n = tokens.len();
        set("model", model.into());
        set("pre", pre.into());
        set("tokens", tokens.into_iter().collect::<Vec<_>>().into());
        set("token_type", types[..n].to_vec().into());
        set("scores", scores[..n].to_vec().into());
        set("merges", merges.into());
        for (key, id) in ids {
            set(key, id.into());
        }
        let names = ["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"];
        for (name, flag) in names.iter().zip(flags) {
            set(name, flag.into());
        }
        if flags[4] {
            let mut map = 32u32.to_le_bytes().to_vec();
            map.extend(&charsmap);
            map.push(0);
            set("precompiled_charsmap", map.into());
        }
        metadata
    }
}

#[test]
fn no_vocabulary_and_no_text_lead_to_a_panic_or_a_forged_token() {
    let n_accepted = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(metadata in vocabularies(), text in "[ab <|>é▁0x4A\u{0}-\u{ff}]{0,40}", any: String)| {
        n_accepted.set(n_accepted.get() + u32::from(oracle::check(&metadata, &[&text, &any])));
    });
    let n_accepted = n_accepted.get();
    assert!(n_accepted > 300, "only {n_accepted} vocabularies were accepted");
}

#[test]
fn the_corpus_of_the_fuzz_target_leads_to_no_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/tokenizer");
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    let n_taken = files.filter(|bytes| oracle::check_bytes(bytes)).count();
    assert!(n_taken >= 5, "only {n_taken} vocabularies of the corpus are taken");
}

proptest! {
    #[test]
    fn no_bytes_lead_to_a_panic(bytes in proptest::collection::vec(prop_oneof![
        any::<u8>(), Just(0xff), proptest::sample::select(b"ab <|>".to_vec())
    ], 0..200)) {
        oracle::check_bytes(&bytes);
    }
}
