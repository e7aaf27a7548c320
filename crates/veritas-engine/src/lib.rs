//! The step loop, the CPU backend and the sampler.
#![forbid(unsafe_code)]
