//! Byte-pair encoding (`tokenizer.ggml.model` "gpt2" and "gemma4"): inside each word of the pre-tokenizer, the pair
//! that stands first in the list of merges merges first.
//!
//! A merge may name texts that are no tokens (they lead to longer ones); such a text gets an id above those of the
//! tokens, and if it is left at the end it becomes its bytes.
//!
//! Most words cost one look-up, in a [cache](crate::word_cache) of what earlier ones became. A word that is too long for
//! it falls into [parts](crate::cuts) that no merge joins, which are looked up in the same way.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;
use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::byte_alphabet;
use crate::cuts::Cuts;
use crate::error::Error;
use crate::limits::MAX_MERGES;
use crate::merge::{Symbol, merge};
use crate::nfc::is_composed;
use crate::pair_table::PairTable;
use crate::pretokenize::PreTokenizer;
use crate::spm::{SPACE, push_bytes};
use crate::vocabulary::Vocabulary;
use crate::word_cache::{Cache, Caches, Place};

/// A symbol without an id: no merge knows it.
const NONE: u32 = u32::MAX;

/// What a vocabulary of this kind adds to its tokens.
#[derive(Debug)]
pub(crate) struct Bpe {
    pub(crate) pre: PreTokenizer,
    /// From two ids to the rank of their merge and the id of the result.
    merges: PairTable,
    /// Ids of the texts of merges that are no tokens.
    phantoms: HashMap<String, u32>,
    /// The id of each byte's character; not used where the words are raw.
    byte_ids: Vec<u32>,
    /// The merges of two bytes, which every new word begins with; empty where the words are raw.
    byte_pairs: Vec<Option<(u32, u32)>>,
    cuts: Cuts,
    /// Bytes of the longest token, as texts hold it.
    longest_token: usize,
    caches: Caches,
}

/// What one call needs while it encodes.
struct Work<'a> {
    bpe: &'a Bpe,
    vocabulary: &'a Vocabulary,
    cache: Cache,
    symbols: Vec<Symbol>,
    /// A word in GPT-2's alphabet.
    spelled: String,
    ids: &'a mut Vec<TokenId>,
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
        let mut merges = PairTable::with_capacity(list.len());
        let mut cuts = Cuts::new(' ');
        for (index, entry) in list.iter().enumerate() {
            let (left, right) =
                split_merge(entry).ok_or_else(|| Error::MalformedMerge { index, found: entry.clone() })?;
            let result = format!("{left}{right}");
            match pre.raw {
                true => cuts.add(result.as_bytes()),
                false => cuts.add(&byte_alphabet::bytes(&result)),
            }
            merges.insert(intern(left.into()), intern(right.into()), index as u32, intern(result.into()));
        }
        let byte_ids =
            byte_alphabet::CHARS.iter().map(|c| find(vocabulary, &phantoms, c.encode_utf8(&mut [0; 4])));
        let byte_ids: Vec<u32> = byte_ids.collect();
        let byte_pairs = match pre.raw {
            true => Vec::new(),
            false => {
                let pairs =
                    byte_ids.iter().flat_map(|&left| byte_ids.iter().map(move |&right| (left, right)));
                pairs.map(|(left, right)| merges.find_pair(left, right)).collect()
            }
        };
        let lengths = (0..vocabulary.len() as TokenId).map(|id| vocabulary.text(id));
        // In GPT-2's alphabet each character is a byte.
        let lengths = lengths.map(|text| if pre.raw { text.len() } else { text.chars().count() });
        let longest_token = lengths.max().unwrap_or_default();
        Ok(Self {
            pre,
            merges,
            phantoms,
            byte_ids,
            byte_pairs,
            cuts,
            longest_token,
            caches: Caches::default(),
        })
    }

    /// Appends the ids of a stretch of text.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), Error> {
        let mut text = Cow::Borrowed(text);
        if self.pre.nfc && !is_composed(&text) {
            text = text.nfc().collect::<String>().into();
        }
        if self.pre.raw {
            text = text.replace(' ', SPACE.encode_utf8(&mut [0; 4])).into();
        }
        let cache = self.caches.take();
        let mut work =
            Work { bpe: self, vocabulary, cache, symbols: Vec::new(), spelled: String::new(), ids };
        let mut failed = None;
        self.pre.words(&text, |rest, n_bytes| {
            if failed.is_none() {
                failed = work.word(rest, n_bytes).err();
            }
        });
        self.caches.give(work.cache);
        failed.map_or(Ok(()), Err)
    }
}

impl Work<'_> {
    /// Appends the ids of the word that is the first `n_bytes` of `rest`.
    fn word(&mut self, rest: &str, n_bytes: usize) -> Result<(), Error> {
        if self.cache.append(rest.as_bytes(), n_bytes, Place::Word, self.ids) {
            return Ok(());
        }
        let before = self.ids.len();
        self.new_word(&rest[..n_bytes])?;
        self.cache.insert(rest.as_bytes(), n_bytes, Place::Word, &self.ids[before..]);
        Ok(())
    }

    /// The same for a word that is not in the cache.
    fn new_word(&mut self, word: &str) -> Result<(), Error> {
        if let Some(id) = self.whole_word(word) {
            self.ids.push(id);
            return Ok(());
        }
        let mut after_unknown = false;
        let bpe = self.bpe;
        let mut failed = None;
        bpe.cuts.each_part(word, |start, end| {
            if failed.is_none() {
                let part = if end - start == word.len() {
                    self.merges(word, &mut after_unknown)
                } else {
                    self.part(&word[start..], end - start, &mut after_unknown)
                };
                failed = part.err();
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Appends the ids of a part of a word, the first `n_bytes` of `rest`. `after_unknown` is whether the last id is the
    /// unknown token and stands for what no token covers.
    fn part(&mut self, rest: &str, n_bytes: usize, after_unknown: &mut bool) -> Result<(), Error> {
        if self.cache.append(rest.as_bytes(), n_bytes, Place::Part, self.ids) {
            *after_unknown = false;
            return Ok(());
        }
        let (before, was_unknown) = (self.ids.len(), *after_unknown);
        self.merges(&rest[..n_bytes], after_unknown)?;
        // The ids of an unknown text depend on what stands beside it.
        if !was_unknown && !*after_unknown && !self.ids[before..].iter().any(|&id| self.is_unknown(id)) {
            self.cache.insert(rest.as_bytes(), n_bytes, Place::Part, &self.ids[before..]);
        }
        Ok(())
    }

    fn is_unknown(&self, id: TokenId) -> bool {
        self.vocabulary.specials.unk == Some(id)
    }

    /// Appends the ids that the merges make of a text.
    fn merges(&mut self, text: &str, after_unknown: &mut bool) -> Result<(), Error> {
        let Self { bpe, vocabulary, symbols, ids, .. } = self;
        symbols.clear();
        if bpe.pre.raw {
            symbols.extend(text.char_indices().map(|(start, c)| Symbol {
                id: find(vocabulary, &bpe.phantoms, c.encode_utf8(&mut [0; 4])),
                start: start as u32,
                end: (start + c.len_utf8()) as u32,
            }));
        } else {
            symbols.extend(text.bytes().enumerate().map(|(start, byte)| Symbol {
                id: bpe.byte_ids[usize::from(byte)],
                start: start as u32,
                end: start as u32 + 1,
            }));
        }
        let bytes = text.as_bytes();
        merge(symbols, |left, right| {
            if right.end - left.start == 2 && !bpe.pre.raw {
                let [left, right] = [bytes[left.start as usize], bytes[right.start as usize]];
                return bpe.byte_pairs[usize::from(left) << 8 | usize::from(right)];
            }
            bpe.merges.find_pair(left.id, right.id)
        });

        for symbol in symbols.iter() {
            let (start, end) = (symbol.start as usize, symbol.end as usize);
            if (symbol.id as usize) < vocabulary.len() {
                ids.push(symbol.id);
                *after_unknown = false;
            } else if bpe.pre.raw {
                *after_unknown = push_bytes(vocabulary, &text[start..end], *after_unknown, ids)?;
            } else {
                for &byte in &text.as_bytes()[start..end] {
                    let id = bpe.byte_ids[usize::from(byte)];
                    let id = ((id as usize) < vocabulary.len()).then_some(id);
                    ids.push(id.or(vocabulary.specials.unk).ok_or(Error::NoTokenForByte { byte })?);
                }
            }
        }
        Ok(())
    }

    /// The token that a word is without any merge, where the rule says so.
    fn whole_word(&mut self, word: &str) -> Option<TokenId> {
        if word.len() > self.bpe.longest_token {
            return None;
        }
        if self.bpe.pre.raw {
            // Gemma 4 has tokens for runs of line breaks that its merges do not lead to.
            return if word.starts_with('\n') { self.vocabulary.plain_id(word) } else { None };
        }
        if !self.bpe.pre.ignore_merges {
            return None;
        }
        self.spelled.clear();
        self.spelled.extend(word.bytes().map(|byte| byte_alphabet::CHARS[usize::from(byte)]));
        self.vocabulary.plain_id(&self.spelled)
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
    use proptest::prelude::*;

    use super::*;
    use crate::special::Defaults;

    /// The ids by the definition: each word by itself, without a cache and without parts.
    fn encode_obviously(bpe: &Bpe, vocabulary: &Vocabulary, text: &str) -> Vec<TokenId> {
        let text = if bpe.pre.raw { text.replace(' ', "▁") } else { text.to_owned() };
        let mut ids = Vec::new();
        let mut work = Work {
            bpe,
            vocabulary,
            cache: bpe.caches.take(),
            symbols: Vec::new(),
            spelled: String::new(),
            ids: &mut ids,
        };
        bpe.pre.words(&text, |rest, n_bytes| {
            let word = &rest[..n_bytes];
            match work.whole_word(word) {
                Some(id) => work.ids.push(id),
                None => work.merges(word, &mut false).unwrap(),
            }
        });
        ids
    }

    /// A vocabulary of the bytes or characters of `TEXT` and the results of merges, each of two earlier texts. Every
    /// fifth result is no token, every seventh token has no merge.
    fn vocabulary(pre: &str, merges: &[(usize, usize)]) -> (Vocabulary, Bpe) {
        let pre = PreTokenizer::from_name(pre).unwrap();
        let mut texts: Vec<String> = vec!["<unk>".into()];
        if pre.raw {
            texts.extend("abcde\n語言▁".chars().map(String::from));
        } else {
            texts.extend(byte_alphabet::CHARS.iter().map(|&c| c.to_string()));
        }
        let base = texts.len();
        let mut tokens = texts.clone();
        let mut list = Vec::new();
        for (n, &(left, right)) in merges.iter().enumerate() {
            let part = |at: usize| texts[1 + at % (texts.len() - 1)].clone();
            let (left, right) = (part(left), part(right));
            let result = format!("{left}{right}");
            if result.chars().count() > 24 || texts.contains(&result) {
                continue;
            }
            if n % 7 != 6 {
                list.push(format!("{left} {right}"));
            }
            if n % 5 != 4 {
                tokens.push(result.clone());
            }
            texts.push(result);
        }
        assert!(tokens.len() >= base);
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.tokens", tokens).unwrap();
        metadata.insert("tokenizer.ggml.merges", list).unwrap();
        metadata.insert("tokenizer.ggml.unknown_token_id", 0u32).unwrap();
        let vocabulary = Vocabulary::read(&metadata, Defaults::default()).unwrap();
        let bpe = Bpe::read(&metadata, &vocabulary, pre).unwrap();
        (vocabulary, bpe)
    }

    const TEXT: &str = "aabbcde  \n語言語é";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn parts_and_caches_do_not_change_the_ids(
            merges in proptest::collection::vec((0usize..400, 0usize..400), 0..120),
            // Mostly letters and the bytes of the other characters.
            near in proptest::collection::vec((0usize..40, 0usize..40), 0..60),
            texts in proptest::collection::vec(
                proptest::collection::vec(proptest::sample::select(TEXT.chars().collect::<Vec<_>>()), 0..120),
                4,
            ),
        ) {
            let near = near.iter().map(|&(left, right)| (97 + left % 6, 97 + right % 6));
            let near: Vec<_> = near.chain(merges.iter().copied()).collect();
            for (pre, merges) in [("gpt-2", &near), ("llama-bpe", &near), ("gemma4", &merges)] {
                let (vocabulary, bpe) = vocabulary(pre, merges);
                for text in texts.iter().chain(&texts) {
                    let text: String = text.iter().collect();
                    let mut ids = Vec::new();
                    bpe.encode(&vocabulary, &text, &mut ids).unwrap();
                    prop_assert_eq!(ids, encode_obviously(&bpe, &vocabulary, &text), "{} {:?}", pre, text);
                }
            }
        }
    }

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
