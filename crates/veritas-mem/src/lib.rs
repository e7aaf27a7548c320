//! Memory that the rest of the program cannot get from `Vec`: aligned buffers and files mapped read-only.
//!
//! This is one of the few crates that may use unsafe code, so it offers nothing but these two nouns.

mod aligned;
mod error;
mod map;

pub use aligned::{AlignedBuf, BUFFER_ALIGNMENT, Plain};
pub use error::Error;
pub use map::Mmap;
