//! Q8_0: signed bytes.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q8_0;

use super::blocks32::{Block32, Order};
use super::bytes32;

impl Block32 for Q8_0 {
    const D_AT: usize = 0;
    const OFFSET: i16 = 128;
    const ORDER: Order = Order::Ascending;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        [pair(blocks, 2), pair(blocks, 70)]
    }
}

/// The 32 weights at `at` and those of the next block, plus 128.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn pair(blocks: &[u8], at: usize) -> __m512i {
    let first = _mm512_castsi256_si512(bytes32(blocks, at));
    let both = _mm512_inserti64x4::<1>(first, bytes32(blocks, at + 34));
    _mm512_xor_si512(both, _mm512_set1_epi8(-128))
}
