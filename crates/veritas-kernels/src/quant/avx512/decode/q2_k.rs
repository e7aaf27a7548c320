//! Q2_K: bit pairs in sixteen groups of 16 with 4-bit scales and minimums.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q2_K;

use super::blocks256::{Block256, Headers, lanes_of_blocks, scales_of_16, words_of_lanes};
use super::{bytes32, half_bits};

impl Block256 for Q2_K {
    const PAIRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        let (mut d, mut d_min) = (0, 0);
        for b in 0..N {
            d |= half_bits(blocks, 84 * b + 80) << (16 * b);
            d_min |= half_bits(blocks, 84 * b + 82) << (16 * b);
        }
        let packed = lanes_of_blocks::<N, 84, 0>(blocks);
        let four = _mm512_set1_epi8(15);
        Headers {
            d: _mm_cvtph_ps(_mm_cvtsi64_si128(d.cast_signed())),
            d_min: _mm_cvtph_ps(_mm_cvtsi64_si128(d_min.cast_signed())),
            scales: words_of_lanes(_mm512_and_si512(packed, four)),
            mins: words_of_lanes(_mm512_and_si512(_mm512_srli_epi16::<4>(packed), four)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        let ([a, b], [c, d]) = (bit_pairs(bytes32(block, 16)), bit_pairs(bytes32(block, 48)));
        [a, b, c, d]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        scales_of_16::<PLACE>(headers)
    }
}

/// Of 32 bytes the lowest bit pairs, then the second ones; the third, then the fourth.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn bit_pairs(bytes: __m256i) -> [__m512i; 2] {
    let bytes = _mm512_broadcast_i64x4(bytes);
    let two = _mm512_set1_epi8(3);
    let first = _mm512_srlv_epi64(bytes, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
    let second = _mm512_srlv_epi64(bytes, _mm512_setr_epi64(4, 4, 4, 4, 6, 6, 6, 6));
    [_mm512_and_si512(first, two), _mm512_and_si512(second, two)]
}
