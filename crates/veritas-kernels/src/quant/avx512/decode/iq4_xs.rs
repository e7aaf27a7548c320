//! IQ4_XS: the values of IQ4_NL in eight sub-blocks of 32 with signed 6-bit scales.
//!
//! The values have eight bits, too many for sums of pairs in i16: `vpdpbusd` adds four products in i32, and the scale
//! multiplies the sums of a sub-block.

use std::arch::x86_64::*;

use veritas_quant::unpack::IQ4_XS;

use super::blocks32::{even_lanes, odd_lanes};
use super::blocks256::{Block256, Headers, lanes_of_blocks};
use super::iq4_nl::values;
use super::{bytes64, half_bits, q64, words32};
use crate::quant::avx512::vectors::nibbles;

impl Block256 for IQ4_XS {
    const PAIRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        let mut d = 0;
        for b in 0..N {
            d |= half_bits(blocks, 136 * b) << (16 * b);
        }
        // Of each lane: d, a word with two high bits for each scale, four bytes with nibbles.
        let packed = lanes_of_blocks::<N, 136, 0>(blocks);
        let low =
            _mm512_broadcast_i32x4(_mm_setr_epi8(4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1));
        let high = _mm512_broadcast_i32x4(_mm_set1_epi16(0x0302));
        let low = _mm512_shuffle_epi8(packed, low);
        let low = _mm512_srlv_epi16(low, _mm512_broadcast_i32x4(_mm_setr_epi16(0, 4, 0, 4, 0, 4, 0, 4)));
        let high = _mm512_shuffle_epi8(packed, high);
        let high = _mm512_srlv_epi16(high, _mm512_broadcast_i32x4(_mm_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14)));
        let high = _mm512_slli_epi16::<4>(_mm512_and_si512(high, _mm512_set1_epi16(3)));
        let scales = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)), high);
        let scales = _mm512_sub_epi16(scales, _mm512_set1_epi16(32));
        let zero = _mm512_setzero_si512();
        Headers {
            d: _mm_cvtph_ps(_mm_cvtsi64_si128(d.cast_signed())),
            d_min: _mm_setzero_ps(),
            scales: [scales, zero],
            // The codes are the values plus 128.
            mins: [_mm512_sub_epi16(zero, _mm512_slli_epi16::<7>(scales)), zero],
        }
    }

    /// Of the sub-blocks 0 to 3 the first halves, then the second ones; then of the others.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        let ([a, b], [c, d]) = (nibbles(bytes64(block, 8)), nibbles(bytes64(block, 72)));
        [values(a), values(b), values(c), values(d)]
    }

    /// In the lanes of the first vector the scales of the sub-blocks 0 to 3, in those of the second of 4 to 7, in i32.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        const PLACES: [[[i16; 32]; 2]; 4] = places();
        let pairs = [
            _mm512_permutexvar_epi16(words32(&PLACES[PLACE][0], 0), headers.scales[0]),
            _mm512_permutexvar_epi16(words32(&PLACES[PLACE][1], 0), headers.scales[0]),
        ];
        let zero = _mm512_setzero_si512();
        [_mm512_srai_epi32::<16>(pairs[0]), _mm512_srai_epi32::<16>(pairs[1]), zero, zero]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn dot(codes: &[__m512i; 4], scales: &[__m512i; 4], q: &[i8], at: usize) -> __m512i {
        let mut dot = _mm512_setzero_si512();
        for v in 0..2 {
            let q = [q64(q, at + 128 * v), q64(q, at + 128 * v + 64)];
            let first = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[2 * v], even_lanes(q[0], q[1]));
            let both = _mm512_dpbusd_epi32(first, codes[2 * v + 1], odd_lanes(q[0], q[1]));
            dot = _mm512_add_epi32(dot, _mm512_mullo_epi32(both, scales[v]));
        }
        dot
    }
}

/// By block and vector, the places of the scales: both words of four dwords for each of four sub-blocks.
const fn places() -> [[[i16; 32]; 2]; 4] {
    let mut places = [[[0; 32]; 2]; 4];
    let mut i = 0;
    while i < 4 * 2 * 32 {
        let (block, v, word) = (i / 64, i / 32 % 2, i % 32);
        places[block][v][word] = (8 * block + 4 * v + word / 8) as i16;
        i += 1;
    }
    places
}
