//! Byte-pair encoding (`tokenizer.ggml.model` "gpt2" and "gemma4"): inside each word of the pre-tokenizer, the pair
//! that stands first in the list of merges merges first.
//!
//! A merge may name texts that are no tokens (they lead to longer ones); such a text gets an id above those of the
//! tokens, and if it is left at the end it becomes its bytes.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::byte_alphabet;
use crate::error::Error;
use crate::limits::MAX_MERGES;
use crate::merge::{Symbol, merge};
use crate::pretokenize::PreTokenizer;
use crate::spm::{SPACE, push_bytes};
use crate::vocabulary::Vocabulary;

/// A symbol without an id: no merge knows it.
const NONE: u32 = u32::MAX;

/// What a vocabulary of this kind adds to its tokens.
#[derive(Debug)]
pub(crate) struct Bpe {
    pub(crate) pre: PreTokenizer,
    /// From two ids to the rank of their merge and the id of the result.
    merges: HashMap<(u32, u32), (u32, u32)>,
    /// Ids of the texts of merges that are no tokens.
    phantoms: HashMap<String, u32>,
    /// The id of each byte's character; not used where the words are raw.
    byte_ids: Vec<u32>,
}

impl Bpe {
    /// Reads the merges.
    ///
    /// # Errors
    /// If they are missing, too many or malformed.
    pub(crate) fn read(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        pre: PreTokenizer,
    ) -> Result<Self, Error> {
        let list = metadata.strings("tokenizer.ggml.merges")?;
        if list.len() > MAX_MERGES {
            return Err(Error::VocabularyLimit { what: "merges", found: list.len(), max: MAX_MERGES });
        }
        let mut phantoms = HashMap::new();
        let mut intern = |text: Cow<str>| {
            vocabulary.plain_id(&text).unwrap_or_else(|| {
                let next = (vocabulary.len() + phantoms.len()) as u32;
                *phantoms.entry(text.into_owned()).or_insert(next)
            })
        };
        let mut merges = HashMap::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let (left, right) =
                split_merge(entry).ok_or_else(|| Error::MalformedMerge { index, found: entry.clone() })?;
            let pair = (intern(left.into()), intern(right.into()));
            let merged = intern(format!("{left}{right}").into());
            merges.entry(pair).or_insert((index as u32, merged));
        }
        let byte_ids =
            byte_alphabet::CHARS.iter().map(|c| find(vocabulary, &phantoms, c.encode_utf8(&mut [0; 4])));
        let byte_ids = byte_ids.collect();
        Ok(Self { pre, merges, phantoms, byte_ids })
    }

    /// Appends the ids of a stretch of text.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let mut text = Cow::Borrowed(text);
        if self.pre.nfc && !is_nfc(&text) {
            text = text.nfc().collect::<String>().into();
        }
        if self.pre.raw {
            text = text.replace(' ', SPACE.encode_utf8(&mut [0; 4])).into();
        }
        let mut symbols = Vec::new();
        let mut failed = None;
        self.pre.words(&text, &mut |word| {
            if failed.is_none() {
                failed = self.encode_word(vocabulary, word, &mut symbols, ids).err();
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn encode_word(
        &self,
        vocabulary: &Vocabulary,
        word: &str,
        symbols: &mut Vec<Symbol>,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        if let Some(id) = self.whole_word(vocabulary, word) {
            ids.push(id);
            return Ok(());
        }
        symbols.clear();
        if self.pre.raw {
            symbols.extend(word.char_indices().map(|(start, c)| Symbol {
                id: find(vocabulary, &self.phantoms, c.encode_utf8(&mut [0; 4])),
                start: start as u32,
                end: (start + c.len_utf8()) as u32,
            }));
        } else {
            symbols.extend(word.bytes().enumerate().map(|(start, byte)| Symbol {
                id: self.byte_ids[usize::from(byte)],
                start: start as u32,
                end: start as u32 + 1,
            }));
        }
        merge(symbols, |left, right| self.merges.get(&(left.id, right.id)).copied());

        let mut after_unknown = false;
        for symbol in symbols.iter() {
            let (start, end) = (symbol.start as usize, symbol.end as usize);
            if (symbol.id as usize) < vocabulary.len() {
                ids.push(symbol.id);
                after_unknown = false;
            } else if self.pre.raw {
                after_unknown = push_bytes(vocabulary, &word[start..end], after_unknown, ids)?;
            } else {
                for &byte in &word.as_bytes()[start..end] {
                    let id = self.byte_ids[usize::from(byte)];
                    let id = ((id as usize) < vocabulary.len()).then_some(id);
                    ids.push(id.or(vocabulary.specials.unk).ok_or(Error::NoTokenForByte { byte })?);
                }
            }
        }
        Ok(())
    }

    /// The token that a word is without any merge, where the rule says so.
    fn whole_word(&self, vocabulary: &Vocabulary, word: &str) -> Option<TokenId> {
        if self.pre.raw {
            // Gemma 4 has tokens for runs of line breaks that its merges do not lead to.
            return if word.starts_with('\n') { vocabulary.plain_id(word) } else { None };
        }
        if !self.pre.ignore_merges {
            return None;
        }
        let spelled: String = word.bytes().map(|byte| byte_alphabet::CHARS[usize::from(byte)]).collect();
        vocabulary.plain_id(&spelled)
    }
}

/// The id of a text, a token's or another.
fn find(vocabulary: &Vocabulary, phantoms: &HashMap<String, u32>, text: &str) -> u32 {
    vocabulary.plain_id(text).or_else(|| phantoms.get(text).copied()).unwrap_or(NONE)
}

/// The two sides of a merge. The space between them is the first after the first character, since that may be a
/// space itself.
fn split_merge(entry: &str) -> Option<(&str, &str)> {
    let first = entry.chars().next()?.len_utf8();
    let space = first + entry[first..].find(' ')?;
    let (left, right) = (&entry[..space], &entry[space + 1..]);
    (!right.is_empty()).then_some((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_two_texts_with_a_space_between_them() {
        assert_eq!(split_merge("a b"), Some(("a", "b")));
        assert_eq!(split_merge("  b"), Some((" ", "b")));
        assert_eq!(split_merge("ÄÖ ü"), Some(("ÄÖ", "ü")));
        for malformed in ["", "a", "a ", " a", "ab"] {
            assert_eq!(split_merge(malformed), None, "{malformed:?}");
        }
    }
}
