//! The control tokens of a vocabulary: where a text names them, and where a string could be a part of one.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::limits::MAX_SPLIT_CONTROL_BYTES;

/// Finds control tokens, and where strings could be a part of one.
pub(super) struct Controls {
    /// Every occurrence in a string, in any case of ASCII letters.
    anywhere: AhoCorasick,
    /// Those that a tokenizer would find in a text: the leftmost, and of these the longest.
    leftmost_longest: AhoCorasick,
    /// The control tokens in lower case, in the order given.
    lower: Vec<String>,
    /// The same, sorted.
    sorted: Vec<String>,
    /// The same backwards.
    sorted_reversed: Vec<String>,
    /// The characters that begin one, in both cases.
    first_chars: BTreeSet<char>,
}

impl Controls {
    /// `None` if there are no control tokens, or so many that they cannot be searched for; the reader's limits on
    /// vocabularies are far below that.
    pub(super) fn new(controls: &[&str]) -> Option<Self> {
        let controls = controls.iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        if controls.is_empty() {
            return None;
        }
        let anywhere = AhoCorasick::builder().ascii_case_insensitive(true).build(&controls).ok()?;
        let leftmost_longest =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&controls).ok()?;
        let lower = controls.iter().map(|text| text.to_lowercase()).collect::<Vec<_>>();
        let mut sorted = lower.clone();
        let mut sorted_reversed =
            sorted.iter().map(|text| text.chars().rev().collect()).collect::<Vec<String>>();
        sorted.sort();
        sorted_reversed.sort();
        let firsts = controls.iter().filter_map(|text| text.chars().next());
        let first_chars = firsts.flat_map(|c| c.to_lowercase().chain(c.to_uppercase()).chain([c])).collect();
        Some(Self { anywhere, leftmost_longest, lower, sorted, sorted_reversed, first_chars })
    }

    /// The control tokens that a text names, in order.
    pub(super) fn in_order(&self, text: &str) -> Vec<usize> {
        self.leftmost_longest.find_iter(text).map(|found| found.pattern().as_usize()).collect()
    }

    /// The insides of the control tokens that a text names.
    pub(super) fn insides_of_those_in(&self, text: &str) -> Insides<'_> {
        let named = self.in_order(text).into_iter().collect::<BTreeSet<_>>();
        let named = named.into_iter().map(|index| self.lower[index].as_str());
        let mut tails = Vec::new();
        for control in named.filter(|control| control.len() <= MAX_SPLIT_CONTROL_BYTES) {
            let mut chars = control.chars();
            chars.next_back();
            let but_last = chars.as_str();
            tails.extend(but_last.char_indices().skip(1).map(|(at, _)| &but_last[at..]));
        }
        tails.sort_unstable();
        Insides { tails }
    }

    /// Where the guard goes so that no stretch of the string is a control token or completes one.
    pub(super) fn light_places(&self, text: &str) -> BTreeSet<usize> {
        let mut places = BTreeSet::new();
        for found in self.anywhere.find_overlapping_iter(text) {
            let first = text[found.start()..].chars().next().map_or(1, char::len_utf8);
            // After the first character; a control token of one character has the guard behind it.
            places.insert(found.start() + first);
        }
        let core_end = text.trim_end().len();
        let core_start = text.len() - text.trim_start().len();
        if core_start < core_end {
            let core = &text[core_start..core_end];
            if ends_with_beginning(core.char_indices().rev().map(|(at, _)| &core[at..]), &self.sorted) {
                places.insert(core_end);
            }
            let reversed = core.chars().take(MAX_SPLIT_CONTROL_BYTES).collect::<Vec<_>>();
            let reversed = reversed.into_iter().rev().collect::<String>();
            let tails = reversed.char_indices().rev().map(|(at, _)| &reversed[at..]);
            if ends_with_beginning(tails, &self.sorted_reversed) {
                places.insert(core_start);
            }
        }
        places
    }

    /// The same, and both sides of every character that begins a control token.
    pub(super) fn heavy_places(&self, text: &str) -> BTreeSet<usize> {
        let mut places = self.light_places(text);
        let firsts = text.char_indices().filter(|(_, c)| self.first_chars.contains(c));
        places.extend(firsts.flat_map(|(at, c)| [at, at + c.len_utf8()]));
        places
    }
}

/// What lies inside some control tokens: every stretch but those that begin or end one.
pub(super) struct Insides<'a> {
    /// Every end of a control token without its last character, sorted.
    tails: Vec<&'a str>,
}

impl Insides<'_> {
    /// Whether `text` lies inside one of them, in any case of letters.
    pub(super) fn have(&self, text: &str) -> bool {
        if text.is_empty() || text.len() > MAX_SPLIT_CONTROL_BYTES {
            return false;
        }
        let text = text.to_lowercase();
        let at = self.tails.partition_point(|tail| *tail < text.as_str());
        self.tails.get(at).is_some_and(|tail| tail.starts_with(&text))
    }
}

/// Whether one of the `tails` of a string, the shortest first, is a beginning of one of the `sorted` texts, but not all
/// of it.
fn ends_with_beginning<'a>(tails: impl Iterator<Item = &'a str>, sorted: &[String]) -> bool {
    for tail in tails.take_while(|tail| tail.len() <= MAX_SPLIT_CONTROL_BYTES) {
        let tail = tail.to_lowercase();
        let at = sorted.partition_point(|text| *text <= tail);
        if sorted.get(at).is_some_and(|text| text.starts_with(&tail)) {
            return true;
        }
    }
    false
}
