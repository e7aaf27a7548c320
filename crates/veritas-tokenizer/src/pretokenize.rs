//! Pre-tokenizers: how a text is cut into words before the merges of BPE, which never cross a cut.
//!
//! GGUF files name the rule (`tokenizer.ggml.pre`). A rule is a list of steps, each the hand-written scanner of a
//! pattern; a step cuts every piece of the step before it into the pattern's matches and what lies between them.
//! A name that is not known is an error, since a wrong cut gives wrong ids without a sign. Accepted are the names
//! whose rule is one of those below; those for which llama.cpp has a rule of their own are not guessed.

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
            Self::Gpt2 => scan::gpt2(text, pos),
            Self::Words(rule) => scan::words(text, pos, rule),
            Self::CasedWords(rule) => scan::cased_words(text, pos, rule),
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

    /// Calls `piece` for each match and each stretch between matches.
    fn cut<'t>(self, text: &'t str, piece: &mut dyn FnMut(&'t str)) {
        if let Self::TrailingSpaces = self {
            // Seen from the end, so that a long run of spaces inside the text costs nothing.
            let (inner, trailing) = text.split_at(text.trim_end().len());
            [inner, trailing].into_iter().filter(|part| !part.is_empty()).for_each(piece);
            return;
        }
        let (mut gap, mut pos) = (0, 0);
        while let Some(c) = text[pos..].chars().next() {
            match self.scan(text, pos) {
                Some(end) => {
                    if gap < pos {
                        piece(&text[gap..pos]);
                    }
                    piece(&text[pos..end]);
                    pos = end;
                    gap = end;
                }
                None => pos += c.len_utf8(),
            }
        }
        if gap < text.len() {
            piece(&text[gap..]);
        }
    }
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

    /// Calls `word` for each word of the text; together they are the text.
    pub(crate) fn words<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        cut_all(self.steps, text, word);
    }
}

/// Cuts by the first step, and each piece by the steps after it.
fn cut_all<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    match steps {
        [] => word(text),
        [last] => last.cut(text, word),
        [first, rest @ ..] => first.cut(text, &mut |piece| cut_all(rest, piece, word)),
    }
}
