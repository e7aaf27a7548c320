//! Vectors of eight lanes from and to arrays.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn floats(x: &[f32; 8]) -> __m256 {
    // SAFETY: the array has eight elements, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(out: &mut [f32; 8], x: __m256) {
    // SAFETY: the array has eight elements, and the store needs no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), x) };
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn dwords(x: &[i32; 8]) -> __m256i {
    // SAFETY: the array has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// Four bytes in each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quads(x: &[[u8; 4]; 8]) -> __m256i {
    // SAFETY: the array has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

/// Two words in each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn words(x: &[[i16; 2]; 8]) -> __m256i {
    // SAFETY: the array has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}
