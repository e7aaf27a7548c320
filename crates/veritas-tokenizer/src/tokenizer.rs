//! From texts to ids and back, for every kind of vocabulary.

use std::borrow::Cow;

use veritas_base::TokenId;
use veritas_gguf::Metadata;

use crate::bpe::Bpe;
use crate::byte_alphabet;
use crate::chat::Rendered;
use crate::error::Error;
use crate::limits::MAX_TEXT_BYTES;
use crate::pretokenize::PreTokenizer;
use crate::special::{Defaults, Kind};
use crate::spm::{SPACE, Spm};
use crate::text_index::Prefixes;
use crate::ugm::Ugm;
use crate::vocabulary::{Vocabulary, read_scores};
use crate::wpm::Wpm;

/// What to add to a text and what to recognise in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add what the model wants around a text (BOS, EOS, CLS, SEP).
    pub add_special: bool,
    /// Recognise the texts of control tokens. Never set this for a text from outside.
    pub parse_special: bool,
}

/// The algorithms.
#[derive(Debug)]
enum Algorithm {
    Spm(Spm),
    Bpe(Bpe),
    Wpm(Wpm),
    Ugm(Ugm),
}

/// The tokenizer of one model.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    add_bos: bool,
    add_eos: bool,
    strip: Strip,
}

/// Which markers take the white space beside them with them. Files do not say it; the models' own tokenizers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Strip {
    #[default]
    None,
    /// Phi-3: after every marker but `<s>`, `<unk>` and `<|endoftext|>`.
    AfterMarkers,
    /// XLM-RoBERTa: before the mask.
    BeforeMask,
}

impl Tokenizer {
    /// Reads the vocabulary of a file.
    ///
    /// # Errors
    /// An algorithm or a pre-tokenizer that is not known, or anything in the metadata that is missing, out of
    /// range or contradicts itself.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, Error> {
        let (vocabulary, algorithm, add_bos, add_eos) = match metadata.str("tokenizer.ggml.model")? {
            "llama" => {
                let defaults = Defaults { bos: Some(1), eos: Some(2), unk: Some(0), sep: None };
                let vocabulary = Vocabulary::read(metadata, defaults)?;
                let scores = read_scores(metadata, vocabulary.len())?;
                let prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                let spm = Spm::new(&vocabulary, &scores, prefix);
                (vocabulary, Algorithm::Spm(spm), true, false)
            }
            model @ ("gpt2" | "gemma4") => {
                let pre = match model {
                    "gemma4" => "gemma4",
                    _ => metadata.opt_str("tokenizer.ggml.pre")?.unwrap_or("default"),
                };
                let pre = PreTokenizer::from_name(pre)
                    .ok_or_else(|| Error::UnknownPreTokenizer { found: shown(pre) })?;
                let vocabulary = Vocabulary::read(metadata, Defaults::default())?;
                let bpe = Bpe::read(metadata, &vocabulary, pre)?;
                let add_bos = pre.add_bos && vocabulary.specials.bos.is_some();
                (vocabulary, Algorithm::Bpe(bpe), add_bos, false)
            }
            "bert" => {
                let defaults = Defaults { bos: Some(101), eos: None, unk: Some(100), sep: Some(102) };
                let mut vocabulary = Vocabulary::read(metadata, defaults)?;
                let wpm = Wpm::read(metadata, &vocabulary)?;
                // What ends a text is the separator here, whatever the flags say.
                let specials = &mut vocabulary.specials;
                specials.eos = specials.sep.or(specials.eos);
                return Self::checked(metadata, vocabulary, Algorithm::Wpm(wpm), true, true);
            }
            "t5" => {
                let defaults = Defaults { bos: None, eos: Some(1), unk: Some(2), sep: None };
                let vocabulary = Vocabulary::read(metadata, defaults)?;
                let ugm = Ugm::read(metadata, &vocabulary)?;
                (vocabulary, Algorithm::Ugm(ugm), false, true)
            }
            other => return Err(Error::UnknownModel { found: shown(other) }),
        };
        let add = |key, default| Ok::<bool, Error>(metadata.opt_bool(key)?.unwrap_or(default));
        let add_bos = add("tokenizer.ggml.add_bos_token", add_bos)?;
        let add_eos = add("tokenizer.ggml.add_eos_token", add_eos)?;
        Self::checked(metadata, vocabulary, algorithm, add_bos, add_eos)
    }

    fn checked(
        metadata: &Metadata,
        vocabulary: Vocabulary,
        algorithm: Algorithm,
        add_bos: bool,
        add_eos: bool,
    ) -> Result<Self, Error> {
        let missing = |what, key| Err(Error::MissingSpecialToken { what, key });
        if add_bos && vocabulary.specials.bos.is_none() {
            return missing("the beginning", "tokenizer.ggml.bos_token_id");
        }
        if add_eos && vocabulary.specials.eos.is_none() {
            return missing("the end", "tokenizer.ggml.eos_token_id");
        }
        Ok(Self { vocabulary, algorithm, add_bos, add_eos, strip: Strip::of(metadata) })
    }

    /// The ids of a text.
    ///
    /// Without `parse_special` no control token comes from the text, whatever it says.
    ///
    /// # Errors
    /// A text beyond the limit, or one that the vocabulary cannot express.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, Error> {
        check_length(text)?;
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        if options.add_special && self.add_bos {
            ids.extend(self.vocabulary.specials.bos);
        }
        let mut encoder = Encoder { tokenizer: self, guard: None, begins: true, ids: &mut ids };
        if options.parse_special {
            encoder.parsed(text)?
        } else {
            encoder.plain(text)?
        }
        if options.add_special && self.add_eos {
            ids.extend(self.vocabulary.specials.eos);
        }
        Ok(ids)
    }

    /// The ids of a rendered chat. Control tokens are recognised in it, but not across the guard, which the
    /// template put into text from outside and which is left out of what becomes tokens.
    ///
    /// The token that begins a sequence is added if the model wants it and the text does not begin with it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<TokenId>, Error> {
        let Rendered { text, guard } = rendered;
        check_length(text)?;
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        Encoder { tokenizer: self, guard: *guard, begins: true, ids: &mut ids }.parsed(text)?;
        if let Some(bos) = self.bos().filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// How many tokens there are; every id is below this.
    pub fn n_vocab(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<TokenId> {
        self.vocabulary.specials.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<TokenId> {
        self.vocabulary.specials.eos
    }

    /// The token that ends a turn of a chat.
    pub fn eot(&self) -> Option<TokenId> {
        self.vocabulary.specials.eot
    }

    /// The token that ends a message in which the model calls a tool.
    pub fn eom(&self) -> Option<TokenId> {
        self.vocabulary.specials.eom
    }

    /// The token that stands for what has no token.
    pub fn unk(&self) -> Option<TokenId> {
        self.vocabulary.specials.unk
    }

    /// The token between two texts.
    pub fn sep(&self) -> Option<TokenId> {
        self.vocabulary.specials.sep
    }

    /// The token that fills a batch up.
    pub fn pad(&self) -> Option<TokenId> {
        self.vocabulary.specials.pad
    }

    /// Whether the model wants the token that begins a sequence before a text.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether the model wants the token that ends a sequence after a text.
    pub fn add_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a generation ends with this token: the ends of sequence, turn and message that the file names, and
    /// every token whose text is a published end marker.
    pub fn is_end_of_generation(&self, id: TokenId) -> bool {
        self.vocabulary.specials.ends.binary_search(&id).is_ok()
    }

    /// Every token that ends a generation, ascending.
    pub fn ends_of_generation(&self) -> &[TokenId] {
        &self.vocabulary.specials.ends
    }

    /// Whether this is a control token, which has no text of its own; false beyond the vocabulary.
    pub fn is_control(&self, id: TokenId) -> bool {
        (id as usize) < self.n_vocab() && self.is_hidden(id)
    }

    /// The texts of all tokens that a text from outside must not be able to name: the control tokens, and
    /// user-defined ones that look like them.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        let ids = 0..self.n_vocab() as TokenId;
        ids.filter(|&id| self.vocabulary.is_marker(id))
            .map(|id| self.vocabulary.text(id))
            .filter(|text| !text.is_empty())
    }

    /// The text of a token as the file spells it, with `▁` or GPT-2's characters for bytes.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn token_text(&self, id: TokenId) -> Result<&str, Error> {
        self.check(id)?;
        Ok(self.vocabulary.text(id))
    }

    /// The bytes that a token adds to a text; a control token's own text. They need not be whole characters.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> Result<Vec<u8>, Error> {
        self.check(id)?;
        let text = self.vocabulary.text(id);
        Ok(match self.vocabulary.kind(id) {
            Kind::Control | Kind::Unknown | Kind::UserDefined => text.as_bytes().to_vec(),
            Kind::Byte => match self.vocabulary.byte(id) {
                Some(byte) => vec![byte],
                None => text.as_bytes().to_vec(),
            },
            Kind::Normal | Kind::Unused => match &self.algorithm {
                Algorithm::Bpe(bpe) if !bpe.pre.raw => byte_alphabet::bytes(text),
                _ => text.replace(SPACE, " ").into_bytes(),
            },
        })
    }

    /// The bytes of a sequence, with `special` the texts of control tokens among them. A sequence may end inside a
    /// character.
    ///
    /// The space that [`encode`](Self::encode) puts before a text is left out again.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn decode(&self, ids: &[TokenId], special: bool) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        let mut begins = true;
        for &id in ids {
            self.decode_one(id, special, &mut begins, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Appends the bytes of one token; `begins` is whether the token stands first or after a special one.
    pub(crate) fn decode_one(
        &self,
        id: TokenId,
        special: bool,
        begins: &mut bool,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let piece = self.token_bytes(id)?;
        let was_first = std::mem::replace(begins, self.is_special(id));
        if self.is_hidden(id) {
            if special {
                bytes.extend_from_slice(&piece);
            }
            return Ok(());
        }
        match piece.split_first() {
            Some((b' ', rest)) if was_first && self.adds_space() => bytes.extend_from_slice(rest),
            _ => bytes.extend_from_slice(&piece),
        }
        Ok(())
    }

    /// Whether a text after this token begins anew.
    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        let kind = self.vocabulary.kind(id);
        matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined) && self.unk() != Some(id)
    }

    /// Whether a token has no text of its own.
    fn is_hidden(&self, id: TokenId) -> bool {
        matches!(self.vocabulary.kind(id), Kind::Control | Kind::Unknown)
    }

    /// Whether a text gets a space before it.
    fn adds_space(&self) -> bool {
        match &self.algorithm {
            Algorithm::Spm(spm) => spm.add_space_prefix,
            Algorithm::Bpe(_) => false,
            Algorithm::Wpm(_) => true,
            Algorithm::Ugm(ugm) => ugm.add_space_prefix,
        }
    }

    /// # Errors
    /// An id beyond the vocabulary.
    pub(crate) fn check(&self, id: TokenId) -> Result<(), Error> {
        let n_vocab = self.n_vocab();
        if (id as usize) < n_vocab { Ok(()) } else { Err(Error::TokenOutOfRange { id, n_vocab }) }
    }
}

impl Strip {
    fn of(metadata: &Metadata) -> Self {
        let text = |key| metadata.opt_str(key).ok().flatten().unwrap_or_default().to_lowercase();
        let (name, architecture) = (text("general.name"), text("general.architecture"));
        if name.contains("phi-3") || name.contains("phi3") {
            Self::AfterMarkers
        } else if architecture == "nomic-bert-moe" || architecture == "jina-bert-v3" {
            Self::BeforeMask
        } else {
            Self::None
        }
    }

    fn after(self, text: &str) -> bool {
        self == Self::AfterMarkers && !matches!(text, "<s>" | "<unk>" | "<|endoftext|>")
    }

    fn before(self, text: &str) -> bool {
        self == Self::BeforeMask && text == "<mask>"
    }
}

/// One text on its way to ids.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// A character that parts the texts of control tokens and is no text itself.
    guard: Option<char>,
    /// Whether nothing or a special token stands before the next text.
    begins: bool,
    ids: &'a mut Vec<TokenId>,
}

impl Encoder<'_> {
    /// A text in which control tokens are recognised.
    fn parsed(&mut self, text: &str) -> Result<(), Error> {
        let tokenizer = self.tokenizer;
        let mut strip_start = false;
        cut(&tokenizer.vocabulary, &tokenizer.vocabulary.markers, text, |before, marker| {
            let mut before = if strip_start { before.trim_start() } else { before };
            let marker_text = marker.map_or("", |id| tokenizer.vocabulary.text(id));
            if tokenizer.strip.before(marker_text) {
                before = before.trim_end();
            }
            strip_start = tokenizer.strip.after(marker_text);
            self.plain(before)?;
            self.special(marker);
            Ok(())
        })
    }

    /// A text that names no control token.
    fn plain(&mut self, text: &str) -> Result<(), Error> {
        let text = match self.guard {
            Some(guard) if text.contains(guard) => Cow::Owned(text.replace(guard, "")),
            _ => Cow::Borrowed(text),
        };
        let vocabulary = &self.tokenizer.vocabulary;
        cut(vocabulary, &vocabulary.user_defined, &text, |before, token| {
            if !before.is_empty() {
                match &self.tokenizer.algorithm {
                    Algorithm::Spm(spm) => spm.encode(vocabulary, before, self.begins, self.ids)?,
                    Algorithm::Bpe(bpe) => bpe.encode(vocabulary, before, self.ids)?,
                    Algorithm::Wpm(wpm) => wpm.encode(vocabulary, before, self.ids),
                    Algorithm::Ugm(ugm) => ugm.encode(vocabulary, before, self.ids)?,
                }
                self.begins = false;
            }
            self.special(token);
            Ok(())
        })
    }

    fn special(&mut self, token: Option<TokenId>) {
        if let Some(id) = token {
            self.begins = self.tokenizer.is_special(id);
            self.ids.push(id);
        }
    }
}

/// Cuts a text at some tokens, the longest where several begin: calls `part` with the text before each and the
/// token, and at the end with what is left and no token.
fn cut(
    vocabulary: &Vocabulary,
    tokens: &Prefixes,
    text: &str,
    mut part: impl FnMut(&str, Option<TokenId>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut start, mut pos) = (0, 0);
    while let Some(skip) = tokens.next_candidate(&text.as_bytes()[pos..]) {
        pos += skip;
        match tokens.longest(&vocabulary.texts, &text.as_bytes()[pos..]) {
            Some((bytes, id)) => {
                part(&text[start..pos], Some(id))?;
                pos += bytes;
                start = pos;
            }
            None => pos += 1,
        }
    }
    part(&text[start..], None)
}

fn check_length(text: &str) -> Result<(), Error> {
    if text.len() > MAX_TEXT_BYTES { Err(Error::TextTooLong { found: text.len() }) } else { Ok(()) }
}

/// A name from a file, cut for a message.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}
