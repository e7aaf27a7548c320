//! Q4_0: nibbles, the weight plus eight.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q4_0;

use super::blocks32::{Block32, pick_words, places_in_lanes};
use crate::quant::avx512::vectors::nibbles;

impl Block32 for Q4_0 {
    const D_AT: usize = 0;
    const OFFSET: i16 = 8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const CODES: [i16; 32] = places_in_lanes(18, 2, 8);
        nibbles(pick_words(blocks, &CODES))
    }
}
