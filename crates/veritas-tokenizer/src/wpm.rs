//! WordPiece (`tokenizer.ggml.model` "bert"): each word is the longest token that it begins with, then the longest
//! continuation, and so on; a word that is not covered is the unknown token.
//!
//! The text is cleaned, lowered and cut as BERT's own tokenizer does it. GGUF files write `▁word` for a token that
//! begins a word and `piece` for a continuation (`##piece` in the original).

use unicode_normalization::UnicodeNormalization;
use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::error::Error;
use crate::limits::MAX_WORD_PIECE_CHARS;
use crate::spm::SPACE;
use crate::text_index::Prefixes;
use crate::unicode::{Class, is_punctuation};
use crate::vocabulary::Vocabulary;

/// What a vocabulary of this kind adds to its tokens.
#[derive(Debug)]
pub(crate) struct Wpm {
    pieces: Prefixes,
    unknown: TokenId,
    lowercase: bool,
    strip_accents: bool,
}

impl Wpm {
    /// Reads the normalizer's options.
    ///
    /// # Errors
    /// If there is no unknown token.
    pub(crate) fn read(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let lowercase = metadata.opt_bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
        let strip_accents =
            metadata.opt_bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
        let unknown = vocabulary.specials.unk.ok_or(Error::MissingSpecialToken {
            what: "words that are not in it",
            key: "tokenizer.ggml.unknown_token_id",
        })?;
        Ok(Self { pieces: vocabulary.plain_prefixes(), unknown, lowercase, strip_accents })
    }

    /// Appends the ids of a stretch of text.
    pub(crate) fn encode(&self, vocabulary: &Vocabulary, text: &str, ids: &mut Vec<TokenId>) {
        let mut word = String::new();
        let flush = |word: &mut String, ids: &mut Vec<TokenId>| {
            self.encode_word(vocabulary, word, ids);
            word.clear();
        };
        self.clean(text, |c| {
            if c.is_whitespace() {
                flush(&mut word, ids);
            } else if c.is_ascii_punctuation() || is_punctuation(c) || is_ideograph(c) {
                flush(&mut word, ids);
                word.push(c);
                flush(&mut word, ids);
            } else {
                word.push(c);
            }
        });
        flush(&mut word, ids);
    }

    /// Calls `each` for every character of the text that is left, lowered and without its accents.
    fn clean(&self, text: &str, mut each: impl FnMut(char)) {
        let kept = text.chars().filter(|&c| match c {
            '\t' | '\n' | '\r' => true,
            '\0' | '\u{fffd}' => false,
            _ => Class::of(c) != Class::Control,
        });
        let mut lowered = |c: char| {
            if self.lowercase { c.to_lowercase().for_each(&mut each) } else { each(c) }
        };
        if self.strip_accents {
            kept.nfd().filter(|&c| Class::of(c) != Class::NonspacingMark).for_each(lowered);
        } else {
            kept.for_each(&mut lowered);
        }
    }

    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, ids: &mut Vec<TokenId>) {
        if word.is_empty() {
            return;
        }
        let before = ids.len();
        if word.chars().count() > MAX_WORD_PIECE_CHARS || !self.pieces_of(vocabulary, word, ids) {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }

    /// Appends the pieces of a word, whether or not they cover it; whether they do.
    fn pieces_of(&self, vocabulary: &Vocabulary, word: &str, ids: &mut Vec<TokenId>) -> bool {
        let space = SPACE.len_utf8();
        let marked = format!("{SPACE}{word}");
        let mut pos = 0;
        while pos < marked.len() {
            let mut longest = None;
            self.pieces.each(&vocabulary.texts, &marked.as_bytes()[pos..], |bytes, id| {
                let begins_word = vocabulary.text(id).starts_with(SPACE) && bytes > space;
                if begins_word == (pos == 0) {
                    longest = Some((bytes, id));
                }
            });
            let Some((bytes, id)) = longest else { return false };
            ids.push(id);
            pos += bytes;
        }
        true
    }
}

/// The blocks whose characters BERT takes for words of their own. The fifth begins at U+2B920 and not U+2B820 in
/// the implementation that models were trained with.
fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{4e00}'..='\u{9fff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{20000}'..='\u{2a6df}'
            | '\u{2a700}'..='\u{2b73f}'
            | '\u{2b740}'..='\u{2b81f}'
            | '\u{2b920}'..='\u{2ceaf}'
            | '\u{f900}'..='\u{faff}'
            | '\u{2f800}'..='\u{2fa1f}'
    )
}
