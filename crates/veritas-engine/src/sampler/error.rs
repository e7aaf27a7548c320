use veritas_base::TokenId;

/// What can be wrong with sampling parameters or with the logits that are sampled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter lies outside the range in which it means something.
    #[error("{name} is {value}; expected {expected}")]
    OutOfRange {
        /// The parameter, in llama.cpp's spelling.
        name: &'static str,
        /// The value found.
        value: String,
        /// The range in words.
        expected: &'static str,
    },
    /// A sampler chain names a sampler that does not exist.
    #[error(
        "unknown sampler {name:?}; known: penalties, dry, top_n_sigma, top_k, typ_p, top_p, min_p, xtc, temperature"
    )]
    UnknownSampler {
        /// The name found.
        name: String,
    },
    /// A metadata key `general.sampling.*` holds a value of another type.
    #[error("metadata key {key} is {found}; expected {expected}")]
    Metadata {
        /// The key.
        key: String,
        /// The type or range expected.
        expected: &'static str,
        /// The value found.
        found: String,
    },
    /// The parameters ask for a random draw, and no seed was given. Whoever admits a request draws one and records it.
    #[error("no seed: temperature above 0 needs one, chosen when the request is admitted")]
    SeedMissing,
    /// A logit is NaN or infinite: the model file or the arithmetic is broken.
    #[error("the logit of token {id} is {value}, not a finite number")]
    LogitsNotFinite {
        /// The first such token.
        id: TokenId,
        /// Its logit.
        value: f32,
    },
    /// The row of logits has another length than the vocabulary.
    #[error("{found} logits; expected one per token of the vocabulary, {expected}")]
    LogitsLength {
        /// Size of the vocabulary.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// The prompt is said to be longer than the whole history.
    #[error("the history has {found} tokens, fewer than its prompt of {expected}")]
    HistoryTooShort {
        /// Tokens of the prompt.
        expected: usize,
        /// Tokens of the history.
        found: usize,
    },
    /// A token id in the logit bias, the history or a question about a log-probability is not in the vocabulary.
    #[error("token {id} is outside the vocabulary of {n_vocab} tokens")]
    TokenOutOfVocabulary {
        /// The id found.
        id: TokenId,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// Bans, biases and the mask leave no token to choose from.
    #[error("every token is forbidden by the mask, the logit bias, ignore_eos or min_tokens")]
    NoCandidate,
    /// Mirostat's state belongs to the next position, and another was asked for.
    #[error("mirostat samples positions in order: expected {expected}, found {found}")]
    OutOfOrder {
        /// Next position of the sequence.
        expected: usize,
        /// Position asked for.
        found: usize,
    },
    /// The tokenizer cannot encode the rest of a DRY sequence breaker.
    #[error("the DRY sequence breaker {breaker:?} cannot be tokenized")]
    Breaker {
        /// The breaker.
        breaker: String,
    },
}
