//! Block formats of GGML tensors: the portable oracle.
#![forbid(unsafe_code)]

pub mod activation;
mod dequantize;
mod dot;
mod error;
pub mod limits;
mod quantize;
pub mod tables;
mod types;
pub mod unpack;

pub use dequantize::dequantize_row;
pub use dot::{dot_row, dot_row_dequantized};
pub use error::Error;
pub use quantize::{is_quantizable, quantize_row};
pub use types::GgmlType;
