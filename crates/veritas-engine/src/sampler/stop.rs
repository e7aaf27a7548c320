//! Stop strings in a stream whose pieces break anywhere.
//!
//! The definition: let T be the whole text. The stream stops at the smallest end of an occurrence of any stop string
//! in T, and what is given out is T up to the start of that occurrence (of the longest, if several end there). This
//! does not depend on how T is cut into pieces. Nothing is given out that might still turn out to belong to a stop
//! string: the longest suffix that begins one is held back.

use super::error::Error;
use super::limits::{MAX_STOP_BYTES, MAX_STOP_STRINGS};

/// Watches a stream of text for stop strings. See the module for the exact definition.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    matched: Option<usize>,
}

/// Checks the number and the lengths of stop strings.
pub(super) fn validate(stops: &[String]) -> Result<(), Error> {
    let out_of_range = |value, expected| Error::OutOfRange { name: "stop", value, expected };
    if stops.len() > MAX_STOP_STRINGS {
        return Err(out_of_range(format!("a list of {} strings", stops.len()), "at most 64 strings"));
    }
    match stops.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
        Some(s) => Err(out_of_range(format!("a string of {} bytes", s.len()), "strings of 1 to 1024 bytes")),
        None => Ok(()),
    }
}

impl StopMatcher {
    /// A matcher for any of `stops`; none is allowed, and then every text passes at once.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for an empty or overlong string, or for too many.
    pub fn new(stops: &[String]) -> Result<Self, Error> {
        validate(stops)?;
        Ok(Self { stops: stops.to_vec(), held: String::new(), matched: None })
    }

    /// Takes the next piece of text and returns the text that is now certain to stand before any stop string. After a
    /// match nothing more comes out.
    pub fn push(&mut self, text: &str) -> String {
        if self.matched.is_some() {
            return String::new();
        }
        let seen = self.held.len(); // no stop string ends inside what is held: it would have matched
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_match(seen) {
            self.matched = Some(stop);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let tail = self.held.split_off(self.hold_from());
        std::mem::replace(&mut self.held, tail)
    }

    /// The index of the stop string that ended the stream.
    pub fn matched(&self) -> Option<usize> {
        self.matched
    }

    /// The end of the stream: what was held back and begins no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the stop string that ends first, among ends after `seen`; of those the longest.
    fn first_match(&self, seen: usize) -> Option<(usize, usize)> {
        let bytes = self.held.as_bytes();
        (seen + 1..=bytes.len()).find_map(|end| {
            let ends_here = |stop: &String| bytes[..end].ends_with(stop.as_bytes());
            let (index, stop) = self
                .stops
                .iter()
                .enumerate()
                .filter(|(_, s)| ends_here(s))
                .max_by_key(|(i, s)| (s.len(), usize::MAX - i))?;
            Some((end - stop.len(), index))
        })
    }

    /// Where the longest suffix begins that is a proper prefix of a stop string; the length if none does. Always a
    /// character boundary, since a stop string begins with one.
    fn hold_from(&self) -> usize {
        let bytes = self.held.as_bytes();
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = (bytes.len() + 1).saturating_sub(longest.max(1));
        let begins_stop = |&at: &usize| self.stops.iter().any(|s| s.as_bytes().starts_with(&bytes[at..]));
        (first..bytes.len()).find(begins_stop).unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, on the whole text at once.
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in 1..=text.len() {
            for start in 0..end {
                if stops.iter().any(|s| text.as_bytes()[start..end] == *s.as_bytes()) {
                    return (text[..start].to_owned(), true);
                }
            }
        }
        (text.to_owned(), false)
    }

    fn matcher(stops: &[&str]) -> StopMatcher {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        StopMatcher::new(&stops).expect("valid stop strings")
    }

    #[test]
    fn a_stop_string_across_three_pieces_is_cut_out_whole() {
        let mut m = matcher(&["<|end|>"]);
        assert_eq!(m.push("Hello <|"), "Hello ");
        assert_eq!(m.push("en"), "");
        assert_eq!(m.matched(), None);
        assert_eq!(m.push("d|> more"), "");
        assert_eq!(m.matched(), Some(0));
        assert_eq!(m.push("after"), "");
        assert_eq!(m.finish(), "");
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_released() {
        let mut m = matcher(&["aab"]);
        assert_eq!(m.push("aa"), "");
        assert_eq!(m.push("a"), "a"); // "aa" may still become "aab"
        assert_eq!(m.push("c"), "aac");
        assert_eq!(m.push("a"), "");
        assert_eq!(m.finish(), "a");
        assert_eq!(m.matched(), None);
    }

    #[test]
    fn a_short_stop_string_inside_a_longer_one_ends_the_stream_first() {
        let mut m = matcher(&["abc", "b"]);
        assert_eq!(m.push("xabc"), "xa");
        assert_eq!(m.matched(), Some(1));
    }

    #[test]
    fn without_stop_strings_everything_passes_at_once() {
        let mut m = matcher(&[]);
        assert_eq!(m.push("für"), "für");
        assert_eq!(m.finish(), "");
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert!(matches!(StopMatcher::new(&[String::new()]), Err(Error::OutOfRange { name: "stop", .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_cutting_of_the_text_gives_the_naive_answer(
            stops in prop::collection::vec("[abé]{1,5}", 0..5),
            pieces in prop::collection::vec("[abcé]{0,4}", 0..12),
        ) {
            let mut m = StopMatcher::new(&stops).expect("valid stop strings");
            let mut out = String::new();
            for piece in &pieces {
                out += &m.push(piece);
            }
            let held = m.finish();
            prop_assert!(stops.iter().all(|s| !s.is_empty() && held.len() < s.len().max(21)));
            out += &held;
            let (want, stopped) = naive(&pieces.concat(), &stops);
            prop_assert_eq!(&out, &want);
            prop_assert_eq!(m.matched().is_some(), stopped);
        }

        #[test]
        fn as_much_is_given_out_as_can_be(
            stops in prop::collection::vec("[ab]{1,4}", 1..4),
            text in "[ab]{0,12}",
        ) {
            let mut m = StopMatcher::new(&stops).expect("valid stop strings");
            let out = m.push(&text);
            if m.matched().is_none() {
                let held = &text[out.len()..];
                // What is held begins a stop string, and nothing longer at the end of the text does.
                prop_assert!(held.is_empty() || stops.iter().any(|s| s.starts_with(held)));
                for at in 0..out.len() {
                    prop_assert!(!stops.iter().any(|s| s.starts_with(&text[at..])));
                }
            }
        }
    }
}
