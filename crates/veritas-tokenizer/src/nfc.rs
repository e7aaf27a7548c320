//! Whether a text is in Unicode's normalization form C, with little work for the characters of most texts.
//!
//! A text is the concatenation of normal forms where each part begins with a character that neither composes with what
//! stands before it nor is reordered (UAX #15, section 9). All characters below U+0300 are of that kind, so that only
//! stretches around higher ones need a look.

use unicode_normalization::is_nfc;

use crate::text_index::find_in_chunks;

/// The first byte of U+0300 in UTF-8; lower characters have lower first bytes, and no later byte of a character is as
/// high.
const FIRST_HIGH_BYTE: u8 = 0xcc;

/// Whether a text is its own normal form.
pub(crate) fn is_composed(text: &str) -> bool {
    let mut rest = text;
    while let Some(high) = find_in_chunks(rest.as_bytes(), |byte| byte >= FIRST_HIGH_BYTE) {
        let end = rest.as_bytes()[high..].iter().position(u8::is_ascii).map_or(rest.len(), |n| high + n);
        if !rest[high..end].chars().all(is_stable) {
            // What stands before may compose with the first of the stretch.
            let start = rest[..high].char_indices().next_back().map_or(high, |(at, _)| at);
            if !is_nfc(&rest[start..end]) {
                return false;
            }
        }
        rest = &rest[end..];
    }
    true
}

/// Whether a character never changes in form C, and nothing before it does because of it. Some blocks of large scripts,
/// not all that there are.
fn is_stable(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{2ff}'
            | '\u{400}'..='\u{482}'
            | '\u{48a}'..='\u{52f}'
            | '\u{620}'..='\u{64a}'
            | '\u{2010}'..='\u{2027}'
            | '\u{3001}'..='\u{3029}'
            | '\u{3041}'..='\u{3096}'
            | '\u{30a1}'..='\u{30ff}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{ff01}'..='\u{ff5e}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::char::canonical_combining_class;
    use unicode_normalization::{IsNormalized, is_nfc_quick};

    use super::*;

    #[test]
    fn stable_characters_pass_the_quick_check_and_are_never_reordered() {
        let mut n_stable = 0;
        for c in (0..=0x10ffff).filter_map(char::from_u32).filter(|&c| is_stable(c)) {
            assert_eq!(is_nfc_quick([c].into_iter()), IsNormalized::Yes, "{c:?}");
            assert_eq!(canonical_combining_class(c), 0, "{c:?}");
            n_stable += 1;
        }
        assert!(n_stable > 30_000);
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_the_whole_text(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("a"), Just("é"), Just("e"), Just("\u{301}"), Just("\u{323}"), Just("й"), Just("и"),
                    Just("\u{306}"), Just("語"), Just("\u{3099}"), Just("か"), Just("한"), Just("\u{1100}"),
                    Just("\u{1161}"), Just("\u{11a8}"), Just("\u{212b}"), Just("\u{f900}"), Just(" "),
                    Just("0123456789012345678901234567890123456789012345678901234567890123456789"),
                ],
                0..12,
            ),
            any in any::<String>(),
        ) {
            for text in [parts.concat(), any] {
                prop_assert_eq!(is_composed(&text), is_nfc(&text), "{:?}", text);
            }
        }
    }
}
