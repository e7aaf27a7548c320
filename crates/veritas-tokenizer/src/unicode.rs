//! Character classes, as the patterns of pre-tokenizers name them (`\p{L}`, `\s` …).
//!
//! The standard library knows `White_Space` and case, but no general categories; those come from a generated
//! table. Newer characters than the table's are [`Class::Unassigned`], which every pattern counts as "neither
//! letter, number nor space".

mod table;

use table::RUNS;

/// The general category of a character, merged into what the tokenizers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// `Cn`
    Unassigned,
    /// `Lu`
    Upper,
    /// `Ll`
    Lower,
    /// `Lt`
    Title,
    /// `Lm`
    Modifier,
    /// `Lo`
    OtherLetter,
    /// `Mn`
    NonspacingMark,
    /// `Mc`, `Me`
    OtherMark,
    /// `N`
    Number,
    /// `P`
    Punctuation,
    /// `S`
    Symbol,
    /// `Z`
    Separator,
    /// `Cc`, `Cf`, `Co`, `Cs`
    Control,
}

/// In the order of the numbers in the table.
const CLASSES: [Class; 13] = [
    Class::Unassigned,
    Class::Upper,
    Class::Lower,
    Class::Title,
    Class::Modifier,
    Class::OtherLetter,
    Class::NonspacingMark,
    Class::OtherMark,
    Class::Number,
    Class::Punctuation,
    Class::Symbol,
    Class::Separator,
    Class::Control,
];

/// The classes of the characters below U+10000, which nearly all texts consist of, without a search.
static LOW: [Class; 0x10000] = {
    let mut classes = [Class::Unassigned; 0x10000];
    let (mut run, mut c) = (0, 0);
    while c < classes.len() {
        if RUNS[run + 1] >> 8 <= c as u32 {
            run += 1;
        }
        classes[c] = CLASSES[(RUNS[run] & 0xff) as usize];
        c += 1;
    }
    classes
};

impl Class {
    /// The class of a character.
    pub(crate) fn of(c: char) -> Self {
        if let Some(&class) = LOW.get(c as usize) {
            return class;
        }
        let after = RUNS.partition_point(|run| run >> 8 <= u32::from(c));
        CLASSES[(RUNS[after - 1] & 0xff) as usize]
    }

    /// `\p{L}`
    pub(crate) fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Title | Self::Modifier | Self::OtherLetter)
    }

    /// `\p{M}`
    pub(crate) fn is_mark(self) -> bool {
        matches!(self, Self::NonspacingMark | Self::OtherMark)
    }

    /// `\p{N}`
    pub(crate) fn is_number(self) -> bool {
        self == Self::Number
    }
}

/// `\p{L}`
pub(crate) fn is_letter(c: char) -> bool {
    Class::of(c).is_letter()
}

/// `\p{M}`
pub(crate) fn is_mark(c: char) -> bool {
    Class::of(c).is_mark()
}

/// `\p{N}`
pub(crate) fn is_number(c: char) -> bool {
    Class::of(c).is_number()
}

/// `\p{P}`
pub(crate) fn is_punctuation(c: char) -> bool {
    Class::of(c) == Class::Punctuation
}

/// `\p{S}`
pub(crate) fn is_symbol(c: char) -> bool {
    Class::of(c) == Class::Symbol
}

/// `\s`: the property `White_Space`.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_ascend_and_name_classes_that_exist() {
        assert!(RUNS.windows(2).all(|pair| pair[0] >> 8 < pair[1] >> 8));
        assert!(RUNS.iter().all(|run| ((run & 0xff) as usize) < CLASSES.len()));
        assert_eq!(RUNS[0] >> 8, 0);
        for (number, class) in CLASSES.iter().enumerate() {
            assert_eq!(*class as usize, number);
        }
    }

    #[test]
    fn the_table_of_low_characters_says_what_the_runs_say() {
        for c in 0..0x10000u32 {
            let after = RUNS.partition_point(|run| run >> 8 <= c);
            assert_eq!(LOW[c as usize], CLASSES[(RUNS[after - 1] & 0xff) as usize], "{c:#x}");
        }
    }

    #[test]
    fn classes_agree_with_the_standard_library_where_it_knows_them() {
        for c in (0..=0x10ffff).filter_map(char::from_u32) {
            let class = Class::of(c);
            if class.is_number() {
                assert!(c.is_numeric(), "{c:?}");
            }
            if class.is_letter() {
                assert!(c.is_alphabetic(), "{c:?}");
            }
            if class == Class::Upper {
                assert!(c.is_uppercase(), "{c:?}");
            }
            if class == Class::Separator {
                assert!(c.is_whitespace(), "{c:?}");
            }
            if c.is_control() {
                assert_eq!(class, Class::Control, "{c:?}");
            }
            if c.is_ascii() {
                assert_eq!(c.is_ascii_alphabetic(), class.is_letter(), "{c:?}");
                assert_eq!(
                    c.is_ascii_punctuation(),
                    matches!(class, Class::Punctuation | Class::Symbol),
                    "{c:?}"
                );
            }
        }
        assert_eq!(Class::of('\u{301}'), Class::NonspacingMark);
        assert_eq!(Class::of('\u{903}'), Class::OtherMark);
        assert_eq!(Class::of('ǅ'), Class::Title);
        assert_eq!(Class::of('\u{10ffff}'), Class::Unassigned);
    }
}
