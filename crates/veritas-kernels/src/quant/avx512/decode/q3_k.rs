//! Q3_K: bit pairs and third bits, the weight plus four, in sixteen groups of 16 with signed 6-bit scales.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q3_K;

use super::blocks256::{Block256, Headers, lanes_of_blocks, scales_of_16, words_of_lanes};
use super::q2_k::bit_pairs;
use super::{bytes32, half_bits};

impl Block256 for Q3_K {
    const PAIRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        let mut d = 0;
        for b in 0..N {
            d |= half_bits(blocks, 110 * b + 108) << (16 * b);
        }
        // The last 16 bytes of a block: two of codes, then three words, then d. The nibbles of the first two words are the
        // low bits of the scales, first all low ones, then all high ones; the third word has the two high bits of each.
        let packed = lanes_of_blocks::<N, 110, 94>(blocks);
        let nibbles = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
        let pairs = _mm512_broadcast_i32x4(_mm_setr_epi8(
            10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13,
        ));
        let low = _mm512_shuffle_epi8(packed, nibbles);
        let low = _mm512_srlv_epi32(low, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 4)));
        let high = _mm512_shuffle_epi8(packed, pairs);
        let high = _mm512_srlv_epi32(high, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 2, 4, 6)));
        let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi8(3)));
        let scales = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), high);
        let scales = words_of_lanes(_mm512_sub_epi8(scales, _mm512_set1_epi8(32)));
        let offset = _mm512_set1_epi16(-4);
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
        let ([a, b], [c, d]) = (bit_pairs(bytes32(block, 32)), bit_pairs(bytes32(block, 64)));
        let high = _mm512_broadcast_i64x4(bytes32(block, 0));
        [add_third::<0>(a, high), add_third::<2>(b, high), add_third::<4>(c, high), add_third::<6>(d, high)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        scales_of_16::<PLACE>(headers)
    }
}

/// Adds the third bits of the strips `S` and `S + 1`, the bits of these numbers of each byte of `high`. A rotation brings
/// them to bit 2.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_third<const S: i32>(codes: __m512i, high: __m512i) -> __m512i {
    let (a, b) = ((2 - S) & 31, (1 - S) & 31);
    let turns = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
    let bits = _mm512_and_si512(_mm512_rolv_epi32(high, turns), _mm512_set1_epi8(4));
    _mm512_or_si512(codes, bits)
}
