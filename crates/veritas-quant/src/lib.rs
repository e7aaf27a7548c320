//! Block formats of GGML tensors: the portable oracle.
#![forbid(unsafe_code)]

mod dequantize;
mod error;
pub mod tables;
mod types;

pub use dequantize::dequantize_row;
pub use error::Error;
pub use types::GgmlType;
