//! Q3_K: bit pairs and third bits, the weight plus four, in sixteen groups of 16 with signed 6-bit scales.

use std::arch::x86_64::*;

use veritas_quant::unpack::{GROUP, Q3_K};

use super::panel::Vector;
use super::q6_k::scale_pair;
use super::{Direct, bytes32, q32, store32, words16};

impl Direct for Q3_K {
    const D_AT: usize = 108;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], sums: &[i16]) -> __m256i {
        let scales = scales(block);
        // What the offset of four adds: −4 · Σ scale · sum.
        let offset = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), words16(sums));
        let mut acc = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<2>(offset));
        // Bit s of each byte belongs to sub-block s: after each sub-block the next bit comes down to the bottom.
        let mut high = bytes32(block, 0);
        for half in 0..2 {
            let mut codes = bytes32(block, 32 + 32 * half);
            for strip in 0..4 {
                let sub = 4 * half + strip;
                let third = _mm256_slli_epi16::<2>(_mm256_and_si256(high, _mm256_set1_epi8(1)));
                let quants = _mm256_or_si256(_mm256_and_si256(codes, _mm256_set1_epi8(3)), third);
                codes = _mm256_srli_epi16::<2>(codes);
                high = _mm256_srli_epi16::<1>(high);
                let pairs = _mm256_maddubs_epi16(quants, q32(q, 32 * sub));
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, scale_pair(scales, sub)));
            }
        }
        acc
    }
}

impl Vector for Q3_K {
    const BITS: u32 = 4;
    const CODE_OFFSET: u8 = 4;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        let mut high = bytes32(block, 0);
        for half in 0..2 {
            let mut codes = bytes32(block, 32 + 32 * half);
            for strip in 0..4 {
                let third = _mm256_slli_epi16::<2>(_mm256_and_si256(high, _mm256_set1_epi8(1)));
                let low = _mm256_and_si256(codes, _mm256_set1_epi8(3));
                store32(out, 128 * half + 32 * strip, _mm256_or_si256(low, third));
                codes = _mm256_srli_epi16::<2>(codes);
                high = _mm256_srli_epi16::<1>(high);
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        let mut scales = [0; GROUP];
        for (scales, words) in scales.chunks_exact_mut(4).zip(scale_words(block)) {
            for (scale, byte) in scales.iter_mut().zip(words.to_le_bytes()) {
                *scale = byte.cast_signed() - 32;
            }
        }
        (scales, [0; GROUP])
    }
}

/// The sixteen scales.
#[inline]
#[target_feature(enable = "avx2")]
fn scales(block: &[u8]) -> __m128i {
    let [a, b, c, d] = scale_words(block).map(u32::cast_signed);
    _mm_sub_epi8(_mm_setr_epi32(a, b, c, d), _mm_set1_epi8(32))
}

/// The sixteen scales plus 32, four in a word.
#[inline(always)]
fn scale_words(block: &[u8]) -> [u32; 4] {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let low = [word(96), word(100), word(96) >> 4, word(100) >> 4];
    let high = word(104);
    // Each word holds the low nibbles of four scales and two high bits each.
    std::array::from_fn(|i| (low[i] & 0x0F0F_0F0F) | (((high >> (2 * i)) & 0x0303_0303) << 4))
}
