//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod chat;
mod conversation;
mod input;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod perplexity;
pub(crate) mod quantize;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod template;
pub(crate) mod tokenize;
