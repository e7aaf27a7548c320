//! Oracles of the fuzz targets: each takes what the fuzzer made and panics if a promise is broken.
//!
//! The targets in `fuzz/` and the tests that run the committed corpus call the same functions.

pub mod frame;
pub mod gguf;
pub mod plan;
pub mod quant;
pub mod sched;
pub mod template;
