//! SentencePiece's BPE (`tokenizer.ggml.model` "llama"): the pair whose token has the best score merges first.
//!
//! The whole text is one word, with `▁` for each space. A character without a token becomes its bytes
//! (`<0xE4>` …), or the unknown token where the vocabulary has no bytes; unknown characters in a row are one
//! unknown token, as in SentencePiece.

use veritas_base::TokenId;

use crate::error::Error;
use crate::merge::{Symbol, merge};
use crate::vocabulary::Vocabulary;

/// What SentencePiece writes for a space.
pub(crate) const SPACE: char = '▁';

/// No token.
const NONE: u32 = u32::MAX;

/// What a vocabulary of this kind adds to its tokens.
#[derive(Debug)]
pub(crate) struct Spm {
    /// By token: lower merges first.
    ranks: Vec<u32>,
    /// Whether a text begins with a space of its own.
    pub(crate) add_space_prefix: bool,
}

impl Spm {
    pub(crate) fn new(scores: &[f32], add_space_prefix: bool) -> Self {
        Self { ranks: scores.iter().map(|&score| rank(score)).collect(), add_space_prefix }
    }

    /// Appends the ids of a stretch of text; `begins` where nothing or a special token stands before it.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        begins: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let mut word = String::with_capacity(text.len() + text.len() / 3);
        if begins && self.add_space_prefix {
            word.push(SPACE);
        }
        word.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));

        let mut symbols: Vec<Symbol> = word
            .char_indices()
            .map(|(start, c)| Symbol { id: NONE, start: start as u32, end: (start + c.len_utf8()) as u32 })
            .collect();
        merge(&mut symbols, |left, right| {
            let id = vocabulary.plain_id(&word[left.start as usize..right.end as usize])?;
            Some((self.ranks[id as usize], id))
        });

        let mut after_unknown = false;
        for symbol in symbols {
            let text = &word[symbol.start as usize..symbol.end as usize];
            let id = if symbol.id == NONE { vocabulary.plain_id(text) } else { Some(symbol.id) };
            after_unknown = match id {
                Some(id) => {
                    ids.push(id);
                    false
                }
                None => push_bytes(vocabulary, text, after_unknown, ids)?,
            };
        }
        Ok(())
    }
}

/// Appends the byte tokens of a text that has no token, or the unknown token, unless one stands there already;
/// whether it was unknown.
pub(crate) fn push_bytes(
    vocabulary: &Vocabulary,
    text: &str,
    after_unknown: bool,
    ids: &mut Vec<TokenId>,
) -> Result<bool, Error> {
    match text.bytes().find(|&byte| vocabulary.byte_id(byte).is_none()) {
        None => {
            ids.extend(text.bytes().filter_map(|byte| vocabulary.byte_id(byte)));
            Ok(false)
        }
        Some(byte) => {
            let unknown = vocabulary.specials.unk.ok_or(Error::NoTokenForByte { byte })?;
            if !after_unknown {
                ids.push(unknown);
            }
            Ok(true)
        }
    }
}

/// A number that ascends where the score descends.
fn rank(score: f32) -> u32 {
    // The sum makes +0 of -0, which is no worse.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scores_have_lower_ranks() {
        let scores = [f32::INFINITY, 1.0, 0.0, -1e-30, -1.0, -1000.0, f32::NEG_INFINITY];
        assert!(scores.map(rank).is_sorted());
        assert_eq!(rank(-0.0), rank(0.0));
        assert_ne!(rank(-1.0), rank(-1.0000001));
    }
}
