//! Q4_K: nibbles in eight sub-blocks of 32 with 6-bit scales and minimums.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q4_K;

use super::blocks256::{Block256, Headers, lanes_of_blocks};
use super::{bytes64, words32};
use crate::quant::avx512::vectors::nibbles;

impl Block256 for Q4_K {
    const PAIRED: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        headers::<N, 144>(blocks)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        codes(block, 16)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
        scales::<PLACE>(headers)
    }
}

/// The headers of blocks of `BYTES` bytes of Q4_K or Q5_K: d, d_min, and twelve bytes of scales and minimums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
pub(super) fn headers<const N: usize, const BYTES: usize>(blocks: &[u8]) -> Headers {
    let packed = lanes_of_blocks::<N, BYTES, 0>(blocks);
    // In each lane: dword 0 is d and d_min. The first four scales (dword 1) and minimums (dword 2) have their six bits in
    // one byte, the other four in a nibble of dword 3 and the two spare bits of the first.
    let first = _mm512_and_si512(packed, _mm512_set1_epi32(0x3F3F_3F3F));
    let spare = _mm512_and_si512(_mm512_srli_epi32::<2>(packed), _mm512_set1_epi32(0x3030_3030));
    let nibbles = _mm512_shuffle_epi32::<0b11_11_11_11>(packed);
    let nibbles =
        _mm512_srlv_epi32(nibbles, _mm512_setr_epi32(0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0));
    let second = _mm512_or_si512(_mm512_and_si512(nibbles, _mm512_set1_epi32(0x0F0F_0F0F)), spare);
    // Eight scales are the second qword of one, eight minimums the first of the other.
    let with_scales = _mm512_unpacklo_epi32(first, second);
    let with_mins = _mm512_unpackhi_epi32(first, second);
    let zero = _mm512_setzero_si512();
    let gather_d = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    let halves = _mm512_castsi512_si128(_mm512_permutexvar_epi32(gather_d, packed));
    let factors = _mm256_cvtph_ps(halves);
    let (low, high) = (_mm256_castps256_ps128(factors), _mm256_extractf128_ps::<1>(factors));
    Headers {
        d: _mm_shuffle_ps::<0b10_00_10_00>(low, high),
        d_min: _mm_shuffle_ps::<0b11_01_11_01>(low, high),
        scales: [_mm512_unpackhi_epi8(with_scales, zero), zero],
        mins: [_mm512_unpacklo_epi8(with_mins, zero), zero],
    }
}

/// The nibbles that start at byte `at`: sub-blocks 0 and 2, 1 and 3, 4 and 6, 5 and 7.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn codes(block: &[u8], at: usize) -> [__m512i; 4] {
    let ([a, b], [c, d]) = (nibbles(bytes64(block, at)), nibbles(bytes64(block, at + 64)));
    [a, b, c, d]
}

/// The scales in the order of [`codes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
    const PLACES: [[[i16; 32]; 4]; 4] = places();
    let places = &PLACES[PLACE];
    [
        _mm512_permutexvar_epi16(words32(&places[0], 0), headers.scales[0]),
        _mm512_permutexvar_epi16(words32(&places[1], 0), headers.scales[0]),
        _mm512_permutexvar_epi16(words32(&places[2], 0), headers.scales[0]),
        _mm512_permutexvar_epi16(words32(&places[3], 0), headers.scales[0]),
    ]
}

/// By block and vector, the places of the scales: sixteen times each of two sub-blocks.
const fn places() -> [[[i16; 32]; 4]; 4] {
    let mut places = [[[0; 32]; 4]; 4];
    let mut i = 0;
    while i < 4 * 4 * 32 {
        let (block, v, word) = (i / 128, i / 32 % 4, i % 32);
        places[block][v][word] = (8 * block + v / 2 * 4 + v % 2 + word / 16 * 2) as i16;
        i += 1;
    }
    places
}
