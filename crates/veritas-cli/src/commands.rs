//! The commands, one file each.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod config;
pub(crate) mod conversation;
pub(crate) mod embed;
pub(crate) mod generate;
mod input;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod models;
pub(crate) mod perplexity;
pub(crate) mod probe;
pub(crate) mod quantize;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod talk;
pub(crate) mod template;
pub(crate) mod tokenize;

pub(crate) use input::stdin_text;
