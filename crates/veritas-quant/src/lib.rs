//! Block formats of GGML tensors: the portable oracle.
//!
//! What the bytes of a tensor mean ([`dequantize_row`]), how weights become such bytes ([`quantize_row`]), which
//! type each tensor of a file gets ([`mix`]) and what the product of a row with activations is ([`dot_row`]). All
//! of it is plain code that reads like the definition: faster code elsewhere is held to its results, bit for bit.
//!
//! ```
//! use veritas_quant::{GgmlType, dequantize_row, quantize_row};
//!
//! let weights: Vec<f32> = (0..256).map(|i| (i as f32 * 0.1).sin()).collect();
//! let mut bytes = vec![0; GgmlType::Q4_K.row_bytes(weights.len()).unwrap_or(0)];
//! quantize_row(GgmlType::Q4_K, &weights, None, &mut bytes)?;
//!
//! let mut restored = vec![0.0; weights.len()];
//! dequantize_row(GgmlType::Q4_K, &bytes, &mut restored)?;
//! assert!(weights.iter().zip(&restored).all(|(a, b)| (a - b).abs() < 0.1));
//! # Ok::<(), veritas_quant::Error>(())
//! ```
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
