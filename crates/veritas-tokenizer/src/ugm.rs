//! Unigram (`tokenizer.ggml.model` "t5"): of all ways to cut the text into tokens, the one whose scores have the
//! greatest sum.
//!
//! The text is first normalized by the file's own character map. A character that no token covers costs the lowest
//! score of the vocabulary and a penalty; such characters in a row are one unknown token.

use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::charsmap::CharsMap;
use crate::error::Error;
use crate::special::Kind;
use crate::spm::SPACE;
use crate::text_index::Prefixes;
use crate::vocabulary::{Vocabulary, read_scores};

/// What an unknown character costs beyond the worst token; SentencePiece's constant.
const UNKNOWN_PENALTY: f32 = 10.0;

/// What a vocabulary of this kind adds to its tokens.
#[derive(Debug)]
pub(crate) struct Ugm {
    tokens: Prefixes,
    scores: Vec<f32>,
    unknown: TokenId,
    unknown_score: f32,
    charsmap: Option<CharsMap>,
    /// Whether a text begins with a space of its own.
    pub(crate) add_space_prefix: bool,
    /// Whether spaces in a row become one, and those at the ends none.
    merge_spaces: bool,
}

/// The best cut of the text up to some place.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last token begins.
    from: u32,
    /// Its last token.
    id: TokenId,
}

impl Ugm {
    /// Reads the scores and the character map.
    ///
    /// # Errors
    /// If either is malformed, or if there is no unknown token.
    pub(crate) fn read(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let mut scores = read_scores(metadata, vocabulary.len())?;
        let mut worst = f32::MAX;
        for (id, score) in scores.iter_mut().enumerate() {
            match vocabulary.kind(id as TokenId) {
                Kind::Normal => worst = worst.min(*score),
                // Scores are logarithms of probabilities, so that these go before every other token.
                Kind::UserDefined => *score = 0.0,
                _ => {}
            }
        }
        let unknown = vocabulary.specials.unk.ok_or(Error::MissingSpecialToken {
            what: "characters that are not in it",
            key: "tokenizer.ggml.unknown_token_id",
        })?;
        Ok(Self {
            tokens: vocabulary.plain_prefixes(),
            scores,
            unknown,
            unknown_score: worst - UNKNOWN_PENALTY,
            charsmap: CharsMap::read(metadata)?,
            add_space_prefix: metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
            merge_spaces: metadata.opt_bool("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
        })
    }

    /// Appends the ids of a stretch of text.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let text = self.normalize(text)?;
        let mut best = vec![Best { score: f64::NEG_INFINITY, from: 0, id: self.unknown }; text.len() + 1];
        best[0].score = 0.0;
        for (start, c) in text.char_indices() {
            let before = best[start].score;
            let mut offer = |bytes: usize, id, score: f32| {
                let end = &mut best[start + bytes];
                let score = before + f64::from(score);
                if score > end.score {
                    *end = Best { score, from: start as u32, id };
                }
            };
            let mut covered = false;
            self.tokens.each(&vocabulary.texts, &text.as_bytes()[start..], |bytes, id| {
                covered |= bytes == c.len_utf8();
                offer(bytes, id, self.scores[id as usize]);
            });
            if !covered {
                offer(c.len_utf8(), self.unknown, self.unknown_score);
            }
        }
        let first = ids.len();
        let (mut end, mut after_unknown) = (text.len(), false);
        while end > 0 {
            let Best { from, id, .. } = best[end];
            let is_unknown = id == self.unknown;
            if !(is_unknown && after_unknown) {
                ids.push(id);
            }
            after_unknown = is_unknown;
            end = from as usize;
        }
        ids[first..].reverse();
        Ok(())
    }

    /// The text after the character map, with `▁` for spaces.
    fn normalize(&self, text: &str) -> Result<String, Error> {
        let mut normal = String::with_capacity(text.len() + text.len() / 4 + SPACE.len_utf8());
        let (mut prefix_due, mut in_word) = (self.add_space_prefix, false);
        let mut push = |piece: &str| {
            for c in piece.chars() {
                if c == ' ' {
                    in_word = false;
                    if !self.merge_spaces {
                        normal.push(SPACE);
                    }
                    continue;
                }
                if !in_word && (prefix_due || self.merge_spaces) {
                    normal.push(SPACE);
                    prefix_due = false;
                }
                in_word = true;
                normal.push(c);
            }
        };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let replaced = match &self.charsmap {
                Some(map) => map.longest(rest)?,
                None => None,
            };
            let (piece, bytes) = replaced.unwrap_or((&rest[..c.len_utf8()], c.len_utf8()));
            push(piece);
            rest = &rest[bytes..];
        }
        Ok(normal)
    }
}
