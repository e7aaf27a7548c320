//! Q5_0: nibbles and a word of fifth bits, the weight plus sixteen.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q5_0;

use super::blocks32::{Block32, pick_words, places_in_lanes};
use crate::quant::avx512::vectors::nibbles;

impl Block32 for Q5_0 {
    const D_AT: usize = 0;
    const OFFSET: i16 = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const CODES: [i16; 32] = places_in_lanes(22, 6, 8);
        const BITS: [i16; 32] = places_in_lanes(22, 2, 2);
        add_fifth_bits(nibbles(pick_words(blocks, &CODES)), pick_words(blocks, &BITS))
    }
}

/// Adds 16 to the codes whose bit is set in the block's word of fifth bits, with which its lane of `bits` begins.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn add_fifth_bits(codes: [__m512i; 2], bits: __m512i) -> [__m512i; 2] {
    // Each byte of a lane gets the byte that holds its bit, of which the others are ignored.
    let (low, high) = (0x0101_0101_0101_0101, 0x0202_0202_0202_0202);
    let spread = [
        _mm512_broadcast_i32x4(_mm_set_epi64x(low, 0)),
        _mm512_broadcast_i32x4(_mm_set_epi64x(high + low, high)),
    ];
    let one_bit = _mm512_set1_epi64(0x8040_2010_0804_0201_u64.cast_signed());
    let sixteen = _mm512_set1_epi8(16);
    let first = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, spread[0]), one_bit);
    let second = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, spread[1]), one_bit);
    [
        _mm512_mask_add_epi8(codes[0], first, codes[0], sixteen),
        _mm512_mask_add_epi8(codes[1], second, codes[1], sixteen),
    ]
}
