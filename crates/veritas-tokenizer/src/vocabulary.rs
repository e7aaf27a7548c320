//! The tokens of a file: their texts, types and scores, checked once.

use veritas_base::TokenId;
use veritas_gguf::{Array, Metadata, Value};

use crate::error::Error;
use crate::limits::{MAX_TOKEN_BYTES, MAX_TOKENS, MAX_VOCABULARY_BYTES};
use crate::special::{Defaults, Kind, Specials, looks_like_marker};
use crate::text_index::{Prefixes, TextIndex, Texts};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// The tokens of a vocabulary and the ways to find them.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) texts: Texts,
    kinds: Vec<Kind>,
    pub(crate) specials: Specials,
    /// The tokens that a text may become: neither markers nor bytes.
    plain: TextIndex,
    /// Control tokens, and user-defined ones that look like them.
    pub(crate) markers: Prefixes,
    /// The other user-defined tokens, which go before all algorithms.
    pub(crate) user_defined: Prefixes,
    /// The token of each byte that has one.
    byte_ids: Vec<Option<TokenId>>,
}

impl Vocabulary {
    /// Reads the tokens.
    ///
    /// # Errors
    /// Anything that is missing, of the wrong length, twice, or out of range.
    pub(crate) fn read(metadata: &Metadata, defaults: Defaults) -> Result<Self, Error> {
        let tokens = metadata.strings(TOKENS)?;
        let limit = |what, found, max| Err(Error::VocabularyLimit { what, found, max });
        if tokens.is_empty() {
            return Err(Error::EmptyVocabulary);
        }
        if tokens.len() > MAX_TOKENS {
            return limit("tokens", tokens.len(), MAX_TOKENS);
        }
        let bytes: usize = tokens.iter().map(String::len).sum();
        if bytes > MAX_VOCABULARY_BYTES {
            return limit("bytes of text", bytes, MAX_VOCABULARY_BYTES);
        }
        if let Some(longest) = tokens.iter().map(String::len).max().filter(|&bytes| bytes > MAX_TOKEN_BYTES) {
            return limit("bytes in one token", longest, MAX_TOKEN_BYTES);
        }
        let mut texts = Texts::with_capacity(tokens.len(), bytes);
        tokens.iter().for_each(|text| texts.push(text));

        let mut kinds = match metadata.opt_i32s(TOKEN_TYPES)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(types) => {
                same_length(TOKEN_TYPES, types.len(), tokens.len())?;
                types.iter().map(|&number| Kind::from_number(number)).collect()
            }
        };
        let specials = Specials::read(metadata, &texts, &mut kinds, defaults)?;
        Self::new(texts, kinds, specials)
    }

    fn new(texts: Texts, kinds: Vec<Kind>, specials: Specials) -> Result<Self, Error> {
        let is_marker = |id: TokenId| match kinds[id as usize] {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => looks_like_marker(texts.text(id)),
            Kind::Normal | Kind::Unused | Kind::Byte => false,
        };
        let ids = 0..texts.len() as TokenId;
        let plain: Vec<TokenId> = ids
            .clone()
            .filter(|&id| !is_marker(id) && kinds[id as usize] != Kind::Byte && !texts.text(id).is_empty())
            .collect();
        let plain = TextIndex::new(&texts, plain.into_iter()).map_err(|(first, second)| {
            Error::DuplicateToken { text: texts.text(first).to_owned(), first, second }
        })?;
        let markers = Prefixes::new(&texts, ids.clone().filter(|&id| is_marker(id)));
        let user_defined = Prefixes::new(
            &texts,
            ids.clone().filter(|&id| kinds[id as usize] == Kind::UserDefined && !is_marker(id)),
        );
        let mut byte_ids = vec![None; 256];
        for id in ids.filter(|&id| kinds[id as usize] == Kind::Byte) {
            if let Some(byte) = byte_of(texts.text(id)) {
                byte_ids[usize::from(byte)].get_or_insert(id);
            }
        }
        Ok(Self { texts, kinds, specials, plain, markers, user_defined, byte_ids })
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a token, as the file spells it.
    pub(crate) fn text(&self, id: TokenId) -> &str {
        self.texts.text(id)
    }

    pub(crate) fn kind(&self, id: TokenId) -> Kind {
        self.kinds[id as usize]
    }

    /// The token that a text may become.
    pub(crate) fn plain_id(&self, text: &str) -> Option<TokenId> {
        self.plain.id(&self.texts, text)
    }

    /// The same tokens by what a text begins with.
    pub(crate) fn plain_prefixes(&self) -> Prefixes {
        Prefixes::new(&self.texts, self.plain_ids())
    }

    /// The tokens that a text may become.
    pub(crate) fn plain_ids(&self) -> impl Iterator<Item = TokenId> {
        let ids = 0..self.len() as TokenId;
        ids.filter(|&id| !self.is_marker(id) && self.kind(id) != Kind::Byte)
    }

    /// The token of type byte for this byte.
    pub(crate) fn byte_id(&self, byte: u8) -> Option<TokenId> {
        self.byte_ids[usize::from(byte)]
    }

    /// The byte that a token of type byte stands for.
    pub(crate) fn byte(&self, id: TokenId) -> Option<u8> {
        if self.kind(id) == Kind::Byte { byte_of(self.text(id)) } else { None }
    }

    /// Whether a text can only name this token where control tokens are parsed.
    pub(crate) fn is_marker(&self, id: TokenId) -> bool {
        match self.kind(id) {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => looks_like_marker(self.text(id)),
            Kind::Normal | Kind::Unused | Kind::Byte => false,
        }
    }
}

/// The scores of the tokens, one for each.
///
/// # Errors
/// If they are missing, too few or too many, or no numbers.
pub(crate) fn read_scores(metadata: &Metadata, n_tokens: usize) -> Result<Vec<f32>, Error> {
    let scores = match metadata.get(SCORES) {
        Some(Value::Array(Array::I32(scores))) => scores.iter().map(|&score| score as f32).collect(),
        _ => metadata.f32s(SCORES)?.to_vec(),
    };
    same_length(SCORES, scores.len(), n_tokens)?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(id) => Err(Error::ScoreNotANumber { id: id as TokenId }),
        None => Ok(scores),
    }
}

fn same_length(key: &'static str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::LengthMismatch { key, found, expected }) }
}

/// `<0x0A>` → 10
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}
