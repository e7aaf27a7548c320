//! IQ4_NL: nibbles that stand for sixteen fixed values.

use std::arch::x86_64::*;

use veritas_quant::tables::IQ4_NL_VALUES;
use veritas_quant::unpack::IQ4_NL;

use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, signed_pairs, store32};

impl Direct for IQ4_NL {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let weights = looked_up(&IQ4_NL_VALUES, nibbles(bytes16(block, 2)));
        _mm256_madd_epi16(signed_pairs(weights, q32(q, 0)), _mm256_set1_epi16(1))
    }
}

impl Vector for IQ4_NL {
    const BITS: u32 = 8;
    const CODE_OFFSET: u8 = 128;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        let values = looked_up(&IQ4_NL_VALUES, nibbles(bytes16(block, 2)));
        store32(out, 0, _mm256_xor_si256(values, _mm256_set1_epi8(-128)));
    }
}

/// The values of 32 codes below sixteen.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn looked_up(values: &[i8; 16], codes: __m256i) -> __m256i {
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    let values = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), codes)
}
