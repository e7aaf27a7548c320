//! Block formats of GGML tensors: the portable oracle.
#![forbid(unsafe_code)]

pub mod activation;
mod dequantize;
mod dot;
mod error;
mod importance;
pub mod limits;
pub mod mix;
mod quantize;
pub mod tables;
mod types;
pub mod unpack;

pub use dequantize::dequantize_row;
pub use dot::{dot_row, dot_row_dequantized};
pub use error::Error;
pub use importance::Importance;
pub use quantize::{is_quantizable, quantize_row};
pub use types::GgmlType;
