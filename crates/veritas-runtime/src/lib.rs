//! Processes: the supervisor that serves clients, and the confined workers that read models.
//!
//! Architecture invariant: the code of [`worker`] and [`jobs`] runs in a confined process and opens nothing; everything
//! else runs outside and never parses a model, a tokenizer or a template.
#![forbid(unsafe_code)]

pub mod config;
#[cfg(unix)]
pub mod supervisor;

pub mod host;
pub mod jobs;
pub mod link;
pub mod worker;

mod failure;
mod quantity;
mod spec;
mod text;

pub use failure::{Code, Failure};
pub use quantity::{short_bytes, short_count};
pub use spec::{EngineSpec, ModelSpec, available_threads, parse_cache_type, parse_isa, parse_override};
pub use text::{Paint, harmless, json_line};
