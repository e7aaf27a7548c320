//! Q5_K: as Q4_K, with fifth bits.

use std::arch::x86_64::*;

use veritas_quant::unpack::{GROUP, Q5_K};

use super::panel::Vector;
use super::q4_k::{mins, scales, six_bits};
use super::{Direct, bytes32, q32, store32};

impl Direct for Q5_K {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let scales = scales(block);
        let low = _mm256_set1_epi8(15);
        // Bit s of each byte belongs to sub-block s: after each pair the next two bits come down to the bottom.
        let mut high = bytes32(block, 16);
        let mut acc = _mm256_setzero_si256();
        for pair in 0..4 {
            let codes = bytes32(block, 48 + 32 * pair);
            let first_high = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(1)));
            let second_high = _mm256_slli_epi16::<3>(_mm256_and_si256(high, _mm256_set1_epi8(2)));
            let first = _mm256_or_si256(_mm256_and_si256(codes, low), first_high);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
            let second = _mm256_or_si256(second, second_high);
            high = _mm256_srli_epi16::<2>(high);
            let first = _mm256_maddubs_epi16(first, q32(q, 64 * pair));
            let second = _mm256_maddubs_epi16(second, q32(q, 64 * pair + 32));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(first, _mm256_set1_epi16(scales[2 * pair])));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(second, _mm256_set1_epi16(scales[2 * pair + 1])));
        }
        acc
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(block: &[u8], sums: &[i16]) -> __m256i {
        mins(block, sums)
    }
}

impl Vector for Q5_K {
    const BITS: u32 = 5;
    const CODE_OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        let (low, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let mut high = bytes32(block, 16);
        for pair in 0..4 {
            let codes = bytes32(block, 48 + 32 * pair);
            let first = _mm256_and_si256(codes, low);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
            let first_high = _mm256_and_si256(_mm256_slli_epi16::<4>(high), sixteen);
            let second_high = _mm256_and_si256(_mm256_slli_epi16::<3>(high), sixteen);
            store32(out, 64 * pair, _mm256_or_si256(first, first_high));
            store32(out, 64 * pair + 32, _mm256_or_si256(second, second_high));
            high = _mm256_srli_epi16::<2>(high);
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        six_bits(block)
    }
}
