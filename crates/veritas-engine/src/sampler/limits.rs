//! Limits on what a request may ask of the sampler, each with its reason.

/// Stop strings of one request. OpenAI allows 4; agents send more. Each is compared at every byte of the answer.
pub const MAX_STOP_STRINGS: usize = 64;

/// Bytes of one stop string. It bounds the text that a [`StopMatcher`](super::StopMatcher) may hold back.
pub const MAX_STOP_BYTES: usize = 1024;

/// Log-probabilities reported per token beside the chosen one. Bounds the size of an answer, not the arithmetic.
pub const MAX_TOP_LOGPROBS: u32 = 1024;

/// Entries of the logit bias. OpenAI allows 300; whole token classes are banned this way in practice.
pub const MAX_LOGIT_BIASES: usize = 65_536;

/// Samplers in one chain. The nine that exist, each a few times over.
pub const MAX_CHAIN: usize = 32;

/// Sequence breakers of DRY.
pub const MAX_DRY_BREAKERS: usize = 64;

/// Bytes of one DRY sequence breaker: llama.cpp's `MAX_CHAR_LEN`, beyond which it cuts; here it is an error.
pub const MAX_DRY_BREAKER_BYTES: usize = 40;

/// Tokens compared after the token that begins a DRY breaker: llama.cpp's `MAX_SEQ_LEN`. It keeps the search for
/// the last breaker linear in the window.
pub const MAX_DRY_TAIL_TOKENS: usize = 20;
