//! Q2_K: bit pairs in sixteen groups of 16 with 4-bit scales and minimums.

use std::arch::x86_64::*;

use veritas_quant::unpack::{GROUP, Q2_K};

use super::panel::Vector;
use super::q6_k::scale_pair;
use super::{Direct, bytes16, bytes32, q32, store32, words16};

impl Direct for Q2_K {
    const D_AT: usize = 80;
    const D_MIN_AT: usize = 82;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let scales = _mm_and_si128(bytes16(block, 0), _mm_set1_epi8(15));
        let mut acc = _mm256_setzero_si256();
        for half in 0..2 {
            let mut codes = bytes32(block, 16 + 32 * half);
            for strip in 0..4 {
                let sub = 4 * half + strip;
                let quants = _mm256_and_si256(codes, _mm256_set1_epi8(3));
                codes = _mm256_srli_epi16::<2>(codes);
                let pairs = _mm256_maddubs_epi16(quants, q32(q, 32 * sub));
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, scale_pair(scales, sub)));
            }
        }
        acc
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(block: &[u8], sums: &[i16]) -> __m256i {
        let mins = _mm_and_si128(_mm_srli_epi16::<4>(bytes16(block, 0)), _mm_set1_epi8(15));
        _mm256_madd_epi16(_mm256_cvtepu8_epi16(mins), words16(sums))
    }
}

impl Vector for Q2_K {
    const BITS: u32 = 4;
    const CODE_OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        for half in 0..2 {
            let mut codes = bytes32(block, 16 + 32 * half);
            for strip in 0..4 {
                store32(out, 128 * half + 32 * strip, _mm256_and_si256(codes, _mm256_set1_epi8(3)));
                codes = _mm256_srli_epi16::<2>(codes);
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        let scales = &block[..GROUP];
        let low = std::array::from_fn(|g| (scales[g] & 15).cast_signed());
        (low, std::array::from_fn(|g| (scales[g] >> 4).cast_signed()))
    }
}
