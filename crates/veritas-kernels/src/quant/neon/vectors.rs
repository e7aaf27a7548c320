//! Vectors of four lanes from and to arrays.

use std::arch::aarch64::*;

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn floats(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: the array has four elements.
    unsafe { vld1q_f32(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(out: &mut [f32; 4], x: float32x4_t) {
    // SAFETY: the array has four elements.
    unsafe { vst1q_f32(out.as_mut_ptr(), x) };
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dwords(x: &[i32; 4]) -> int32x4_t {
    // SAFETY: the array has four elements.
    unsafe { vld1q_s32(x.as_ptr()) }
}

/// Four bytes in each lane.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn quads(x: &[[i8; 4]; 4]) -> int8x16_t {
    // SAFETY: the array has 16 bytes.
    unsafe { vld1q_s8(x.as_ptr().cast()) }
}
