//! CPU kernels per instruction set, and the thread team that runs them.
//!
//! Every operation has one defined order of floating-point operations per output element, and each level computes that
//! one: the results are the same bits on every instruction set, with any number of threads, in any batch. `lanes` says
//! how; `table` instantiates the operations per level; `Kernels` is the safe door to them.
//!
//! Architecture invariant: nothing here knows of models, files or sequences beyond their block tables.

// Register tiles are indexed by row and column, often of several arrays at once.
#![allow(clippy::needless_range_loop)]

mod activations;
mod attention;
mod columns;
mod elementwise;
mod error;
mod float;
mod kv;
mod lanes;
pub mod limits;
pub mod math;
mod matmul;
mod norms;
mod quant;
mod quantise;
mod rope;
mod table;
mod team;
mod tile;
mod vector;

pub use activations::Activations;
pub use attention::{AttentionConfig, attention};
pub use elementwise::Activation;
pub use error::Error;
pub use kv::{AttentionSequence, CacheType, KvLayout, PAGE_TOKENS, kv_store};
pub use matmul::{Matrix, Product, matmul, matmul_each};
pub use rope::RopeStyle;
pub use table::Kernels;
pub use team::{THREADS_MAX, Team};
pub use veritas_quant::activation::ActivationFormat;
pub use veritas_simd::Isa;
