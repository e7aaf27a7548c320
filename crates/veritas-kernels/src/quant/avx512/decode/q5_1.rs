//! Q5_1: nibbles, a word of fifth bits and a minimum.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q5_1;

use super::blocks32::{Block32, pick_words, places_in_lanes};
use super::q5_0::add_fifth_bits;
use crate::quant::avx512::vectors::nibbles;

impl Block32 for Q5_1 {
    const D_AT: usize = 0;
    const MIN_AT: usize = 2;
    const OFFSET: i16 = 0;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const CODES: [i16; 32] = places_in_lanes(24, 8, 8);
        const BITS: [i16; 32] = places_in_lanes(24, 4, 2);
        add_fifth_bits(nibbles(pick_words(blocks, &CODES)), pick_words(blocks, &BITS))
    }
}
