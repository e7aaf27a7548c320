//! Tokenizers and chat templates as GGUF files describe them.
//!
//! [`Tokenizer`] reads the vocabulary of a file and turns texts into ids and back. Four algorithms are known, by
//! `tokenizer.ggml.model`: SentencePiece's BPE ("llama"), byte-pair encoding ("gpt2", "gemma4"), WordPiece
//! ("bert") and Unigram ("t5").
//!
//! Two promises go beyond equal ids. A vocabulary and a text may be hostile: they give a typed error, never a
//! panic, and take memory in proportion to their size. And **no text can name a control token** unless the caller
//! asks for it: roles come from the template's own text and from explicit ids alone.
#![forbid(unsafe_code)]

mod bpe;
mod byte_alphabet;
mod charsmap;
pub mod chat;
mod cuts;
mod error;
mod hash;
pub mod limits;
mod merge;
mod nfc;
mod pair_table;
mod pretokenize;
mod special;
mod spm;
mod stream;
mod text_index;
mod tokenizer;
mod ugm;
mod unicode;
mod vocabulary;
mod word_cache;
mod wpm;

pub use error::Error;
pub use stream::StreamDecoder;
pub use tokenizer::{EncodeOptions, Tokenizer};
