//! Architectures: the metadata and tensors of a GGUF file become a [`Plan`], which says as data what an engine computes.
//!
//! A plan names matrices and vectors by their place in the file; it holds no weights. Fused matrices
//! (query, key and value in one; gate and up in one) are cut into their parts here, by rows, so that an engine sees
//! one form only. What an engine cannot run yet (mixture of experts, recurrent layers) is said in the same words,
//! and [`Plan::needs`] lists it.
//!
//! Architecture invariant: this crate opens no file and computes no token; it reads metadata and shapes.
#![forbid(unsafe_code)]

mod build;
mod error;
mod families;
pub mod limits;
mod plan;
mod rope;

pub use error::Error;
pub use families::{build_plan, supported_architectures};
pub use plan::{
    Activation, Attention, Embedding, FeedForward, Gated, Head, LatentAttention, Layer, Linear, MatrixRef,
    Mixer, MoeConfig, Need, Norm, NormKind, Plain, Plan, QkNorm, Recurrent, RecurrentKind, Residual,
    RouterScore, VectorRef,
};
pub use rope::{Rope, RopeScaling, RopeStyle};
