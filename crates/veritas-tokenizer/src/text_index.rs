//! The texts of the tokens, and two ways to find one: the id of a whole text, and the tokens that a text begins
//! with.
//!
//! All texts lie in one string. [`TextIndex`] is an open-addressing table of ids, hashed with a random key, so that
//! no vocabulary can make it slow; [`Prefixes`] is the ids in the order of their bytes: a search narrows the range
//! byte by byte as a trie would, without the memory of one.

use std::ops::Range;

use veritas_base::TokenId;

use crate::hash::Seed;

/// The texts of all tokens, by id.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    all: String,
    /// Ends of the texts in `all`.
    ends: Vec<u32>,
}

impl Texts {
    /// Room for `n` texts of `bytes` bytes together, which must fit in 32 bits.
    pub(crate) fn with_capacity(n: usize, bytes: usize) -> Self {
        Self { all: String::with_capacity(bytes), ends: Vec::with_capacity(n) }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len() as u32);
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of token `id`, which must be in the vocabulary.
    pub(crate) fn text(&self, id: TokenId) -> &str {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.all[start..self.ends[id] as usize]
    }
}

/// A free place of the table.
const FREE: u32 = u32::MAX;

/// From a text to its id, for some of the tokens.
#[derive(Debug)]
pub(crate) struct TextIndex {
    /// A power of two places, at most half of them taken.
    places: Vec<u32>,
    seed: Seed,
}

impl TextIndex {
    /// An index of the tokens `ids`.
    ///
    /// # Errors
    /// The two ids that have the same text, the lower first.
    pub(crate) fn new(
        texts: &Texts,
        ids: impl ExactSizeIterator<Item = TokenId>,
    ) -> Result<Self, (TokenId, TokenId)> {
        let n_places = (2 * ids.len()).next_power_of_two().max(2);
        let mut index = Self { places: vec![FREE; n_places], seed: Seed::random() };
        for id in ids {
            match index.find(texts, texts.text(id)) {
                Ok(first) => return Err((first.min(id), first.max(id))),
                Err(place) => index.places[place] = id,
            }
        }
        Ok(index)
    }

    /// The id of the token with this text.
    pub(crate) fn id(&self, texts: &Texts, text: &str) -> Option<TokenId> {
        self.find(texts, text).ok()
    }

    /// The id, or the place where it would stand.
    fn find(&self, texts: &Texts, text: &str) -> Result<TokenId, usize> {
        let mask = self.places.len() - 1;
        let mut place = self.seed.bytes(text.as_bytes()) as usize & mask;
        loop {
            match self.places[place] {
                FREE => return Err(place),
                id if texts.text(id) == text => return Ok(id),
                _ => place = (place + 1) & mask,
            }
        }
    }
}

/// Which tokens a text begins with, for some of the tokens.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// In the order of their bytes.
    ids: Vec<TokenId>,
    /// Where the texts that begin with a byte start in `ids`; the last entry is the end.
    by_first: Vec<u32>,
    /// The bytes that a text begins with, ascending.
    firsts: Vec<u8>,
}

/// Bytes that are looked at together where only a few of them are of interest.
const CHUNK: usize = 64;

impl Prefixes {
    /// An index of the tokens `ids` whose text is not empty.
    pub(crate) fn new(texts: &Texts, ids: impl Iterator<Item = TokenId>) -> Self {
        let mut ids: Vec<TokenId> = ids.filter(|&id| !texts.text(id).is_empty()).collect();
        ids.sort_unstable_by(|&a, &b| texts.text(a).cmp(texts.text(b)));
        let first = |id: TokenId| u16::from(texts.text(id).as_bytes()[0]);
        let by_first: Vec<u32> =
            (0..=256).map(|byte| ids.partition_point(|&id| first(id) < byte) as u32).collect();
        let firsts = (0..=255).filter(|&byte| by_first[usize::from(byte)] < by_first[usize::from(byte) + 1]);
        let firsts = firsts.collect();
        Self { ids, by_first, firsts }
    }

    /// Where in `text` the next byte stands that one of the tokens begins with.
    pub(crate) fn next_candidate(&self, text: &[u8]) -> Option<usize> {
        // Comparisons with constants of a chunk without an exit become vector instructions.
        match *self.firsts {
            [] => None,
            [a] => find_in_chunks(text, |byte| byte == a),
            [a, b] => find_in_chunks(text, |byte| (byte == a) | (byte == b)),
            [a, b, c] => find_in_chunks(text, |byte| (byte == a) | (byte == b) | (byte == c)),
            _ => text.iter().position(|&byte| {
                let byte = usize::from(byte);
                self.by_first[byte] < self.by_first[byte + 1]
            }),
        }
    }

    /// Calls `found(bytes, id)` for every token that `text` begins with, the shortest first.
    pub(crate) fn each(&self, texts: &Texts, text: &[u8], mut found: impl FnMut(usize, TokenId)) {
        let Some(&first) = text.first() else { return };
        let start = |byte: usize| self.by_first[byte] as usize;
        let mut range = start(first.into())..start(usize::from(first) + 1);
        for depth in 1.. {
            // Of the texts that agree in the first `depth` bytes, one that ends there sorts first.
            while !range.is_empty() && texts.text(self.ids[range.start]).len() == depth {
                found(depth, self.ids[range.start]);
                range.start += 1;
            }
            let Some(&byte) = text.get(depth) else { return };
            range = self.narrow(texts, range, depth, byte);
            if range.is_empty() {
                return;
            }
        }
    }

    /// The longest token that `text` begins with: its length in bytes and its id.
    pub(crate) fn longest(&self, texts: &Texts, text: &[u8]) -> Option<(usize, TokenId)> {
        let mut longest = None;
        self.each(texts, text, |bytes, id| longest = Some((bytes, id)));
        longest
    }

    /// The part of `range` whose texts have `byte` at `depth`. All texts of it are longer than `depth`.
    fn narrow(&self, texts: &Texts, range: Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let ids = &self.ids[range.clone()];
        let at = |id: &TokenId| texts.text(*id).as_bytes()[depth];
        let start = ids.partition_point(|id| at(id) < byte);
        let end = start + ids[start..].partition_point(|id| at(id) == byte);
        range.start + start..range.start + end
    }
}

/// Where the first byte stands that satisfies `is`.
pub(crate) fn find_in_chunks(text: &[u8], is: impl Fn(u8) -> bool) -> Option<usize> {
    let (chunks, _) = text.as_chunks::<CHUNK>();
    let in_chunk = |chunk: &[u8; CHUNK]| chunk.iter().fold(false, |found, &byte| found | is(byte));
    let start = CHUNK * chunks.iter().position(in_chunk).unwrap_or(chunks.len());
    text[start..].iter().position(|&byte| is(byte)).map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Texts {
        let mut texts = Texts::with_capacity(list.len(), 16);
        list.iter().for_each(|text| texts.push(text));
        texts
    }

    #[test]
    fn every_text_is_found_and_no_other() {
        let list: Vec<String> = (0..1000).map(|i| format!("t{i}")).collect();
        let texts = texts(&list.iter().map(String::as_str).collect::<Vec<_>>());
        let index = TextIndex::new(&texts, (0..500).collect::<Vec<_>>().into_iter()).unwrap();
        for (id, text) in list.iter().enumerate() {
            assert_eq!(index.id(&texts, text), (id < 500).then_some(id as u32));
        }
        assert_eq!(index.id(&texts, ""), None);
    }

    #[test]
    fn two_tokens_of_one_text_are_refused() {
        let texts = texts(&["a", "b", "a"]);
        let ids: Vec<u32> = vec![0, 1, 2];
        assert_eq!(TextIndex::new(&texts, ids.into_iter()).unwrap_err(), (0, 2));
    }

    #[test]
    fn the_next_candidate_is_found_wherever_it_stands() {
        for n_firsts in 0..6 {
            let list: Vec<String> = (0..n_firsts).map(|i| format!("{}x", (b'A' + i) as char)).collect();
            let texts = texts(&list.iter().map(String::as_str).collect::<Vec<_>>());
            let prefixes = Prefixes::new(&texts, 0..u32::from(n_firsts));
            for at in 0..200 {
                let mut text = [b'x'; 200];
                assert_eq!(prefixes.next_candidate(&text), None);
                text[at..].fill(b'A' + at as u8 % n_firsts.max(1));
                assert_eq!(prefixes.next_candidate(&text), (n_firsts > 0).then_some(at));
            }
        }
    }

    #[test]
    fn prefixes_come_shortest_first() {
        let texts = texts(&["abc", "", "a", "ab", "b", "abd", "ac"]);
        let prefixes = Prefixes::new(&texts, 0..7);
        let mut found = Vec::new();
        prefixes.each(&texts, b"abcd", |bytes, id| found.push((bytes, id)));
        assert_eq!(found, [(1, 2), (2, 3), (3, 0)]);
        assert_eq!(prefixes.longest(&texts, b"ax"), Some((1, 2)));
        assert_eq!(prefixes.longest(&texts, b"x"), None);
        assert_eq!(prefixes.longest(&texts, b""), None);
    }
}
