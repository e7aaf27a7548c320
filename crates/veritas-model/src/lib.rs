//! Architectures: metadata and tensors become a plan.
#![forbid(unsafe_code)]
