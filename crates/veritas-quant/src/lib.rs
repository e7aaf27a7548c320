//! Block formats of GGML tensors: the portable oracle.
#![forbid(unsafe_code)]

mod types;

pub use types::GgmlType;
