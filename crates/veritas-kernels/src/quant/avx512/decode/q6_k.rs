//! Q6_K: low nibbles and high bit pairs, the weight plus 32, in sixteen groups of 16 with signed scales.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q6_K;

use super::blocks256::{Block256, Headers};
use super::{bytes16, bytes32, bytes64, half_bits, words32};

/// Where the scales stand in a block.
const SCALES_AT: usize = 192;

impl Block256 for Q6_K {
    const PAIRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers {
        let mut d = 0;
        for b in 0..N {
            d |= half_bits(blocks, 210 * b + 208) << (16 * b);
        }
        let zero = _mm512_setzero_si512();
        let d = _mm_cvtph_ps(_mm_cvtsi64_si128(d.cast_signed()));
        Headers { d, d_min: _mm_setzero_ps(), scales: zero, mins: zero }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(block: &[u8]) -> [__m512i; 4] {
        let ([a, b], [c, d]) = (half(block, 0), half(block, 1));
        [a, b, c, d]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn scales(_headers: &Headers, _place: usize, block: &[u8]) -> [__m512i; 4] {
        const PLACES: [[i16; 32]; 4] = places();
        let scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(bytes16(block, SCALES_AT)));
        [
            _mm512_permutexvar_epi16(words32(&PLACES[0], 0), scales),
            _mm512_permutexvar_epi16(words32(&PLACES[1], 0), scales),
            _mm512_permutexvar_epi16(words32(&PLACES[2], 0), scales),
            _mm512_permutexvar_epi16(words32(&PLACES[3], 0), scales),
        ]
    }

    /// −32 · Σ scale · sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn offset(block: &[u8], sums: &[i16]) -> __m512i {
        let sums = &sums[..16];
        // SAFETY: the slice has 32 bytes, and the load needs no alignment.
        let sums = unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) };
        let scales = _mm256_cvtepi8_epi16(bytes16(block, SCALES_AT));
        let offset = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, sums));
        _mm512_zextsi256_si512(_mm256_sub_epi32(_mm256_setzero_si256(), offset))
    }
}

/// The 128 codes of half a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn half(block: &[u8], half: usize) -> [__m512i; 2] {
    let low = _mm512_set1_epi8(15);
    let pair = _mm512_set1_epi8(0x30);
    // Rotations that bring the bit pairs of a strip of 32 to bits 4 and 5.
    let first = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    let second = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 30, 30, 30, 30, 30, 30, 30, 30);
    let nibbles = bytes64(block, 64 * half);
    let high = _mm512_broadcast_i64x4(bytes32(block, 128 + 32 * half));
    let first = _mm512_and_si512(_mm512_rolv_epi32(high, first), pair);
    let second = _mm512_and_si512(_mm512_rolv_epi32(high, second), pair);
    [
        _mm512_or_si512(_mm512_and_si512(nibbles, low), first),
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), low), second),
    ]
}

/// By vector, the places of the scales: eight times each of four groups.
const fn places() -> [[i16; 32]; 4] {
    let mut places = [[0; 32]; 4];
    let mut i = 0;
    while i < 4 * 32 {
        let (v, word) = (i / 32, i % 32);
        places[v][word] = (4 * v + word / 8) as i16;
        i += 1;
    }
    places
}
