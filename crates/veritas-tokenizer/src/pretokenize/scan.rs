//! The scanners: each finds where one published pattern would end if it matched at a place.
//!
//! A pattern stands above its scanner as its tokenizer publishes it. A scanner reads forward, and back only over
//! what it has just read; the tests hold each one to a backtracking regular expression.

use crate::unicode::{Class, is_letter, is_mark, is_number, is_punctuation, is_space, is_symbol};

/// The character at `pos`, and where the next one begins.
fn char_at(text: &str, pos: usize) -> Option<(char, usize)> {
    let c = text[pos..].chars().next()?;
    Some((c, pos + c.len_utf8()))
}

/// Where the run of characters from `pos` on that satisfy `is` ends.
pub(super) fn run(text: &str, pos: usize, is: impl Fn(char) -> bool) -> usize {
    text[pos..].find(|c| !is(c)).map_or(text.len(), |bytes| pos + bytes)
}

/// The same for at most `max` characters.
pub(super) fn run_max(text: &str, pos: usize, max: usize, is: impl Fn(char) -> bool) -> usize {
    let mut end = pos;
    for _ in 0..max {
        match char_at(text, end) {
            Some((c, next)) if is(c) => end = next,
            _ => break,
        }
    }
    end
}

/// A run of at least one character, after one character more if that satisfies `before`: `before?is+`.
///
/// Where a character satisfies both, the run may as well begin with it.
pub(super) fn run_after(
    text: &str,
    pos: usize,
    before: impl Fn(char) -> bool,
    is: impl Fn(char) -> bool,
) -> Option<usize> {
    let (c, next) = char_at(text, pos)?;
    if is(c) {
        return Some(run(text, next, is));
    }
    let end = if before(c) { run(text, next, is) } else { next };
    (end > next).then_some(end)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, with `any_case` as `(?i:…)`, where the long s of old print is an s too.
fn contraction(text: &str, pos: usize, any_case: bool) -> Option<usize> {
    let rest = text[pos..].strip_prefix('\'')?;
    if any_case && rest.starts_with('ſ') {
        return Some(pos + 1 + 'ſ'.len_utf8());
    }
    let fits = |suffix: &&str| {
        let Some(found) = rest.get(..suffix.len()) else { return false };
        found == *suffix || (any_case && found.eq_ignore_ascii_case(suffix))
    };
    ["s", "t", "re", "ve", "m", "ll", "d"].iter().find(|suffix| fits(suffix)).map(|s| pos + 1 + s.len())
}

/// `\s+(?!\S)|\s+`: a run of spaces without its last, where something follows that the last one may join.
fn spaces(text: &str, pos: usize) -> Option<usize> {
    let end = run(text, pos, is_space);
    let last = text[pos..end].char_indices().next_back()?.0;
    Some(if end < text.len() && last > 0 { pos + last } else { end })
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`: the same, but a run that holds a line break ends with its last one.
fn spaces_and_lines(text: &str, pos: usize) -> Option<usize> {
    let end = run(text, pos, is_space);
    match text[pos..end].rfind(['\r', '\n']) {
        Some(last) => Some(pos + last + 1),
        None => spaces(text, pos),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
pub(super) fn gpt2(text: &str, pos: usize) -> Option<usize> {
    let blank = |c| c == ' ';
    contraction(text, pos, false)
        .or_else(|| run_after(text, pos, blank, is_letter))
        .or_else(|| run_after(text, pos, blank, is_number))
        .or_else(|| run_after(text, pos, blank, |c| !is_space(c) && !is_letter(c) && !is_number(c)))
        .or_else(|| spaces(text, pos))
}

/// What the patterns that came with cl100k differ in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// Whether English contractions are pieces of their own.
    pub(super) contractions: bool,
    /// Whether combining marks belong to words.
    pub(super) marks: bool,
    /// Digits of a piece at most.
    pub(super) digits: usize,
    /// Whether the line breaks after punctuation belong to it.
    pub(super) lines_after_symbols: bool,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(super) fn words(text: &str, pos: usize, rule: Words) -> Option<usize> {
    let in_word = |c| {
        let class = Class::of(c);
        class.is_letter() || (rule.marks && class.is_mark())
    };
    if rule.contractions
        && let Some(end) = contraction(text, pos, true)
    {
        return Some(end);
    }
    let before_word = |c| !matches!(c, '\r' | '\n') && !is_number(c);
    if let Some(end) = run_after(text, pos, before_word, in_word) {
        return Some(end);
    }
    let end = run_max(text, pos, rule.digits, is_number);
    if end > pos {
        return Some(end);
    }
    let other = |c| !is_space(c) && !is_number(c) && !in_word(c);
    if let Some(end) = run_after(text, pos, |c| c == ' ', other) {
        return Some(if rule.lines_after_symbols {
            run(text, end, |c| matches!(c, '\r' | '\n'))
        } else {
            end
        });
    }
    spaces_and_lines(text, pos)
}

/// What the patterns that came with o200k differ in.
#[derive(Clone, Copy, Debug)]
pub(super) struct CasedWords {
    /// Whether a word takes an English contraction with it.
    pub(super) contractions: bool,
    /// Digits of a piece at most.
    pub(super) digits: usize,
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
fn may_be_upper(c: char) -> bool {
    let class = Class::of(c);
    class.is_mark() || (class.is_letter() && class != Class::Lower)
}

/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
fn may_be_lower(c: char) -> bool {
    let class = Class::of(c);
    class.is_mark() || (class.is_letter() && !matches!(class, Class::Upper | Class::Title))
}

/// `U*L+` of the two classes above, with the longest `U*` that lets a character of `L` follow.
fn capitals_then_small(text: &str, pos: usize) -> Option<usize> {
    let capitals = run(text, pos, may_be_upper);
    let end = run(text, capitals, may_be_lower);
    if end > capitals {
        return Some(end);
    }
    // The capitals give back to the last one that may be small as well: it alone is the `L+`.
    let (at, c) = text[pos..capitals].char_indices().rfind(|&(_, c)| may_be_lower(c))?;
    Some(pos + at + c.len_utf8())
}

/// `U+L*` of the two classes above.
fn capitals(text: &str, pos: usize) -> Option<usize> {
    let capitals = run(text, pos, may_be_upper);
    (capitals > pos).then(|| run(text, capitals, may_be_lower))
}

/// `[^\r\n\p{L}\p{N}]?U*L+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?U+L*(?i:…)?|\p{N}{1,3}|`
/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(super) fn cased_words(text: &str, pos: usize, rule: CasedWords) -> Option<usize> {
    let (c, next) = char_at(text, pos)?;
    let after_prefix = (!matches!(c, '\r' | '\n') && !is_letter(c) && !is_number(c)).then_some(next);
    let with_prefix = |word: fn(&str, usize) -> Option<usize>| {
        after_prefix.and_then(|next| word(text, next)).or_else(|| word(text, pos))
    };
    if let Some(end) = with_prefix(capitals_then_small).or_else(|| with_prefix(capitals)) {
        let suffix = if rule.contractions { contraction(text, end, true) } else { None };
        return Some(suffix.unwrap_or(end));
    }
    let end = run_max(text, pos, rule.digits, is_number);
    if end > pos {
        return Some(end);
    }
    let other = |c| !is_space(c) && !is_letter(c) && !is_number(c);
    if let Some(end) = run_after(text, pos, |c| c == ' ', other) {
        return Some(run(text, end, |c| matches!(c, '\r' | '\n' | '/')));
    }
    spaces_and_lines(text, pos)
}

/// ``[\p{P}\$\+<=>\^~\|`]+``, with or without the grave accent.
pub(super) fn punctuation(text: &str, pos: usize, grave: bool) -> Option<usize> {
    let end = run(text, pos, |c| {
        is_punctuation(c) || matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|') || (grave && c == '`')
    });
    (end > pos).then_some(end)
}

/// `\p{N}{1,max}`
pub(super) fn digits(text: &str, pos: usize, max: usize) -> Option<usize> {
    let end = run_max(text, pos, max, is_number);
    (end > pos).then_some(end)
}

/// `[0-9][0-9][0-9]`
pub(super) fn three_ascii_digits(text: &str, pos: usize) -> Option<usize> {
    (run_max(text, pos, 3, |c| c.is_ascii_digit()) == pos + 3).then_some(pos + 3)
}

/// `[\r\n]`
pub(super) fn line_break(text: &str, pos: usize) -> Option<usize> {
    text[pos..].starts_with(['\r', '\n']).then_some(pos + 1)
}

/// `[^\n]+|[\n]+`
pub(super) fn lines(text: &str, pos: usize) -> Option<usize> {
    let (c, _) = char_at(text, pos)?;
    Some(run(text, pos, |d| (d == '\n') == (c == '\n')))
}

/// `\s?\p{L}+`
pub(super) fn letters(text: &str, pos: usize) -> Option<usize> {
    run_after(text, pos, is_space, is_letter)
}

/// `\s?\p{P}+`
pub(super) fn marks_of_punctuation(text: &str, pos: usize) -> Option<usize> {
    run_after(text, pos, is_space, is_punctuation)
}

/// Whether a character lies in one of some ranges, which ascend.
fn in_ranges(ranges: &[(u32, u32)], c: char) -> bool {
    let c = u32::from(c);
    let after = ranges.partition_point(|range| range.0 <= c);
    after > 0 && c <= ranges[after - 1].1
}

/// The letters that deepseek-llm's pattern lists: those with case of the Latin, Greek, Cyrillic and some other
/// scripts, as far as Unicode had them.
#[rustfmt::skip]
static DEEPSEEK_LETTERS: [(u32, u32); 84] = [
    (0x41, 0x5a), (0x61, 0x7a), (0xb5, 0xb5), (0xc0, 0xd6), (0xd8, 0xf6), (0xf8, 0x1ba),
    (0x1bc, 0x1bf), (0x1c4, 0x293), (0x295, 0x2af), (0x370, 0x373), (0x376, 0x377), (0x37b, 0x37d),
    (0x37f, 0x37f), (0x386, 0x386), (0x388, 0x38a), (0x38c, 0x38c), (0x38e, 0x3a1), (0x3a3, 0x3f5),
    (0x3f7, 0x481), (0x48a, 0x52f), (0x531, 0x556), (0x10a0, 0x10c5), (0x13a0, 0x13f5), (0x13f8, 0x13fd),
    (0x1c90, 0x1cba), (0x1cbd, 0x1cbf), (0x1d00, 0x1d2b), (0x1d6b, 0x1d77), (0x1d79, 0x1d9a), (0x1e00, 0x1f15),
    (0x1f18, 0x1f1d), (0x1f20, 0x1f45), (0x1f48, 0x1f4d), (0x1f50, 0x1f57), (0x1f59, 0x1f59), (0x1f5b, 0x1f5b),
    (0x1f5d, 0x1f5d), (0x1f5f, 0x1f7d), (0x1f80, 0x1fb4), (0x1fb6, 0x1fbc), (0x1fbe, 0x1fbe), (0x1fc2, 0x1fc4),
    (0x1fc6, 0x1fcc), (0x1fd0, 0x1fd3), (0x1fd6, 0x1fdb), (0x1fe0, 0x1fec), (0x1ff2, 0x1ff4), (0x1ff6, 0x1ffc),
    (0x2102, 0x2102), (0x2107, 0x2107), (0x210a, 0x2113), (0x2115, 0x2115), (0x2119, 0x211d), (0x2124, 0x2124),
    (0x2126, 0x2126), (0x2128, 0x2128), (0x212a, 0x212d), (0x212f, 0x2134), (0x2139, 0x2139), (0x213c, 0x213f),
    (0x2145, 0x2149), (0x214e, 0x214e), (0x2183, 0x2184), (0x2c00, 0x2c7b), (0x2c7e, 0x2ce4), (0x2ceb, 0x2cee),
    (0x2cf2, 0x2cf3), (0xa640, 0xa66d), (0xa680, 0xa69b), (0xa722, 0xa76f), (0xa771, 0xa787), (0xa78b, 0xa78e),
    (0xab70, 0xabbf), (0xfb00, 0xfb06), (0xfb13, 0xfb17), (0xff21, 0xff3a), (0xff41, 0xff5a), (0x10400, 0x1044f),
    (0x104b0, 0x104d3), (0x104d8, 0x104fb), (0x10c80, 0x10cb2), (0x10cc0, 0x10cf2), (0x118a0, 0x118df), (0x1e900, 0x1e943),
];

/// `\s?[A-Za-zµÀ-Ö…]+`
pub(super) fn deepseek_letters(text: &str, pos: usize) -> Option<usize> {
    run_after(text, pos, is_space, |c| in_ranges(&DEEPSEEK_LETTERS, c))
}

/// `\s?[!-/:-~！-／：-～‘-‟　-。]+`
pub(super) fn deepseek_symbols(text: &str, pos: usize) -> Option<usize> {
    run_after(
        text,
        pos,
        is_space,
        |c| matches!(c, '!'..='/' | ':'..='~' | '！'..='／' | '：'..='～' | '‘'..='‟' | '\u{3000}'..='。'),
    )
}

/// `[一-龥ࠀ-一가-퟿]+`
pub(super) fn deepseek_east_asian(text: &str, pos: usize) -> Option<usize> {
    let end = run(text, pos, |c| matches!(c, '\u{800}'..='龥' | '가'..='\u{d7ff}'));
    (end > pos).then_some(end)
}

/// `[一-龥぀-ゟ゠-ヿ]+`
pub(super) fn ideographs_and_kana(text: &str, pos: usize) -> Option<usize> {
    let end = run(text, pos, |c| matches!(c, '一'..='龥' | '\u{3040}'..='\u{30ff}'));
    (end > pos).then_some(end)
}

/// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|``
/// ` ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(super) fn deepseek_v3(text: &str, pos: usize) -> Option<usize> {
    let (c, next) = char_at(text, pos)?;
    if c.is_ascii_punctuation() {
        let end = run(text, next, |c| c.is_ascii_alphabetic());
        if end > next {
            return Some(end);
        }
    }
    let symbol = |c| is_punctuation(c) || is_symbol(c);
    let before_word = |c| !matches!(c, '\r' | '\n') && !is_letter(c) && !symbol(c);
    if let Some(end) = run_after(text, pos, before_word, |c| is_letter(c) || is_mark(c)) {
        return Some(end);
    }
    if let Some(end) = run_after(text, pos, |c| c == ' ', symbol) {
        return Some(run(text, end, |c| matches!(c, '\r' | '\n')));
    }
    spaces_and_lines(text, pos)
}

/// ` ?[^(\s|.,!?…。，、।۔،)]+`
pub(super) fn bloom(text: &str, pos: usize) -> Option<usize> {
    run_after(
        text,
        pos,
        |c| c == ' ',
        |c| {
            !is_space(c)
                && !matches!(
                    c,
                    '(' | '|' | '.' | ',' | '!' | '?' | '…' | '。' | '，' | '、' | '।' | '۔' | '،' | ')'
                )
        },
    )
}
