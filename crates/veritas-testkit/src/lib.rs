//! What tests share: golden data, oracles, fixtures. Never shipped.
#![forbid(unsafe_code)]
