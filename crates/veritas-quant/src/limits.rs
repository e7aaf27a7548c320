//! The limits of this crate, each with its reason.

/// The largest magnitude that a weight may have in F16 and the block formats: the largest half-precision number.
///
/// Every block format can hold it without a scale that overflows, whatever else is in the block.
pub const MAX_WEIGHT: f32 = 65504.0;

/// Entries of an importance matrix: as many as tensors in the largest models that are read.
pub const MAX_IMPORTANCE_ENTRIES: usize = 65_536;

/// Bytes of the name of an entry; ggml's names have 63 at most, its derivatives' 127.
pub const MAX_IMPORTANCE_NAME_BYTES: usize = 256;
