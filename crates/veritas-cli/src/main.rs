#![forbid(unsafe_code)]
//! The binary `veritas-sdr`.
fn main() {}
