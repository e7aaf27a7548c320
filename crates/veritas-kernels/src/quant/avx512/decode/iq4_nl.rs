//! IQ4_NL: nibbles that pick one of sixteen values.

use std::arch::x86_64::*;

use veritas_quant::tables::IQ4_NL_VALUES;
use veritas_quant::unpack::IQ4_NL;

use super::blocks32::{Block32, pick_words, places_in_lanes};
use crate::quant::avx512::vectors::nibbles;

impl Block32 for IQ4_NL {
    const D_AT: usize = 0;
    const OFFSET: i16 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const CODES: [i16; 32] = places_in_lanes(18, 2, 8);
        let [first, second] = nibbles(pick_words(blocks, &CODES));
        [values(first), values(second)]
    }
}

/// The values of codes below sixteen, plus 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::quant::avx512) fn values(codes: __m512i) -> __m512i {
    // SAFETY: the array has 16 bytes, and the load needs no alignment.
    let values = unsafe { _mm_loadu_si128(IQ4_NL_VALUES.as_ptr().cast()) };
    let values = _mm_xor_si128(values, _mm_set1_epi8(-128));
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), codes)
}
