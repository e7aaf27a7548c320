//! The tokens with a role: which begin and end a sequence, which end a generation, and which a text may not name.
//!
//! Files mark tokens unevenly, so that texts decide where the metadata is silent, by the rules of llama.cpp: a
//! published end marker ends a generation and is a control token whatever its type says.

use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::error::Error;
use crate::text_index::Texts;

/// The type of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Has a meaning to the model and no text of its own.
    Control,
    /// Added to the vocabulary by hand.
    UserDefined,
    /// Left out when the vocabulary was trained.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl Kind {
    /// From `tokenizer.ggml.token_type`.
    pub(crate) fn from_number(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// Texts that end a generation, and with it a turn of the model.
const END_MARKERS: [&str; 23] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "</s>",
    "<eos>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<|file_sep|>",
];

/// Those of them that end a turn, the likeliest first; a file may leave out `eot_token_id`.
const TURN_MARKERS: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "<|endoftext|>",
];

/// Padding and repository markers of fill-in-the-middle models, after which nothing sensible follows.
const FILL_MARKERS: [&str; 10] = [
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
];

/// Tags of HTML that vocabularies hold as plain text (Gemma's do). Not among them: `s`, which elsewhere begins
/// a sequence.
const HTML_TAGS: [&str; 36] = [
    "a",
    "b",
    "blockquote",
    "br",
    "caption",
    "code",
    "div",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "title",
];

/// The ids that the metadata and the texts give.
#[derive(Clone, Debug, Default)]
pub(crate) struct Specials {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) eot: Option<TokenId>,
    pub(crate) eom: Option<TokenId>,
    pub(crate) unk: Option<TokenId>,
    pub(crate) sep: Option<TokenId>,
    pub(crate) pad: Option<TokenId>,
    /// Every token that ends a generation, ascending.
    pub(crate) ends: Vec<TokenId>,
}

/// Ids that an algorithm falls back to where the file names none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
    pub(crate) unk: Option<TokenId>,
    pub(crate) sep: Option<TokenId>,
}

impl Specials {
    /// Reads the ids, finds the end markers, and makes control tokens of them in `kinds`.
    ///
    /// # Errors
    /// An id beyond the vocabulary, or of another type than a number.
    pub(crate) fn read(
        metadata: &Metadata,
        texts: &Texts,
        kinds: &mut [Kind],
        defaults: Defaults,
    ) -> Result<Self, Error> {
        let n = texts.len();
        let id = |key: &'static str| -> Result<Option<TokenId>, Error> {
            match metadata.opt_u64(key)? {
                Some(found) if found >= n as u64 => {
                    Err(Error::SpecialTokenOutOfRange { key, found, n_vocab: n })
                }
                found => Ok(found.map(|found| found as TokenId)),
            }
        };
        let or = |found: Option<TokenId>, default: Option<TokenId>| {
            found.or(default.filter(|&default| (default as usize) < n))
        };
        let mut specials = Self {
            bos: or(id("tokenizer.ggml.bos_token_id")?.or(id("tokenizer.ggml.cls_token_id")?), defaults.bos),
            eos: or(id("tokenizer.ggml.eos_token_id")?, defaults.eos),
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unk: or(id("tokenizer.ggml.unknown_token_id")?, defaults.unk),
            sep: or(id("tokenizer.ggml.seperator_token_id")?, defaults.sep),
            pad: id("tokenizer.ggml.padding_token_id")?,
            ends: Vec::new(),
        };
        specials.find_ends(texts, kinds);
        Ok(specials)
    }

    fn find_ends(&mut self, texts: &Texts, kinds: &mut [Kind]) {
        let mut markers: Vec<TokenId> = (0..texts.len() as TokenId)
            .filter(|&id| {
                let text = texts.text(id);
                END_MARKERS.contains(&text) || FILL_MARKERS.contains(&text)
            })
            .collect();
        let find =
            |markers: &[TokenId], text: &str| markers.iter().copied().find(|&id| texts.text(id) == text);
        // In the o200k_harmony format (and Solar's) <|end|> parts the messages of one answer.
        let has = |text: &str| find(&markers, text).is_some();
        let harmony = (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>"));
        // Qwen's and Gemma's vocabularies hold the HTML tag as a piece of text.
        let tag = |id: TokenId| kinds[id as usize] == Kind::Normal && self.eos != Some(id);
        markers.retain(|&id| match texts.text(id) {
            "<|end|>" => !harmony,
            "</s>" => !tag(id),
            _ => true,
        });
        for &id in &markers {
            kinds[id as usize] = Kind::Control;
        }
        self.eot = self.eot.or_else(|| TURN_MARKERS.iter().find_map(|text| find(&markers, text)));
        self.eom = self.eom.or_else(|| find(&markers, "<|eom_id|>"));
        markers.extend([self.eos, self.eot, self.eom].into_iter().flatten());
        markers.sort_unstable();
        markers.dedup();
        self.ends = markers;
    }
}

/// Whether a user-defined token looks like a marker of a role or a tool rather than like text.
///
/// Vocabularies hold both under that type: Command R its turn markers, Gemma runs of spaces and HTML tags. A text
/// from outside must not be able to name the former. Taken for a marker is what has a letter or digit within and
/// punctuation at both ends, and is no HTML tag: `<|USER_TOKEN|>`, `[INST]`, `]~b]`; not `▁▁`, `</`, `<h1>`.
pub(crate) fn looks_like_marker(text: &str) -> bool {
    let text = text.trim_matches(['▁', ' ']);
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else { return false };
    let edge = |c: char| !c.is_alphanumeric() && !c.is_whitespace();
    if !edge(first) || !edge(last) || !text.contains(char::is_alphanumeric) {
        return false;
    }
    let tag = text.strip_prefix('<').and_then(|tag| tag.strip_suffix('>'));
    !tag.is_some_and(|tag| HTML_TAGS.contains(&tag.strip_prefix('/').unwrap_or(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_text() {
        for marker in [
            "<|im_start|>",
            "<|USER_TOKEN|>",
            "[INST]",
            "]~b]",
            "[e~[",
            "<start_of_turn>",
            "<｜User｜>",
            "<s>",
            "▁<PRE>",
            "_<EOT>",
            ">>TITLE<<",
            "<tool_call|>",
            "[PAD151646]",
            "</think>",
            "<unused0>",
        ] {
            assert!(looks_like_marker(marker), "{marker}");
        }
        for text in ["", "▁▁▁", "\n\n", "    ", "ø", "</", "<h1>", "</table>", "word", "//", "<", "…", "'s"]
        {
            assert!(!looks_like_marker(text), "{text:?}");
        }
    }

    fn ends(tokens: &[&str]) -> Vec<TokenId> {
        let mut texts = Texts::default();
        tokens.iter().for_each(|text| texts.push(text));
        let mut kinds = vec![Kind::Normal; tokens.len()];
        Specials::read(&Metadata::new(), &texts, &mut kinds, Defaults::default()).unwrap().ends
    }

    #[test]
    fn published_end_markers_end_a_generation_whatever_their_type() {
        assert_eq!(ends(&["a", "<|im_end|>", "<|endoftext|>", "<|im_start|>"]), [1, 2]);
        assert_eq!(ends(&["<|end|>", "<|return|>", "<|call|>"]), [1, 2]);
        assert_eq!(ends(&["</s>", "<turn|>"]), [1]);
    }

    #[test]
    fn a_special_token_beyond_the_vocabulary_is_an_error() {
        let mut texts = Texts::default();
        texts.push("a");
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.bos_token_id", 1u32).unwrap();
        let error = Specials::read(&metadata, &texts, &mut [Kind::Normal], Defaults::default()).unwrap_err();
        assert!(matches!(error, Error::SpecialTokenOutOfRange { found: 1, n_vocab: 1, .. }), "{error}");
    }
}
