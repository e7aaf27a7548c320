//! Q6_K: low nibbles and high bit pairs, the weight plus 32, in sixteen groups of 16 with signed scales.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q6_K;

use super::blocks256::{Block256, Headers, lanes_of_blocks, scales_of_16, words_of_lanes};
use super::{bytes32, bytes64, half_bits};
use crate::quant::avx512::vectors::nibbles;

impl Block256 for Q6_K {
    const PAIRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        let mut d = 0;
        for b in 0..N {
            d |= half_bits(blocks, 210 * b + 208) << (16 * b);
        }
        let scales = words_of_lanes(lanes_of_blocks::<N, 210, 192>(blocks));
        let offset = _mm512_set1_epi16(-32);
        Headers {
            d: _mm_cvtph_ps(_mm_cvtsi64_si128(d.cast_signed())),
            d_min: _mm_setzero_ps(),
            scales,
            mins: [_mm512_mullo_epi16(scales[0], offset), _mm512_mullo_epi16(scales[1], offset)],
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        let ([a, b], [c, d]) = (half(block, 0), half(block, 1));
        [a, b, c, d]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        scales_of_16::<PLACE>(headers)
    }
}

/// The 128 codes of half a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn half(block: &[u8], half: usize) -> [__m512i; 2] {
    let pair = _mm512_set1_epi8(0x30);
    // Rotations that bring the bit pairs of a strip of 32 to bits 4 and 5.
    let first = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    let second = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 30, 30, 30, 30, 30, 30, 30, 30);
    let [low, next] = nibbles(bytes64(block, 64 * half));
    let high = _mm512_broadcast_i64x4(bytes32(block, 128 + 32 * half));
    let first = _mm512_and_si512(_mm512_rolv_epi32(high, first), pair);
    let second = _mm512_and_si512(_mm512_rolv_epi32(high, second), pair);
    [_mm512_or_si512(low, first), _mm512_or_si512(next, second)]
}
