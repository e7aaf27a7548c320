//! Q6_K: low nibbles and high bit pairs, the weight plus 32, in sixteen groups of 16 with signed scales.

use std::arch::x86_64::*;

use veritas_quant::unpack::{GROUP, Q6_K};

use super::panel::Vector;
use super::{Direct, bytes16, bytes32, q32, store32, words16};

impl Direct for Q6_K {
    const D_AT: usize = 208;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], sums: &[i16]) -> __m256i {
        let scales = bytes16(block, 192);
        // What the offset of 32 adds: −32 · Σ scale · sum.
        let offset = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), words16(sums));
        let mut acc = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<5>(offset));
        for half in 0..2 {
            for (strip, quants) in half_codes(block, half).into_iter().enumerate() {
                let sub = 4 * half + strip;
                let products = _mm256_maddubs_epi16(quants, q32(q, 32 * sub));
                acc = _mm256_add_epi32(acc, _mm256_madd_epi16(products, scale_pair(scales, sub)));
            }
        }
        acc
    }
}

impl Vector for Q6_K {
    const BITS: u32 = 6;
    const CODE_OFFSET: u8 = 32;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        for half in 0..2 {
            for (strip, codes) in half_codes(block, half).into_iter().enumerate() {
                store32(out, 128 * half + 32 * strip, codes);
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        (std::array::from_fn(|g| block[192 + g].cast_signed()), [0; GROUP])
    }
}

/// Scales 2 · sub and 2 · sub + 1 as i16, eight times each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scale_pair(scales: __m128i, sub: usize) -> __m256i {
    let place = 0x0101_0101_0101_0101 * (2 * sub as i64);
    let places = _mm_set_epi64x(place + 0x0101_0101_0101_0101, place);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, places))
}

/// The codes of half a block: four strips of 32.
#[inline]
#[target_feature(enable = "avx2")]
fn half_codes(block: &[u8], half: usize) -> [__m256i; 4] {
    let low = _mm256_set1_epi8(15);
    let pair = _mm256_set1_epi8(0x30);
    let codes = [bytes32(block, 64 * half), bytes32(block, 64 * half + 32)];
    let high = bytes32(block, 128 + 32 * half);
    [
        _mm256_or_si256(
            _mm256_and_si256(codes[0], low),
            _mm256_and_si256(_mm256_slli_epi16::<4>(high), pair),
        ),
        _mm256_or_si256(
            _mm256_and_si256(codes[1], low),
            _mm256_and_si256(_mm256_slli_epi16::<2>(high), pair),
        ),
        _mm256_or_si256(
            _mm256_and_si256(_mm256_srli_epi16::<4>(codes[0]), low),
            _mm256_and_si256(high, pair),
        ),
        _mm256_or_si256(
            _mm256_and_si256(_mm256_srli_epi16::<4>(codes[1]), low),
            _mm256_and_si256(_mm256_srli_epi16::<2>(high), pair),
        ),
    ]
}
