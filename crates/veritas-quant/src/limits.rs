//! The limits of this crate, each with its reason.

/// The largest magnitude that a weight may have in F16 and the block formats: the largest half-precision number.
///
/// Every block format can hold it without a scale that overflows, whatever else is in the block.
pub const MAX_WEIGHT: f32 = 65504.0;
