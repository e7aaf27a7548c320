//! Words and the ids that they became, so that a word that comes again costs one look-up.
//!
//! A cache never changes a result: what it holds is what the merges gave for exactly these bytes, and a key holds all
//! of them. It has a fixed size, and each word has two places in it, of which the older falls to a new word, so that a
//! text of words that collide is as slow as one without a cache and no slower.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use veritas_base::TokenId;

use crate::hash::fold;
use crate::limits::MAX_IDLE_CACHES;

/// Numbers without a pattern (the fractions of the square roots of 2 and 3), so that words spread.
const MIX: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// Of the words of up to 15 bytes, those that came last: 256 KiB, which stay in the processor's second cache.
const RECENT_BITS: u32 = 12;
/// How many words of up to 15 bytes a cache holds, as a power of two: twice 2^17, 8 MiB.
const SHORT_BITS: u32 = 17;
/// The same for up to 31 bytes: 2 MiB.
const LONG_BITS: u32 = 14;

/// Of the first id of a word: the bits that hold how many ids follow. An id has 22 bits.
const COUNT_SHIFT: u32 = 28;

/// The bytes of a word and their number, and what else its ids depend on. `WORDS` is 2 or 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key<const WORDS: usize>([u64; WORDS]);

/// What the ids of equal bytes may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The bytes are a word.
    Word = 0,
    /// The bytes are a part of a word, which no merge leaves and which is no word by itself.
    Part = 1,
}

/// By length: the bits of the first 16 bytes that belong to the word.
static MASKS: [[u64; 2]; 17] = {
    let mut masks = [[0; 2]; 17];
    let mut n = 1;
    while n <= 16 {
        let mask = u128::MAX >> (8 * (16 - n));
        masks[n] = [mask as u64, (mask >> 64) as u64];
        n += 1;
    }
    masks
};

/// The first `n` bytes of `text`, at most 16, as two numbers; what lies behind them counts as zero.
fn load(text: &[u8], n: usize) -> [u64; 2] {
    let bytes = match text.first_chunk::<16>() {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; 16];
            bytes[..text.len()].copy_from_slice(text);
            bytes
        }
    };
    let both = u128::from_le_bytes(bytes);
    let mask = MASKS[n];
    [both as u64 & mask[0], (both >> 64) as u64 & mask[1]]
}

/// Length and place go to the last byte, which no word of this key reaches. The length 0 tells runs of one byte.
fn last_byte(n_bytes: usize, place: Place) -> u64 {
    (n_bytes as u64 | (place as u64) << 5) << 56
}

/// The words of up to 15 bytes, and runs of one byte.
type ShortKey = Key<2>;
/// The words of up to 31 bytes.
type LongKey = Key<4>;

impl ShortKey {
    const MAX: usize = 15;

    /// The key of the first `n` bytes of `text`, at least one and at most [`MAX`](Self::MAX).
    fn new(text: &[u8], n: usize, place: Place) -> Self {
        let [low, high] = load(text, n);
        Self([low, high | last_byte(n, place)])
    }

    /// The key of a word that is one byte again and again.
    fn of_run(word: &[u8], place: Place) -> Option<Self> {
        let (&first, rest) = word.split_first()?;
        let is_run = rest.iter().all(|&byte| byte == first);
        is_run.then(|| Self([word.len() as u64, u64::from(first) | last_byte(0, place)]))
    }
}

impl LongKey {
    const MAX: usize = 31;

    /// The key of the first `n` bytes of `text`, at least 16 and at most [`MAX`](Self::MAX).
    fn new(text: &[u8], n: usize, place: Place) -> Self {
        let [a, b] = load(text, 16);
        let [c, d] = load(&text[16..], n - 16);
        Self([a, b, c, d | last_byte(n, place)])
    }
}

/// A word of at most `N` ids. All zero is no word, since no key is.
#[derive(Clone, Copy)]
struct Entry<const WORDS: usize, const N: usize> {
    key: [u64; WORDS],
    /// The first holds the number of the others in its upper bits.
    ids: [TokenId; N],
}

/// The two words that a hash leads to, the younger first. They begin with a line of the processor's cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Set<const WORDS: usize, const N: usize>([Entry<WORDS, N>; 2]);

/// Words of one kind of key.
struct Words<const WORDS: usize, const N: usize> {
    /// A power of two.
    sets: Box<[Set<WORDS, N>]>,
    shift: u32,
}

impl<const WORDS: usize> Key<WORDS> {
    fn hash(self) -> u64 {
        let mut hash = fold(self.0[0] ^ MIX[0], self.0[1] ^ MIX[1]);
        if WORDS == 4 {
            hash = fold(self.0[2] ^ MIX[0], self.0[3] ^ MIX[1] ^ hash);
        }
        hash
    }
}

impl<const WORDS: usize, const N: usize> Entry<WORDS, N> {
    /// A word with its ids, if they are few enough.
    fn new(key: Key<WORDS>, ids: &[TokenId]) -> Option<Self> {
        if ids.is_empty() || ids.len() > N {
            return None;
        }
        let mut entry = Self { key: key.0, ids: [0; N] };
        entry.ids[..ids.len()].copy_from_slice(ids);
        entry.ids[0] |= ((ids.len() - 1) as u32) << COUNT_SHIFT;
        Some(entry)
    }

    #[inline]
    fn append_to(&self, ids: &mut Vec<TokenId>) {
        let mut found = self.ids;
        let n = (found[0] >> COUNT_SHIFT) as usize + 1;
        found[0] &= (1 << COUNT_SHIFT) - 1;
        let before = ids.len();
        // All places, of which the number is known, and then those back that are not used.
        ids.extend_from_slice(&found);
        ids.truncate(before + n);
    }
}

impl<const WORDS: usize, const N: usize> Words<WORDS, N> {
    fn new(bits: u32) -> Self {
        let empty = Set([Entry { key: [0; WORDS], ids: [0; N] }; 2]);
        Self { sets: vec![empty; 1 << bits].into(), shift: u64::BITS - bits }
    }

    #[inline]
    fn find(&self, key: Key<WORDS>, hash: u64) -> Option<&Entry<WORDS, N>> {
        let Set(entries) = &self.sets[(hash >> self.shift) as usize];
        // Which of the two it is cannot be foreseen, so that this must be no branch.
        let entry = &entries[usize::from(entries[0].key != key.0)];
        (entry.key == key.0).then_some(entry)
    }

    /// Keeps a word that is not there, instead of the older one of its set.
    fn put(&mut self, entry: Entry<WORDS, N>, hash: u64) {
        let Set([young, old]) = &mut self.sets[(hash >> self.shift) as usize];
        *old = std::mem::replace(young, entry);
    }
}

/// The words that one thread saw.
pub(crate) struct Cache {
    recent: Words<2, 4>,
    short: Words<2, 4>,
    long: Words<4, 8>,
}

impl Cache {
    fn new() -> Self {
        let [recent, short] = [RECENT_BITS, SHORT_BITS].map(Words::new);
        Self { recent, short, long: Words::new(LONG_BITS) }
    }

    /// Appends the ids of the word that is the first `n_bytes` of `text`, at least one, if it is there; whether it was.
    #[inline]
    pub(crate) fn append(
        &mut self,
        text: &[u8],
        n_bytes: usize,
        place: Place,
        ids: &mut Vec<TokenId>,
    ) -> bool {
        if n_bytes > ShortKey::MAX {
            return self.append_long(text, n_bytes, place, ids);
        }
        let key = ShortKey::new(text, n_bytes, place);
        let hash = key.hash();
        match self.recent.find(key, hash) {
            Some(entry) => {
                entry.append_to(ids);
                true
            }
            None => self.append_older(key, hash, ids),
        }
    }

    /// The same for a short key that is none of the recent ones; it becomes one.
    fn append_older(&mut self, key: ShortKey, hash: u64, ids: &mut Vec<TokenId>) -> bool {
        let Some(&entry) = self.short.find(key, hash) else { return false };
        entry.append_to(ids);
        self.recent.put(entry, hash);
        true
    }

    fn append_long(&mut self, text: &[u8], n_bytes: usize, place: Place, ids: &mut Vec<TokenId>) -> bool {
        if n_bytes > LongKey::MAX {
            let key = ShortKey::of_run(&text[..n_bytes], place);
            return key.is_some_and(|key| self.append_older(key, key.hash(), ids));
        }
        let key = LongKey::new(text, n_bytes, place);
        let Some(entry) = self.long.find(key, key.hash()) else { return false };
        entry.append_to(ids);
        true
    }

    /// Keeps the ids of a word that was not there, where it is short enough and they are few enough.
    pub(crate) fn insert(&mut self, text: &[u8], n_bytes: usize, place: Place, ids: &[TokenId]) {
        let key = match n_bytes {
            n if n <= ShortKey::MAX => Some(ShortKey::new(text, n_bytes, place)),
            n if n <= LongKey::MAX => {
                let key = LongKey::new(text, n_bytes, place);
                if let Some(entry) = Entry::new(key, ids) {
                    self.long.put(entry, key.hash());
                }
                None
            }
            _ => ShortKey::of_run(&text[..n_bytes], place),
        };
        if let Some(key) = key
            && let Some(entry) = Entry::new(key, ids)
        {
            self.short.put(entry, key.hash());
            self.recent.put(entry, key.hash());
        }
    }
}

/// The caches of a tokenizer that no thread uses at the moment.
#[derive(Default)]
pub(crate) struct Caches(Mutex<Vec<Cache>>);

impl Caches {
    /// A cache for one thread: one that is idle, or a new one.
    pub(crate) fn take(&self) -> Cache {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(Cache::new)
    }

    /// Takes a cache back.
    pub(crate) fn give(&self, cache: Cache) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_CACHES {
            idle.push(cache);
        }
    }
}

impl fmt::Debug for Caches {
    /// Says nothing of the words, which are parts of texts from outside.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caches")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_equal_where_word_and_place_are() {
        let text = b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0";
        let mut keys = HashMap::new();
        for from in 0..text.len() {
            for n in 1..=31.min(text.len() - from) {
                for place in [Place::Word, Place::Part] {
                    let key = match n {
                        ..=15 => {
                            let [a, b] = ShortKey::new(&text[from..], n, place).0;
                            [a, b, 0, 0]
                        }
                        _ => LongKey::new(&text[from..], n, place).0,
                    };
                    let word = (text[from..from + n].to_vec(), place as u8);
                    assert_eq!(*keys.entry(key).or_insert_with(|| word.clone()), word);
                }
            }
        }
        assert_eq!(ShortKey::of_run(b"aaab", Place::Word), None);
        for n in [32, 33, 1 << 20] {
            for byte in [0, 1, b'a'] {
                for place in [Place::Word, Place::Part] {
                    let [a, b] = ShortKey::of_run(&vec![byte; n], place).unwrap().0;
                    assert_eq!(keys.insert([a, b, 0, 0], (vec![], 0)), None);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in(
            words in proptest::collection::vec(
                (proptest::collection::vec(0u8..3, 1..16), proptest::collection::vec(0u32..1 << 22, 1..6)), 1..60)
        ) {
            // So few sets that words push each other out.
            let mut cache: Words<2, 4> = Words::new(3);
            let mut map: HashMap<Vec<u8>, Vec<TokenId>> = HashMap::new();
            for (word, ids) in &words {
                let key = ShortKey::new(word, word.len(), Place::Word);
                match cache.find(key, key.hash()) {
                    Some(entry) => {
                        let mut found = vec![7];
                        entry.append_to(&mut found);
                        prop_assert_eq!(&found[1..], &map[word][..]);
                    }
                    None => {
                        let entry = Entry::new(key, ids);
                        prop_assert_eq!(entry.is_some(), ids.len() <= 4);
                        if let Some(entry) = entry {
                            cache.put(entry, key.hash());
                            prop_assert!(cache.find(key, key.hash()).is_some());
                            map.insert(word.clone(), ids.clone());
                        }
                    }
                }
            }
        }
    }
}
