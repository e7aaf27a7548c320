//! Block pool and scheduler: pure state machines.
#![forbid(unsafe_code)]
