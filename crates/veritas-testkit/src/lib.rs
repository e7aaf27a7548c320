//! What tests share: golden data, oracles, fixtures. Never shipped.
#![forbid(unsafe_code)]

pub mod data;
pub mod fuzz;

pub use data::{Tensor, Tensors, committed, test_data};
