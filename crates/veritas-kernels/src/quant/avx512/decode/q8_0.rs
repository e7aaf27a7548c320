//! Q8_0: signed bytes.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q8_0;

use super::blocks32::{Block32, pick_words, places_in_lanes};

impl Block32 for Q8_0 {
    const D_AT: usize = 0;
    const OFFSET: i16 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const FIRST: [i16; 32] = places_in_lanes(34, 2, 8);
        // The second halves end eight bytes beyond two vectors, so that these begin eight bytes later.
        const LATER: usize = 8;
        const SECOND: [i16; 32] = places_in_lanes(34, 18 - LATER, 8);
        let sign = _mm512_set1_epi8(-128);
        [
            _mm512_xor_si512(pick_words(blocks, &FIRST), sign),
            _mm512_xor_si512(pick_words(&blocks[LATER..], &SECOND), sign),
        ]
    }
}
