//! Q5_K: as Q4_K, with fifth bits.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q5_K;

use super::blocks256::{Block256, Headers};
use super::{bytes32, q4_k};

impl Block256 for Q5_K {
    const PAIRED: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        q4_k::headers::<N, 176>(blocks)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        let codes = q4_k::codes(block, 48);
        let high = _mm512_broadcast_i64x4(bytes32(block, 16));
        [
            add_fifth::<0, 2>(codes[0], high),
            add_fifth::<1, 3>(codes[1], high),
            add_fifth::<4, 6>(codes[2], high),
            add_fifth::<5, 7>(codes[3], high),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        q4_k::scales::<PLACE>(headers)
    }
}

/// Adds the fifth bits of sub-block `A` in the lower half and of `B` in the upper: bits `A` and `B` of each byte of `high`.
/// A rotation brings them to bit 4.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_fifth<const A: i32, const B: i32>(codes: __m512i, high: __m512i) -> __m512i {
    let (a, b) = ((4 - A) & 31, (4 - B) & 31);
    let turns = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
    let bits = _mm512_and_si512(_mm512_rolv_epi32(high, turns), _mm512_set1_epi8(16));
    _mm512_or_si512(codes, bits)
}
