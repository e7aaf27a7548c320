//! Reader and writer of GGUF files over byte slices.
#![forbid(unsafe_code)]
