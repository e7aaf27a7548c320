//! What can go wrong between a file and a token.

use thiserror::Error;

/// Any error of the engine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or mapped.
    #[error(transparent)]
    File(#[from] veritas_mem::Error),
    /// The file is not a valid GGUF file.
    #[error(transparent)]
    Gguf(#[from] veritas_gguf::Error),
    /// No plan can be made of it.
    #[error(transparent)]
    Model(#[from] veritas_model::Error),
    /// Its tokenizer is malformed or unknown, or a text cannot be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] veritas_tokenizer::Error),
    /// A block of weights is malformed.
    #[error(transparent)]
    Quant(#[from] veritas_quant::Error),
    /// A kernel refused its operands.
    #[error(transparent)]
    Kernels(#[from] veritas_kernels::Error),
    /// The sampling parameters are wrong.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::Error),
    /// The model needs what no backend runs.
    #[error("the model needs {what}, which is not supported")]
    Unsupported {
        /// What is missing.
        what: String,
    },
    /// A tensor does not lie within its file.
    #[error("the tensor `{name}` does not lie within its file")]
    TensorOutsideFile {
        /// The tensor's name.
        name: String,
    },
    /// A rotary factor is not a number above zero.
    #[error("a rotary factor is {found}, but must be a finite number above zero")]
    RopeFactor {
        /// The factor in the file.
        found: f32,
    },
    /// The tokenizer has more tokens than the embedding has rows.
    #[error("the tokenizer has {tokenizer} tokens, but the embedding has {embedding} rows")]
    VocabularySize {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        embedding: usize,
    },
    /// The model computed something that is not a number.
    #[error("the model's logits are not finite (first at token {token})")]
    LogitsNotFinite {
        /// The first such token.
        token: usize,
    },
    /// A token id is not in the vocabulary.
    #[error("token {id} is not in the vocabulary, which has {n_vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        id: usize,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// A position has no learned embedding.
    #[error("position {position} has no embedding; the model has {n_positions}")]
    PositionOutOfRange {
        /// The position.
        position: usize,
        /// Positions of the model.
        n_positions: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {prompt} tokens, but the context holds {context}")]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// The context that was asked for is longer than the model's.
    #[error("a context of {asked} tokens was asked for, but the model was made for {model}")]
    ContextTooLong {
        /// What was asked for.
        asked: usize,
        /// What the model was made for.
        model: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt holds no token")]
    EmptyPrompt,
    /// The scheduler refused a sequence.
    #[error(transparent)]
    Admission(#[from] veritas_sched::AdmissionError),
    /// A request was not answered in time.
    #[error("the request was not answered by its deadline")]
    DeadlineExceeded,
    /// There is no memory for the KV cache.
    #[error("the KV cache needs {bytes} bytes for one layer, which cannot be had")]
    CacheMemory {
        /// Bytes of a layer.
        bytes: usize,
    },
    /// The text is too short to be scored.
    #[error("the text has {found} tokens, but at least {needed} are needed")]
    TextTooShort {
        /// Tokens of the text.
        found: usize,
        /// Tokens of one chunk.
        needed: usize,
    },
    /// The model has no chat template.
    #[error("the model has no chat template")]
    NoChatTemplate,
    /// A promise between two parts of this crate was broken.
    #[error("internal error: {what}")]
    Internal {
        /// The promise.
        what: &'static str,
    },
}

/// What kind of trouble an error is, for a program that must react to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The model's file is malformed, or what it computes is.
    MalformedModel,
    /// The file may be in order, but cannot be run here.
    UnsupportedModel,
    /// The file cannot be read.
    NotFound,
    /// The prompt does not fit the context.
    ContextExceeded,
    /// What was asked for makes no sense.
    Usage,
    /// Too many wait already.
    QueueFull,
    /// It took too long.
    Timeout,
    /// Anything else.
    Internal,
}

impl Error {
    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File(_) => ErrorKind::NotFound,
            Self::Model(error) if error.is_unsupported() => ErrorKind::UnsupportedModel,
            Self::Unsupported { .. } => ErrorKind::UnsupportedModel,
            Self::Kernels(veritas_kernels::Error::IsaUnavailable { .. }) => ErrorKind::Usage,
            Self::Gguf(_)
            | Self::Model(_)
            | Self::Quant(_)
            | Self::TensorOutsideFile { .. }
            | Self::RopeFactor { .. }
            | Self::VocabularySize { .. }
            | Self::LogitsNotFinite { .. }
            | Self::Kernels(_) => ErrorKind::MalformedModel,
            Self::Tokenizer(error) => tokenizer_kind(error),
            Self::ContextExceeded { .. } => ErrorKind::ContextExceeded,
            Self::Admission(
                veritas_sched::AdmissionError::QueueFull { .. }
                | veritas_sched::AdmissionError::PrincipalQueueFull { .. },
            ) => ErrorKind::QueueFull,
            Self::DeadlineExceeded => ErrorKind::Timeout,
            Self::Sampler(crate::sampler::Error::LogitsNotFinite { .. }) => ErrorKind::MalformedModel,
            Self::Sampler(_)
            | Self::TokenOutOfRange { .. }
            | Self::PositionOutOfRange { .. }
            | Self::ContextTooLong { .. }
            | Self::EmptyPrompt
            | Self::Admission(_)
            | Self::CacheMemory { .. }
            | Self::TextTooShort { .. }
            | Self::NoChatTemplate => ErrorKind::Usage,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

fn tokenizer_kind(error: &veritas_tokenizer::Error) -> ErrorKind {
    use veritas_tokenizer::Error as E;
    match error {
        E::UnknownModel { .. } | E::UnknownPreTokenizer { .. } => ErrorKind::UnsupportedModel,
        E::TextTooLong { .. } | E::TokenOutOfRange { .. } => ErrorKind::Usage,
        _ => ErrorKind::MalformedModel,
    }
}
