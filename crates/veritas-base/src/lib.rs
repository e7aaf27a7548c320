//! Identifiers and digests that every crate may use.
#![forbid(unsafe_code)]

mod digest;

pub use digest::{Sha256Digest, Sha256Hasher};

/// Index of a token in a model's vocabulary.
pub type TokenId = u32;
