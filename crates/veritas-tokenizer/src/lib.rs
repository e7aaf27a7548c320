//! Tokenizers and chat templates as GGUF files describe them.
#![forbid(unsafe_code)]
