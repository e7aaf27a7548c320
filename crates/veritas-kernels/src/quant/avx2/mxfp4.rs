//! MXFP4: nibbles that stand for (doubled) E2M1 numbers, and a power of two.

use std::arch::x86_64::*;

use veritas_quant::tables::MXFP4_VALUES;
use veritas_quant::unpack::{MXFP4, half_of_e8m0};

use super::iq4_nl::looked_up;
use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, signed_pairs, store32};

impl Direct for MXFP4 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let weights = looked_up(&MXFP4_VALUES, nibbles(bytes16(block, 1)));
        _mm256_madd_epi16(signed_pairs(weights, q32(q, 0)), _mm256_set1_epi16(1))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn factors(blocks: [&[u8]; 4]) -> __m128 {
        let [a, b, c, d] = blocks.map(|block| half_of_e8m0(block[0]));
        _mm_setr_ps(a, b, c, d)
    }
}

impl Vector for MXFP4 {
    const BITS: u32 = 5;
    const CODE_OFFSET: u8 = 16;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        let values = looked_up(&MXFP4_VALUES, nibbles(bytes16(block, 1)));
        // The values are at most 12 in magnitude.
        store32(out, 0, _mm256_add_epi8(values, _mm256_set1_epi8(16)));
    }
}
