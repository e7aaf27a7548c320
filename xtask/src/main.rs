#![forbid(unsafe_code)]
//! `cargo xtask`.
fn main() {}
