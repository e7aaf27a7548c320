//! What can be wrong with a vocabulary, a text or a sequence of ids.

use veritas_base::TokenId;

use crate::limits::MAX_TEXT_BYTES;

/// Why a vocabulary was refused, or a text could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the metadata is missing or has another type.
    #[error(transparent)]
    Metadata(#[from] veritas_gguf::Error),
    /// `tokenizer.ggml.model` names no algorithm of this crate.
    #[error("the tokenizer model {found:?} is not supported: known are llama, gpt2, gemma4, bert and t5")]
    UnknownModel {
        /// The name in the file.
        found: String,
    },
    /// `tokenizer.ggml.pre` names no pre-tokenizer of this crate. To guess would give wrong ids silently.
    #[error("the pre-tokenizer {found:?} is not known; its words would be split wrongly")]
    UnknownPreTokenizer {
        /// The name in the file.
        found: String,
    },
    /// There are no tokens.
    #[error("the vocabulary has no tokens")]
    EmptyVocabulary,
    /// More of something than the limit.
    #[error("the vocabulary has {found} {what}; the limit is {max}")]
    VocabularyLimit {
        /// What was counted.
        what: &'static str,
        /// The count in the file.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Two arrays that run over the tokens have different lengths.
    #[error("{key} has {found} entries for {expected} tokens")]
    LengthMismatch {
        /// The key of the array.
        key: &'static str,
        /// Entries of the array.
        found: usize,
        /// Tokens of the vocabulary.
        expected: usize,
    },
    /// Two tokens have the same text, so that a text has no one id.
    #[error("tokens {first} and {second} have the same text {text:?}")]
    DuplicateToken {
        /// The text.
        text: String,
        /// The lower id.
        first: TokenId,
        /// The higher id.
        second: TokenId,
    },
    /// A score is no number.
    #[error("the score of token {id} is not a number")]
    ScoreNotANumber {
        /// The token.
        id: TokenId,
    },
    /// An entry of the merges is not two texts with a space between them.
    #[error("merge {index} is {found:?}: expected two texts with a space between them")]
    MalformedMerge {
        /// Its place in the list.
        index: usize,
        /// The entry.
        found: String,
    },
    /// A special token's id lies beyond the vocabulary.
    #[error("{key} is {found}, but the vocabulary has {n_vocab} tokens")]
    SpecialTokenOutOfRange {
        /// The key.
        key: &'static str,
        /// The id in the file.
        found: u64,
        /// Tokens of the vocabulary.
        n_vocab: usize,
    },
    /// The algorithm needs a token that the vocabulary does not name.
    #[error("this vocabulary needs a token for {what}, and {key} is missing")]
    MissingSpecialToken {
        /// What the token is for.
        what: &'static str,
        /// The key that would name it.
        key: &'static str,
    },
    /// A byte of the text has no token, and the vocabulary has no unknown token to stand for it.
    #[error("the vocabulary has no token for the byte 0x{byte:02x} and no unknown token")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
    },
    /// The precompiled character map contradicts itself.
    #[error("the precompiled character map is damaged: {reason}")]
    CharsMap {
        /// What was found.
        reason: &'static str,
    },
    /// The text is too long.
    #[error("the text has {found} bytes; at most {MAX_TEXT_BYTES} are encoded at once")]
    TextTooLong {
        /// Its length.
        found: usize,
    },
    /// An id beyond the vocabulary.
    #[error("token id {id} is out of range: the vocabulary has {n_vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        id: TokenId,
        /// Tokens of the vocabulary.
        n_vocab: usize,
    },
}
