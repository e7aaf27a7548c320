//! Places of a word that no merge crosses, so that its parts can be encoded one by one.
//!
//! A merge makes the text of its result, so that it crosses a boundary between two characters only where some result
//! holds that boundary: these two characters, or, where symbols are bytes, the end of the one and the beginning of the
//! other. Both are collected when the vocabulary is read. The merges on the two sides of a boundary that none crosses do
//! not see each other: their order within each side is that of the ranks, and the result is the same as for the whole.
//!
//! Pairs of characters are kept as bits at their hash. Two pairs that share a bit cost a cut, never a wrong one.

/// Bits of the set of pairs, as a power of two: 128 KiB. The largest vocabularies have about 100,000 pairs.
const PAIR_BITS: u32 = 20;

/// Which neighbours stand side by side in the results of merges.
#[derive(Debug)]
pub(crate) struct Cuts {
    /// Two characters of ASCII.
    ascii: Box<[u64; 256]>,
    /// Other whole characters, by their hash.
    pairs: Vec<u64>,
    /// The last byte of a character and the first one of the next, where a result holds not all of both.
    bytes: Vec<u64>,
    /// What a space counts as.
    space: char,
}

fn bit(place: usize) -> (usize, u64) {
    (place / 64, 1 << (place % 64))
}

/// The place of two characters of ASCII, which have seven bits each.
fn ascii_place(left: char, right: char) -> (usize, u64) {
    bit((left as usize & 0x7f) << 7 | right as usize & 0x7f)
}

fn pair_place(left: char, right: char) -> usize {
    let both = u64::from(u32::from(left)) << 32 | u64::from(u32::from(right));
    (both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PAIR_BITS)) as usize
}

impl Cuts {
    /// No results yet: every boundary is a cut. A space counts as `space`.
    pub(crate) fn new(space: char) -> Self {
        Self {
            ascii: Box::new([0; 256]),
            pairs: vec![0; (1 << PAIR_BITS) / 64],
            bytes: vec![0; (1 << 16) / 64],
            space,
        }
    }

    /// Adds the text of a result, which may begin and end inside a character.
    pub(crate) fn add(&mut self, text: &[u8]) {
        for at in 1..text.len() {
            if is_continuation(text[at]) {
                continue;
            }
            match (last_char(&text[..at]), first_char(&text[at..])) {
                (Some(left), Some(right)) => self.add_pair(left, right),
                _ => {
                    let (word, bit) = bit(usize::from(text[at - 1]) << 8 | usize::from(text[at]));
                    self.bytes[word] |= bit;
                }
            }
        }
    }

    fn add_pair(&mut self, left: char, right: char) {
        if left.is_ascii() && right.is_ascii() {
            let (word, bit) = ascii_place(left, right);
            self.ascii[word] |= bit;
        } else {
            let (word, bit) = bit(pair_place(left, right));
            self.pairs[word] |= bit;
        }
    }

    /// Whether a result may hold these neighbours; `bytes` are the last one of `left` and the first one of `right`.
    fn may_join(&self, left: char, right: char, bytes: [u8; 2]) -> bool {
        if left.is_ascii() && right.is_ascii() {
            let (word, bit) = ascii_place(left, right);
            return self.ascii[word] & bit != 0;
        }
        let (word, partial) = bit(usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
        let (pair_word, pair) = bit(pair_place(left, right));
        self.pairs[pair_word] & pair != 0 || self.bytes[word] & partial != 0
    }

    /// Calls `part(start, end)` for each part of a text.
    pub(crate) fn each_part(&self, text: &str, mut part: impl FnMut(usize, usize)) {
        let counted = |c| if c == ' ' { self.space } else { c };
        let bytes = text.as_bytes();
        let mut chars = text.char_indices();
        let Some((_, first)) = chars.next() else { return };
        let (mut left, mut start) = (counted(first), 0);
        for (at, c) in chars {
            let right = counted(c);
            if !self.may_join(left, right, [bytes[at - 1], bytes[at]]) {
                part(start, at);
                start = at;
            }
            left = right;
        }
        part(start, text.len());
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The character that some bytes end with, if they hold all of it.
fn last_char(bytes: &[u8]) -> Option<char> {
    let start = bytes.iter().rposition(|&byte| !is_continuation(byte))?;
    std::str::from_utf8(&bytes[start..]).ok()?.chars().next()
}

/// The character that some bytes begin with, if they hold all of it.
fn first_char(bytes: &[u8]) -> Option<char> {
    let end = 1 + bytes[1..].iter().take_while(|&&byte| is_continuation(byte)).count();
    std::str::from_utf8(&bytes[..end]).ok()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'t>(cuts: &Cuts, text: &'t str) -> Vec<&'t str> {
        let mut parts = Vec::new();
        cuts.each_part(text, |start, end| parts.push(&text[start..end]));
        parts
    }

    #[test]
    fn a_text_is_cut_where_no_result_holds_the_boundary() {
        let mut cuts = Cuts::new(' ');
        cuts.add("abc".as_bytes());
        cuts.add("語言".as_bytes());
        assert_eq!(parts(&cuts, "abcab語言語x"), ["abc", "ab", "語言", "語", "x"]);
        assert_eq!(parts(&cuts, ""), [""; 0]);
    }

    #[test]
    fn a_result_that_ends_inside_a_character_joins_all_that_look_like_it() {
        let mut cuts = Cuts::new(' ');
        cuts.add(&"a語".as_bytes()[..2]);
        assert_eq!(parts(&cuts, "a言a"), ["a言", "a"]);
        let mut cuts = Cuts::new(' ');
        cuts.add(&"語a".as_bytes()[1..]);
        assert_eq!(parts(&cuts, "語a言a"), ["語a", "言", "a"]);
    }

    #[test]
    fn a_space_counts_as_another_character_where_it_is_written_so() {
        let mut cuts = Cuts::new('▁');
        cuts.add("▁a".as_bytes());
        assert_eq!(parts(&cuts, "b a▁a"), ["b", " a", "▁a"]);
    }
}
