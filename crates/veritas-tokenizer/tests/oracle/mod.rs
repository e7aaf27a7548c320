//! What must hold for any vocabulary and any text. The fuzz target calls it too.

use veritas_gguf::{Metadata, Value};
use veritas_tokenizer::{EncodeOptions, StreamDecoder, Tokenizer};

/// The keys that name a token.
pub(crate) const KEYS: [&str; 9] = [
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "eom_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "padding_token_id",
    "cls_token_id",
    "mask_token_id",
];

/// The names of the algorithms, and one that is none.
pub(crate) const MODELS: [&str; 6] = ["llama", "gpt2", "gemma4", "bert", "t5", "none"];

/// Pre-tokenizers of every kind.
pub(crate) const PRE_TOKENIZERS: [&str; 10] = [
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "gpt-4o",
    "deepseek-llm",
    "deepseek-v3",
    "falcon",
    "default",
    "bloom",
];

/// Checks what the tokenizer promises of a vocabulary, if it takes it; whether it did.
///
/// # Panics
/// If a promise is broken.
pub(crate) fn check(metadata: &Metadata, texts: &[&str]) -> bool {
    let tokenizer = match Tokenizer::from_gguf(metadata) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let n = tokenizer.n_vocab() as u32;
    // The unknown token stands for what has no token, which is no forgery.
    let forged = |id: &u32| tokenizer.is_control(*id) && tokenizer.unk() != Some(*id);
    for text in texts {
        for (add_special, parse_special) in [(false, false), (false, true), (true, false), (true, true)] {
            let Ok(ids) = tokenizer.encode(text, EncodeOptions { add_special, parse_special }) else {
                continue;
            };
            assert!(ids.iter().all(|&id| id < n));
            assert!(add_special || parse_special || !ids.iter().any(forged), "{text:?} {ids:?}");
            tokenizer.decode(&ids, true).unwrap();
        }
    }
    let all: Vec<u32> = (0..n).collect();
    let mut stream = StreamDecoder::new(&tokenizer, true);
    let mut streamed: String = all.iter().map(|&id| stream.push(id).unwrap()).collect();
    streamed += &stream.finish();
    assert_eq!(streamed, String::from_utf8_lossy(&tokenizer.decode(&all, true).unwrap()));
    assert!(tokenizer.decode(&[n], true).is_err());
    true
}

/// Makes a vocabulary and a text of any bytes and checks them: four bytes of choices, then parts between 0xff: the
/// text, the tokens (a byte of type, a byte of score, the text), and after an empty part the merges, after another
/// the character map. Whether the vocabulary was taken.
pub(crate) fn check_bytes(bytes: &[u8]) -> bool {
    let Some((choices, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let mut groups = rest.split(|&byte| byte == 0xff);
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let text = lossy(groups.next().unwrap_or_default());
    let mut group = || groups.by_ref().take_while(|part| !part.is_empty()).collect::<Vec<_>>();
    let (tokens, merges, charsmap) = (group(), group(), group().concat());

    let mut metadata = Metadata::new();
    let mut set = |key: &str, value: Value| {
        metadata.insert(format!("tokenizer.ggml.{key}"), value).unwrap();
    };
    set("model", MODELS[usize::from(choices[0]) % MODELS.len()].into());
    set("pre", PRE_TOKENIZERS[usize::from(choices[1]) % PRE_TOKENIZERS.len()].into());
    let flags = ["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"];
    for (bit, flag) in flags.iter().enumerate() {
        set(flag, (choices[2] >> bit & 1 == 1).into());
    }
    for (place, key) in KEYS.iter().enumerate().filter(|(place, _)| choices[3] >> (place % 8) & 1 == 1) {
        set(key, (place as u32 % 8).into());
    }
    let byte = |token: &[u8], place: usize| token.get(place).copied().unwrap_or_default();
    set("token_type", tokens.iter().map(|token| i32::from(byte(token, 0) % 8)).collect::<Vec<_>>().into());
    set("scores", tokens.iter().map(|token| f32::from(byte(token, 1) as i8)).collect::<Vec<_>>().into());
    let texts = tokens.iter().map(|token| lossy(token.get(2..).unwrap_or_default()));
    set("tokens", texts.collect::<Vec<_>>().into());
    set("merges", merges.iter().map(|merge| lossy(merge)).collect::<Vec<_>>().into());
    set("precompiled_charsmap", charsmap.into());
    check(&metadata, &[&text])
}
