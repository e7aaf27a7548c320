//! Vectors of sixteen lanes from and to arrays.

use std::arch::x86_64::*;

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn floats(x: &[f32; 16]) -> __m512 {
    // SAFETY: the array has sixteen elements, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(out: &mut [f32; 16], x: __m512) {
    // SAFETY: the array has sixteen elements, and the store needs no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) };
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn dwords(x: &[i32; 16]) -> __m512i {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// Four bytes in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn quads(x: &[[u8; 4]; 16]) -> __m512i {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// Two words in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words(x: &[[i16; 2]; 16]) -> __m512i {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// The low and the high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn nibbles(codes: __m512i) -> [__m512i; 2] {
    let low = _mm512_set1_epi8(15);
    [_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low)]
}
