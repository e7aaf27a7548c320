//! A made-up vocabulary for byte-pair encoding, of the size and the build of a published one.
//!
//! Every byte is a token, every other token is made by one merge of two shorter ones, and a few control tokens come
//! last. So an engine that loads the file has as much to read and to index as with a real one, and every text can be
//! encoded. Which letters a token is made of is random.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use veritas_gguf::Metadata;

use crate::random::Random;
use crate::shape::Shape;

/// Bytes that a token stands for at most. Of published vocabularies few tokens are longer.
const TOKEN_BYTES_MAX: usize = 12;

/// What stands for a space in GPT-2's alphabet of bytes.
const SPACE: char = 'Ġ';

/// The numbers of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Tokens and merges.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pre_tokenizer: String,
    tokens: Vec<String>,
    merges: Vec<String>,
    n_control: usize,
}

/// The vocabulary of a shape.
pub(crate) fn of(shape: &Shape, seed: u64) -> Result<Vocabulary> {
    let n_merged = (shape.n_vocab as usize).checked_sub(256 + shape.control_tokens.len());
    ensure!(n_merged.is_some(), "a vocabulary of {} tokens has no room for the bytes", shape.n_vocab);
    let mut random = Random::new(seed, "tokenizer.ggml.tokens");
    let mut tokens = byte_tokens();
    let mut seen = tokens.iter().cloned().collect::<HashSet<_>>();
    let mut merges = Vec::new();
    // What merges are made of. A word may begin with a space, which stands nowhere else.
    let mut inner = (b'a'..=b'z').map(|letter| char::from(letter).to_string()).collect::<Vec<_>>();
    let mut initial = vec![SPACE.to_string()];
    while merges.len() < n_merged.unwrap_or(0) {
        let begins = random.below(2) == 0;
        let lefts = if begins { &initial } else { &inner };
        let left = &lefts[random.below(lefts.len())];
        let right = &inner[random.below(inner.len())];
        let merged = format!("{left}{right}");
        if merged.chars().count() > TOKEN_BYTES_MAX || !seen.insert(merged.clone()) {
            continue;
        }
        merges.push(format!("{left} {right}"));
        tokens.push(merged.clone());
        if begins { initial.push(merged) } else { inner.push(merged) }
    }
    tokens.extend(shape.control_tokens.iter().cloned());
    let n_control = shape.control_tokens.len();
    Ok(Vocabulary { pre_tokenizer: shape.pre_tokenizer.clone(), tokens, merges, n_control })
}

/// The characters of GPT-2's alphabet, the printable ones first: those stand for themselves, the others are numbered
/// from U+0100.
fn byte_tokens() -> Vec<String> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let printable = (0..=255u8).filter(|&byte| is_printable(byte)).map(char::from);
    let n_others = (0..=255u8).filter(|&byte| !is_printable(byte)).count() as u32;
    let others = (0x100..0x100 + n_others).filter_map(char::from_u32);
    printable.chain(others).map(String::from).collect()
}

impl Vocabulary {
    /// Adds the keys of the tokenizer.
    pub(crate) fn put(self, metadata: &mut Metadata) -> Result<()> {
        let n_plain = self.tokens.len() - self.n_control;
        let mut types = vec![NORMAL; n_plain];
        types.resize(self.tokens.len(), CONTROL);
        metadata.insert("tokenizer.ggml.model", "gpt2")?;
        metadata.insert("tokenizer.ggml.pre", self.pre_tokenizer.as_str())?;
        metadata.insert("tokenizer.ggml.tokens", self.tokens)?;
        metadata.insert("tokenizer.ggml.token_type", types)?;
        metadata.insert("tokenizer.ggml.merges", self.merges)?;
        metadata.insert("tokenizer.ggml.bos_token_id", n_plain as u32)?;
        metadata.insert("tokenizer.ggml.eos_token_id", n_plain as u32 + 1)?;
        metadata.insert("tokenizer.ggml.add_bos_token", false)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_has_its_size_no_token_twice_and_a_merge_for_each_longer_token() {
        let shape = Shape::find("qwen2.5-0.5b").unwrap();
        let vocabulary = of(&shape, 1).unwrap();
        assert_eq!(vocabulary.tokens.len(), 151_936);
        assert_eq!(vocabulary.tokens.iter().collect::<HashSet<_>>().len(), 151_936);
        let merged = &vocabulary.tokens[256..151_933];
        for (merge, token) in vocabulary.merges.iter().zip(merged) {
            assert_eq!(&merge.replacen(' ', "", 1), token);
        }
        assert_eq!(vocabulary.merges.len(), merged.len());
    }

    #[test]
    fn our_tokenizer_reads_it_and_gives_texts_back() {
        for name in ["qwen2.5-0.5b", "llama-3.2-1b"] {
            let mut metadata = Metadata::new();
            of(&Shape::find(name).unwrap(), 1).unwrap().put(&mut metadata).unwrap();
            let tokenizer = veritas_tokenizer::Tokenizer::from_gguf(&metadata).unwrap();
            let text = "Some words, 42 of them; größer\n";
            let ids = tokenizer.encode(text, veritas_tokenizer::EncodeOptions::default()).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text.as_bytes(), "{name}");
            assert!(ids.len() < text.len(), "no merge applied: {ids:?}");
        }
    }
}
