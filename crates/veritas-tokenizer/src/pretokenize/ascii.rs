//! The scanners of the commonest patterns for places where ASCII alone decides, which is nearly everywhere in English
//! and in code. Each gives the end that its namesake in [`scan`](super::scan) gives, or nothing where a character beyond
//! ASCII takes part; a table of 256 classes and words of eight bytes replace the tests of characters.

use super::scan::{CasedWords, Words};

/// The classes of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Byte {
    Letter,
    Digit,
    Space,
    /// `\r`, `\n`
    LineBreak,
    /// `\t`, `\v`, `\f`
    OtherSpace,
    /// Punctuation, symbols and control characters.
    Other,
    /// A part of a character beyond ASCII.
    High,
    /// Behind the text.
    End,
}

static CLASSES: [Byte; 256] = {
    let mut classes = [Byte::High; 256];
    let mut byte = 0;
    while byte < 0x80 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Byte::Letter,
            b'0'..=b'9' => Byte::Digit,
            b' ' => Byte::Space,
            b'\r' | b'\n' => Byte::LineBreak,
            b'\t' | 0x0b | 0x0c => Byte::OtherSpace,
            _ => Byte::Other,
        };
        byte += 1;
    }
    classes
};

fn class(text: &[u8], at: usize) -> Byte {
    text.get(at).map_or(Byte::End, |&byte| CLASSES[usize::from(byte)])
}

/// A byte in each place of a word.
const fn splat(byte: u8) -> u64 {
    u64::MAX / 255 * byte as u64
}

const HIGH_BITS: u64 = splat(0x80);

/// In the high bit of each byte of `word`: whether it lies in `first..=last` after the bits of `case` were set in it. No
/// sum carries into the next byte, since both sides are at most 0x7f.
fn in_range(word: u64, case: u8, first: u8, last: u8) -> u64 {
    let low = (word | splat(case)) & !HIGH_BITS;
    let from_first = low + splat(0x80 - first);
    let beyond_last = low + splat(0x7f - last);
    from_first & !beyond_last & !word & HIGH_BITS
}

/// Where a run of bytes of a range ends.
fn run_in_range(text: &[u8], mut at: usize, case: u8, first: u8, last: u8) -> usize {
    while let Some(bytes) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let others = in_range(u64::from_le_bytes(*bytes), case, first, last) ^ HIGH_BITS;
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| (first..=last).contains(&(byte | case))) {
        at += 1;
    }
    at
}

/// Where a run of letters ends.
fn letters(text: &[u8], at: usize) -> usize {
    run_in_range(text, at, 0x20, b'a', b'z')
}

fn run(text: &[u8], mut at: usize, is: impl Fn(Byte) -> bool) -> usize {
    while is(class(text, at)) {
        at += 1;
    }
    at
}

/// An end, unless the run may go on beyond ASCII.
fn unless_high(text: &[u8], end: usize) -> Option<usize> {
    (class(text, end) != Byte::High).then_some(end)
}

/// `'s|'t|'re|'ve|'m|'ll|'d` at an apostrophe.
fn contraction(text: &[u8], at: usize, any_case: bool) -> Option<usize> {
    let letter = |at: usize| {
        let byte = *text.get(at)?;
        Some(if any_case { byte.to_ascii_lowercase() } else { byte })
    };
    match letter(at + 1)? {
        b's' | b't' | b'm' | b'd' => Some(at + 2),
        b'r' | b'v' => (letter(at + 2)? == b'e').then_some(at + 3),
        b'l' => (letter(at + 2)? == b'l').then_some(at + 3),
        _ => None,
    }
}

/// `\s+(?!\S)|\s+`, with `lines` after `\s*[\r\n]+`.
fn spaces(text: &[u8], pos: usize, lines: bool) -> Option<usize> {
    let (mut end, mut after_line) = (pos, None);
    loop {
        match class(text, end) {
            Byte::LineBreak => after_line = Some(end + 1),
            Byte::Space | Byte::OtherSpace => {}
            Byte::High => return None,
            _ => break,
        }
        end += 1;
    }
    match after_line {
        Some(after) if lines => Some(after),
        _ if end < text.len() && end > pos + 1 => Some(end - 1),
        _ => Some(end),
    }
}

/// `\p{N}{1,max}`
fn digits(text: &[u8], pos: usize, max: usize) -> Option<usize> {
    let mut end = pos;
    while end - pos < max {
        match class(text, end) {
            Byte::Digit => end += 1,
            Byte::High => return None,
            _ => break,
        }
    }
    Some(end)
}

/// `[^\s\p{L}\p{N}]+`
fn others(text: &[u8], pos: usize) -> Option<usize> {
    unless_high(text, run(text, pos, |byte| byte == Byte::Other))
}

/// As [`scan::gpt2`](super::scan::gpt2).
#[inline]
pub(super) fn gpt2(text: &[u8], pos: usize) -> Option<usize> {
    let first = class(text, pos);
    if first == Byte::Other
        && text[pos] == b'\''
        && let Some(end) = contraction(text, pos, false)
    {
        return Some(end);
    }
    let start = if first == Byte::Space { pos + 1 } else { pos };
    match class(text, start) {
        Byte::Letter => unless_high(text, letters(text, start + 1)),
        Byte::Digit => digits(text, start, usize::MAX),
        Byte::Other => others(text, start),
        Byte::High => None,
        Byte::Space | Byte::LineBreak | Byte::OtherSpace | Byte::End => spaces(text, pos, false),
    }
}

/// As [`scan::words`](super::scan::words).
#[inline]
pub(super) fn words(text: &[u8], pos: usize, rule: Words) -> Option<usize> {
    let first = class(text, pos);
    match first {
        Byte::Letter => return unless_high(text, letters(text, pos + 1)),
        Byte::Digit => return digits(text, pos, rule.digits),
        Byte::LineBreak => return spaces(text, pos, true),
        Byte::High | Byte::End => return None,
        Byte::Space | Byte::OtherSpace | Byte::Other => {}
    }
    if rule.contractions
        && text[pos] == b'\''
        && let Some(end) = contraction(text, pos, true)
    {
        return Some(end);
    }
    let start = match class(text, pos + 1) {
        Byte::Letter => return unless_high(text, letters(text, pos + 2)),
        Byte::High => return None,
        Byte::Other if first == Byte::Space => pos + 1,
        _ if first == Byte::Other => pos,
        _ => return spaces(text, pos, true),
    };
    let end = others(text, start)?;
    Some(if rule.lines_after_symbols { run(text, end, |byte| byte == Byte::LineBreak) } else { end })
}

/// As [`scan::cased_words`](super::scan::cased_words).
#[inline]
pub(super) fn cased_words(text: &[u8], pos: usize, rule: CasedWords) -> Option<usize> {
    let first = class(text, pos);
    let start = match first {
        Byte::Letter => pos,
        Byte::Digit => return digits(text, pos, rule.digits),
        Byte::LineBreak => return spaces(text, pos, true),
        Byte::High | Byte::End => return None,
        Byte::Space | Byte::OtherSpace | Byte::Other => match class(text, pos + 1) {
            Byte::Letter => pos + 1,
            Byte::High => return None,
            next if first == Byte::Other || (first == Byte::Space && next == Byte::Other) => {
                let start = if first == Byte::Other { pos } else { pos + 1 };
                let end = others(text, start)?;
                let rest = &text[end..];
                let more = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/')).count();
                return Some(end + more);
            }
            _ => return spaces(text, pos, true),
        },
    };
    let capitals = run_in_range(text, start, 0, b'A', b'Z');
    let end = unless_high(text, run_in_range(text, capitals, 0, b'a', b'z'))?;
    if rule.contractions && text.get(end) == Some(&b'\'') {
        if class(text, end + 1) == Byte::High {
            return None;
        }
        return Some(contraction(text, end, true).unwrap_or(end));
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bytes_at_once_are_told_apart_as_one_by_one() {
        for byte in 0..=255u8 {
            for at in 0..20 {
                let mut text = [b'q'; 20];
                text[at] = byte;
                let expected = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(20);
                assert_eq!(letters(&text, 0), expected, "{byte} {at}");
                text[at + 1..].fill(b'Z');
                let small = text.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(20);
                assert_eq!(run_in_range(&text, 0, 0, b'a', b'z'), small, "{byte} {at}");
            }
        }
    }
}
