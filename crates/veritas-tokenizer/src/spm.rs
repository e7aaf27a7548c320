//! SentencePiece's BPE (`tokenizer.ggml.model` "llama"): the pair whose token has the best score merges first.
//!
//! The whole text is one word, with `▁` for each space. A character without a token becomes its bytes
//! (`<0xE4>` …), or the unknown token where the vocabulary has no bytes; unknown characters in a row are one
//! unknown token, as in SentencePiece.
//!
//! No token but those of spaces holds the boundary before `▁`, and few others that stand between two words of a text:
//! the text falls into [parts](crate::cuts) that no merge joins, and a [cache](crate::word_cache) knows most of them.

use veritas_base::TokenId;

use crate::cuts::Cuts;
use crate::error::Error;
use crate::merge::{Symbol, merge};
use crate::vocabulary::Vocabulary;
use crate::word_cache::{Cache, Caches, Place};

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
    cuts: Cuts,
    caches: Caches,
}

/// What one call needs while it encodes.
struct Work<'a> {
    spm: &'a Spm,
    vocabulary: &'a Vocabulary,
    cache: Cache,
    /// A part of the text with `▁` for spaces.
    spelled: String,
    symbols: Vec<Symbol>,
    /// Whether the last id is the unknown token and stands for what no token covers.
    after_unknown: bool,
    ids: &'a mut Vec<TokenId>,
}

impl Spm {
    pub(crate) fn new(vocabulary: &Vocabulary, scores: &[f32], add_space_prefix: bool) -> Self {
        let ranks = scores.iter().map(|&score| rank(score)).collect();
        let mut cuts = Cuts::new(SPACE);
        vocabulary.plain_ids().for_each(|id| cuts.add(vocabulary.text(id).as_bytes()));
        Self { ranks, add_space_prefix, cuts, caches: Caches::default() }
    }

    /// Appends the ids of a stretch of text; `begins` where nothing or a special token stands before it.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        begins: bool,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let mut work = Work {
            spm: self,
            vocabulary,
            cache: self.caches.take(),
            spelled: String::new(),
            symbols: Vec::new(),
            after_unknown: false,
            ids,
        };
        let mut space_due = begins && self.add_space_prefix;
        let mut failed = None;
        self.cuts.each_part(text, |start, end| {
            if failed.is_none() {
                failed = match std::mem::take(&mut space_due) {
                    true => work.merges(&text[start..end], true).err(),
                    false => work.part(&text[start..], end - start).err(),
                };
            }
        });
        self.caches.give(work.cache);
        failed.map_or(Ok(()), Err)
    }
}

impl Work<'_> {
    /// Appends the ids of the first `n_bytes` of `rest`.
    fn part(&mut self, rest: &str, n_bytes: usize) -> Result<(), Error> {
        if self.cache.append(rest.as_bytes(), n_bytes, Place::Part, self.ids) {
            self.after_unknown = false;
            return Ok(());
        }
        let (before, was_unknown) = (self.ids.len(), self.after_unknown);
        self.merges(&rest[..n_bytes], false)?;
        // The ids of an unknown text depend on what stands beside it.
        let unknown = self.vocabulary.specials.unk;
        if !was_unknown && !self.after_unknown && !self.ids[before..].iter().any(|&id| unknown == Some(id)) {
            self.cache.insert(rest.as_bytes(), n_bytes, Place::Part, &self.ids[before..]);
        }
        Ok(())
    }

    /// Appends the ids that the merges make of a text, with a space before it where one is due.
    fn merges(&mut self, text: &str, space_due: bool) -> Result<(), Error> {
        let Self { spm, vocabulary, spelled, symbols, after_unknown, ids, .. } = self;
        spelled.clear();
        if space_due {
            spelled.push(SPACE);
        }
        spelled.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        symbols.clear();
        symbols.extend(spelled.char_indices().map(|(start, c)| Symbol {
            id: NONE,
            start: start as u32,
            end: (start + c.len_utf8()) as u32,
        }));
        merge(symbols, |left, right| {
            let id = vocabulary.plain_id(&spelled[left.start as usize..right.end as usize])?;
            Some((spm.ranks[id as usize], id))
        });

        for symbol in symbols {
            let text = &spelled[symbol.start as usize..symbol.end as usize];
            let id = if symbol.id == NONE { vocabulary.plain_id(text) } else { Some(symbol.id) };
            *after_unknown = match id {
                Some(id) => {
                    ids.push(id);
                    false
                }
                None => push_bytes(vocabulary, text, *after_unknown, ids)?,
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
    use proptest::prelude::*;
    use veritas_gguf::Metadata;

    use super::*;
    use crate::special::Defaults;

    /// The ids by the definition: the whole text as one word.
    fn encode_obviously(spm: &Spm, vocabulary: &Vocabulary, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        let mut work = Work {
            spm,
            vocabulary,
            cache: spm.caches.take(),
            spelled: String::new(),
            symbols: Vec::new(),
            after_unknown: false,
            ids: &mut ids,
        };
        work.merges(text, spm.add_space_prefix).unwrap();
        ids
    }

    const TEXT: &str = "aabbc  é▁語";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn parts_and_caches_do_not_change_the_ids(
            tokens in proptest::collection::btree_set("[abc▁é語]{1,5}", 1..60),
            scores in proptest::collection::vec(-9i8..0, 61),
            prefix: bool,
            texts in proptest::collection::vec(
                proptest::collection::vec(proptest::sample::select(TEXT.chars().collect::<Vec<_>>()), 1..120),
                4,
            ),
        ) {
            let tokens: Vec<String> = std::iter::once("<unk>".to_owned()).chain(tokens).collect();
            let scores: Vec<f32> = scores[..tokens.len()].iter().map(|&score| score.into()).collect();
            let mut metadata = Metadata::new();
            metadata.insert("tokenizer.ggml.tokens", tokens).unwrap();
            metadata.insert("tokenizer.ggml.unknown_token_id", 0u32).unwrap();
            let vocabulary = Vocabulary::read(&metadata, Defaults::default()).unwrap();
            let spm = Spm::new(&vocabulary, &scores, prefix);
            for text in texts.iter().chain(&texts) {
                let text: String = text.iter().collect();
                let mut ids = Vec::new();
                spm.encode(&vocabulary, &text, true, &mut ids).unwrap();
                prop_assert_eq!(ids, encode_obviously(&spm, &vocabulary, &text), "{:?}", text);
            }
        }
    }

    #[test]
    fn better_scores_have_lower_ranks() {
        let scores = [f32::INFINITY, 1.0, 0.0, -1e-30, -1.0, -1000.0, f32::NEG_INFINITY];
        assert!(scores.map(rank).is_sorted());
        assert_eq!(rank(-0.0), rank(0.0));
        assert_ne!(rank(-1.0), rank(-1.0000001));
    }
}
