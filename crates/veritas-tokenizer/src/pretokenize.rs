//! Pre-tokenizers: how a text is cut into words before the merges of BPE, which never cross a cut.
//!
//! GGUF files name the rule (`tokenizer.ggml.pre`). A rule is a list of steps, each the hand-written scanner of a
//! pattern; a step cuts every piece of the step before it into the pattern's matches and what lies between them.
//! The commonest patterns have a second scanner, which looks at bytes and leaves what it cannot decide to the first.
//!
//! A name that is not known is an error, since a wrong cut gives wrong ids without a sign. Accepted are the names
//! whose rule is one of those below; those for which llama.cpp has a rule of their own are not guessed.

mod ascii;
mod scan;

use scan::{CasedWords, Words};

/// One pattern.
#[derive(Clone, Copy, Debug)]
enum Step {
    Gpt2,
    Words(Words),
    CasedWords(CasedWords),
    /// At most so many digits.
    Digits(usize),
    ThreeAsciiDigits,
    Punctuation {
        grave: bool,
    },
    LineBreak,
    Lines,
    /// `\s+$`
    TrailingSpaces,
    DeepseekLetters,
    DeepseekSymbols,
    DeepseekEastAsian,
    DeepseekV3,
    Letters,
    PunctuationMarks,
    IdeographsAndKana,
    Bloom,
}

impl Step {
    /// Where the pattern would end if it matches at `pos`, which is beyond `pos`.
    fn scan(self, text: &str, pos: usize) -> Option<usize> {
        match self {
            Self::Gpt2 => gpt2(text, pos),
            Self::Words(rule) => words(text, pos, rule),
            Self::CasedWords(rule) => cased_words(text, pos, rule),
            Self::Digits(max) => scan::digits(text, pos, max),
            Self::ThreeAsciiDigits => scan::three_ascii_digits(text, pos),
            Self::Punctuation { grave } => scan::punctuation(text, pos, grave),
            Self::LineBreak => scan::line_break(text, pos),
            Self::Lines => scan::lines(text, pos),
            Self::TrailingSpaces => None,
            Self::DeepseekLetters => scan::deepseek_letters(text, pos),
            Self::DeepseekSymbols => scan::deepseek_symbols(text, pos),
            Self::DeepseekEastAsian => scan::deepseek_east_asian(text, pos),
            Self::DeepseekV3 => scan::deepseek_v3(text, pos),
            Self::Letters => scan::letters(text, pos),
            Self::PunctuationMarks => scan::marks_of_punctuation(text, pos),
            Self::IdeographsAndKana => scan::ideographs_and_kana(text, pos),
            Self::Bloom => scan::bloom(text, pos),
        }
    }

    /// Calls `piece(rest, n_bytes)` for each match and each stretch between matches, as [`cut`] does.
    fn cut<'t>(self, text: &'t str, piece: &mut dyn FnMut(&'t str, usize)) {
        if let Self::TrailingSpaces = self {
            // Seen from the end, so that a long run of spaces inside the text costs nothing.
            let (inner, trailing) = text.split_at(text.trim_end().len());
            [inner, trailing]
                .into_iter()
                .filter(|part| !part.is_empty())
                .for_each(|part| piece(part, part.len()));
            return;
        }
        cut(text, |pos| self.skip(text, pos), |pos| self.scan(text, pos), piece);
    }

    /// Where the pattern may match next, from `pos` on.
    fn skip(self, text: &str, pos: usize) -> usize {
        let next = |is: fn(&u8) -> bool| {
            text.as_bytes()[pos..].iter().position(is).map_or(text.len(), |n_bytes| pos + n_bytes)
        };
        match self {
            Self::Digits(_) => next(|byte| byte.is_ascii_digit() || !byte.is_ascii()),
            Self::ThreeAsciiDigits => next(u8::is_ascii_digit),
            Self::LineBreak => next(|byte| matches!(byte, b'\r' | b'\n')),
            _ => pos,
        }
    }
}

/// Calls `piece(rest, n_bytes)` for each match of a pattern and each stretch between matches: the piece is the first
/// `n_bytes` of `rest`. `skip` gives the next place where a match may begin, `scan` its end.
#[inline]
fn cut<'t>(
    text: &'t str,
    skip: impl Fn(usize) -> usize,
    scan: impl Fn(usize) -> Option<usize>,
    mut piece: impl FnMut(&'t str, usize),
) {
    let (mut gap, mut pos) = (0, skip(0));
    while pos < text.len() {
        match scan(pos) {
            Some(end) => {
                if gap < pos {
                    piece(&text[gap..], pos - gap);
                }
                piece(&text[pos..], end - pos);
                gap = end;
                pos = skip(end);
            }
            None => pos = skip(pos + text[pos..].chars().next().map_or(1, char::len_utf8)),
        }
    }
    if gap < text.len() {
        piece(&text[gap..], text.len() - gap);
    }
}

#[inline]
fn gpt2(text: &str, pos: usize) -> Option<usize> {
    ascii::gpt2(text.as_bytes(), pos).or_else(|| scan::gpt2(text, pos))
}

#[inline]
fn words(text: &str, pos: usize, rule: Words) -> Option<usize> {
    ascii::words(text.as_bytes(), pos, rule).or_else(|| scan::words(text, pos, rule))
}

#[inline]
fn cased_words(text: &str, pos: usize, rule: CasedWords) -> Option<usize> {
    ascii::cased_words(text.as_bytes(), pos, rule).or_else(|| scan::cased_words(text, pos, rule))
}

const LLAMA3: Words = Words { contractions: true, marks: false, digits: 3, lines_after_symbols: true };
const QWEN2: Words = Words { digits: 1, ..LLAMA3 };
const O200K: CasedWords = CasedWords { contractions: true, digits: 3 };

/// How a text is cut into words, and what else goes with the name of the rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreTokenizer {
    steps: &'static [Step],
    /// Whether the text is normalized (NFC) first. The Qwen tokenizers do.
    pub(crate) nfc: bool,
    /// Whether a word that is a token as it stands is taken without asking the merges.
    pub(crate) ignore_merges: bool,
    /// Whether a model of this rule wants its beginning-of-sequence token if the file does not say so.
    pub(crate) add_bos: bool,
    /// Whether the words are raw UTF-8 with `▁` for the space and `<0x..>` tokens, not GPT-2's byte alphabet.
    pub(crate) raw: bool,
}

/// A rule of GPT-2's kind, without anything else.
const fn plain(steps: &'static [Step]) -> PreTokenizer {
    PreTokenizer { steps, nfc: false, ignore_merges: false, add_bos: false, raw: false }
}

impl PreTokenizer {
    /// The rule that a file names, or `None` if there is no such rule here.
    ///
    /// A file without a name gets "default", as in llama.cpp.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de"
            | "jina-v2-code" | "roberta-bpe" | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert"
            | "exaone4" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" => plain(&[Step::Gpt2]),
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
            | "lfm2" | "jina-v5-nano" => {
                PreTokenizer { ignore_merges: true, add_bos: true, ..plain(&[Step::Words(LLAMA3)]) }
            }
            "dbrx" | "smaug-bpe" | "chatglm-bpe" => plain(&[Step::Words(LLAMA3)]),
            "glm4" | "glm5" => PreTokenizer { ignore_merges: true, ..plain(&[Step::Words(LLAMA3)]) },
            "qwen2" => PreTokenizer { nfc: true, ..plain(&[Step::Words(QWEN2)]) },
            "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "stablelm2" | "hunyuan" | "solar-open" | "megrez"
            | "grok-2" => plain(&[Step::Words(QWEN2)]),
            "qwen35" => PreTokenizer { nfc: true, ..plain(&[Step::Words(Words { marks: true, ..QWEN2 })]) },
            "ufakzeka" => plain(&[Step::Words(Words { contractions: false, ..QWEN2 })]),
            "seed-coder" => plain(&[Step::Words(Words { lines_after_symbols: false, ..QWEN2 })]),
            "laguna" => plain(&[Step::Lines, Step::Words(QWEN2)]),
            "minicpm5" => PreTokenizer {
                ignore_merges: true,
                ..plain(&[Step::Digits(3), Step::Words(Words { digits: usize::MAX, ..LLAMA3 })])
            },
            "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
            | "mellum2" => plain(&[Step::Digits(1), Step::Gpt2]),
            "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => plain(&[Step::CasedWords(O200K)]),
            "tekken" => PreTokenizer {
                ignore_merges: true,
                add_bos: true,
                ..plain(&[Step::CasedWords(CasedWords { contractions: false, digits: 1 })])
            },
            "deepseek-llm" => plain(&[
                Step::LineBreak,
                Step::DeepseekLetters,
                Step::DeepseekSymbols,
                Step::TrailingSpaces,
                Step::DeepseekEastAsian,
                Step::Digits(usize::MAX),
            ]),
            "deepseek-coder" => plain(&[
                Step::LineBreak,
                Step::Letters,
                Step::PunctuationMarks,
                Step::DeepseekEastAsian,
                Step::Digits(1),
            ]),
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => {
                plain(&[Step::Digits(3), Step::IdeographsAndKana, Step::DeepseekV3])
            }
            "falcon" => plain(&[Step::Punctuation { grave: true }, Step::Gpt2, Step::ThreeAsciiDigits]),
            "default" => plain(&[
                Step::Punctuation { grave: false },
                Step::Gpt2,
                Step::Digits(usize::MAX),
                Step::ThreeAsciiDigits,
            ]),
            "bloom" | "poro-chat" | "gpt3-finnish" => plain(&[Step::Bloom]),
            "viking" => plain(&[Step::Bloom, Step::Digits(1)]),
            "gemma4" | "granite-embed-multi-311m" => {
                PreTokenizer { raw: true, add_bos: true, ..plain(&[Step::Lines]) }
            }
            _ => return None,
        })
    }

    /// Calls `word(rest, n_bytes)` for each word of the text, which is the first `n_bytes` of `rest`; together they are
    /// the text.
    pub(crate) fn words<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str, usize)) {
        // A loop of its own for each rule of one step that most texts go through.
        match *self.steps {
            [Step::Gpt2] => cut(text, |pos| pos, |pos| gpt2(text, pos), word),
            [Step::Words(rule)] => cut(text, |pos| pos, |pos| words(text, pos, rule), word),
            [Step::CasedWords(rule)] => cut(text, |pos| pos, |pos| cased_words(text, pos, rule), word),
            _ => cut_all(self.steps, text, &mut word),
        }
    }
}

/// Cuts by the first step, and each piece by the steps after it.
fn cut_all<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str, usize)) {
    match steps {
        [] => word(text, text.len()),
        [last] => last.cut(text, word),
        [first, rest @ ..] => first.cut(text, &mut |piece, n_bytes| cut_all(rest, &piece[..n_bytes], word)),
    }
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use proptest::prelude::*;

    use super::*;

    const CONTRACTIONS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";

    /// The published pattern of each step.
    fn patterns() -> Vec<(Step, String)> {
        let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+".to_owned();
        let word = r"[^\r\n\p{L}\p{N}]?\p{L}+";
        let other = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
        let upper = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
        let lower = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
        let prefix = r"[^\r\n\p{L}\p{N}]?";
        let slash = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
        vec![
            (Step::Gpt2, gpt2),
            (Step::Words(LLAMA3), format!(r"{CONTRACTIONS}|{word}|\p{{N}}{{1,3}}|{other}|{SPACES}")),
            (Step::Words(QWEN2), format!(r"{CONTRACTIONS}|{word}|\p{{N}}|{other}|{SPACES}")),
            (
                Step::Words(Words { marks: true, ..QWEN2 }),
                format!(
                    r"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
                ),
            ),
            (
                Step::Words(Words { contractions: false, ..QWEN2 }),
                format!(r"{word}|\p{{N}}|{other}|{SPACES}"),
            ),
            (
                Step::Words(Words { lines_after_symbols: false, ..QWEN2 }),
                format!(r"{CONTRACTIONS}|{word}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}"),
            ),
            (
                Step::Words(Words { digits: usize::MAX, ..LLAMA3 }),
                format!(r"{CONTRACTIONS}|{word}|\p{{N}}+|{other}|{SPACES}"),
            ),
            (
                Step::CasedWords(O200K),
                format!(
                    r"{prefix}{upper}*{lower}+{CONTRACTIONS}?|{prefix}{upper}+{lower}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|{slash}|{SPACES}"
                ),
            ),
            (
                Step::CasedWords(CasedWords { contractions: false, digits: 1 }),
                format!(r"{prefix}{upper}*{lower}+|{prefix}{upper}+{lower}*|\p{{N}}|{slash}|{SPACES}"),
            ),
            (Step::Digits(1), r"\p{N}".into()),
            (Step::Digits(3), r"\p{N}{1,3}".into()),
            (Step::Digits(usize::MAX), r"\p{N}+".into()),
            (Step::ThreeAsciiDigits, "[0-9][0-9][0-9]".into()),
            (Step::Punctuation { grave: true }, r"[\p{P}\$\+<=>\^~\|`]+".into()),
            (Step::Punctuation { grave: false }, r"[\p{P}\$\+<=>\^~\|]+".into()),
            (Step::LineBreak, r"[\r\n]".into()),
            (Step::Lines, r"[^\n]+|[\n]+".into()),
            (Step::TrailingSpaces, r"\s+$".into()),
            (Step::DeepseekSymbols, r"\s?[!-/:-~！-／：-～‘-‟　-。]+".into()),
            (Step::DeepseekEastAsian, r"[一-龥ࠀ-一가-퟿]+".into()),
            (
                Step::DeepseekV3,
                format!(
                    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{{|}}~][A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"##
                ),
            ),
            (Step::Letters, r"\s?\p{L}+".into()),
            (Step::PunctuationMarks, r"\s?\p{P}+".into()),
            (Step::IdeographsAndKana, r"[一-龥぀-ゟ゠-ヿ]+".into()),
            (Step::Bloom, r" ?[^(\s|.,!?…。，、।۔،)]+".into()),
        ]
    }

    /// The matches of a pattern and what lies between them.
    fn cut_by_regex<'t>(regex: &Regex, text: &'t str) -> Vec<&'t str> {
        let (mut pieces, mut done) = (Vec::new(), 0);
        for found in regex.find_iter(text).map(Result::unwrap) {
            pieces.push(&text[done..found.start()]);
            pieces.push(found.as_str());
            done = found.end();
        }
        pieces.push(&text[done..]);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// Characters of every class that a pattern tells apart, often those that patterns name.
    fn texts() -> impl Strategy<Value = String> {
        let common = "aAsStTrReEvVlLdDmM'' \t\n\r  19/.!$`<<(|_ſ";
        let rare = "éÉßǅʰªß漢字かナ한\u{301}\u{903}\u{20dd}ٱ٣½Ⅷ²…。，、।۔،！：‘　\u{a0}\u{85}\u{2028}€∑😀\u{200d}\u{feff}\u{0}\u{e000}\u{378}";
        let of = |set: &str| proptest::sample::select(set.chars().collect::<Vec<_>>());
        let c = prop_oneof![6 => of(common), 3 => of(rare), 1 => proptest::char::any().prop_filter(
            "newer than the table",
            |&c| crate::unicode::Class::of(c) != crate::unicode::Class::Unassigned
        )];
        proptest::collection::vec(c, 0..24).prop_map(|chars| chars.into_iter().collect())
    }

    #[test]
    fn every_scanner_cuts_as_its_published_pattern_does() {
        let patterns: Vec<_> =
            patterns().into_iter().map(|(step, regex)| (step, Regex::new(&regex).unwrap())).collect();
        let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(text in texts())| {
            for (step, regex) in &patterns {
                let mut pieces = Vec::new();
                step.cut(&text, &mut |piece, n_bytes| pieces.push(&piece[..n_bytes]));
                prop_assert_eq!(&pieces, &cut_by_regex(regex, &text), "{:?} {:?}", step, regex.as_str());
            }
        });
    }

    #[test]
    fn the_words_of_every_rule_are_the_text() {
        let names = [
            "gpt-2",
            "llama-bpe",
            "dbrx",
            "glm4",
            "qwen2",
            "stablelm2",
            "qwen35",
            "ufakzeka",
            "seed-coder",
            "laguna",
            "minicpm5",
            "starcoder",
            "gpt-4o",
            "tekken",
            "deepseek-llm",
            "deepseek-coder",
            "deepseek-v3",
            "falcon",
            "default",
            "bloom",
            "viking",
            "gemma4",
        ];
        proptest!(|(text in texts(), any in any::<String>())| {
            for name in names {
                for text in [&text, &any] {
                    let mut words = String::new();
                    PreTokenizer::from_name(name).unwrap().words(text, |rest, n_bytes| {
                        assert!(n_bytes > 0);
                        words.push_str(&rest[..n_bytes]);
                    });
                    prop_assert_eq!(text, &words);
                }
            }
        });
    }

    #[test]
    fn a_long_run_of_spaces_or_letters_does_not_take_quadratic_time() {
        let n = 1 << 20;
        for unit in [" ", "\n", "A", "ʰA", "'", "1", "!", "\u{301}", "漢", " a", "\u{0}"] {
            let text = format!("{}x", unit.repeat(n / unit.len()));
            for name in ["gpt-2", "llama-bpe", "gpt-4o", "deepseek-llm", "deepseek-v3", "falcon", "bloom"] {
                let mut n_bytes = 0;
                PreTokenizer::from_name(name).unwrap().words(&text, |_, length| n_bytes += length);
                assert_eq!(n_bytes, text.len());
            }
        }
    }

    #[test]
    fn a_name_that_is_not_known_has_no_rule() {
        for name in ["", "llama", "qwen", "LLAMA-BPE", "kimi-k2", "no-such"] {
            assert!(PreTokenizer::from_name(name).is_none(), "{name}");
        }
    }
}
