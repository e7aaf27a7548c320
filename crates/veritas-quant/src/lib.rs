//! Block formats of GGML tensors: the portable oracle.
#![forbid(unsafe_code)]

pub mod tables;
mod types;

pub use types::GgmlType;
