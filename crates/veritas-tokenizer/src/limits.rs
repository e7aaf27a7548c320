//! Every limit of this crate, each with its reason. A vocabulary and a text may both be hostile.

/// Tokens of a vocabulary. The largest published vocabularies have about 262,000; an id and its place in a
/// table must fit in 32 bits with room to spare.
pub const MAX_TOKENS: usize = 1 << 22;

/// Bytes of all token texts together, which are kept once more in memory. The largest vocabulary here has
/// three MiB; the limit also keeps offsets in 32 bits.
pub const MAX_VOCABULARY_BYTES: usize = 256 << 20;

/// Bytes of one token's text. Published vocabularies have runs of spaces of at most 1,024 bytes. Searches for
/// the longest token at a place of a text take time in proportion to this.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Merges of a BPE vocabulary. The largest published list has about 515,000.
pub const MAX_MERGES: usize = 1 << 23;

/// Bytes of the table of a precompiled character map. The one of SentencePiece's nmt_nfkc has 240 kB.
pub const MAX_CHARSMAP_BYTES: usize = 16 << 20;

/// Bytes of a text to encode. A word of n bytes takes up to about 60·n bytes while it is merged, and
/// SentencePiece vocabularies treat the whole text as one word. No context holds as many tokens.
pub const MAX_TEXT_BYTES: usize = 32 << 20;

/// Characters of a word of a WordPiece vocabulary; a longer one is the unknown token, as in the reference
/// implementation, whose search takes quadratic time.
pub const MAX_WORD_PIECE_CHARS: usize = 100;

/// Caches of words that a tokenizer keeps for the next texts, of about 10 MiB each. A text takes one while it is encoded; of
/// more than so many that were encoded at once, the caches go when they end.
pub const MAX_IDLE_CACHES: usize = 4;
