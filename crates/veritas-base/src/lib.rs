//! Identifiers, limits and digests that every crate may use.
#![forbid(unsafe_code)]
