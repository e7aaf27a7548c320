//! MXFP4: nibbles that stand for (doubled) E2M1 numbers, and a power of two.
//!
//! A block has 17 bytes, so that the words of every second one are at odd places: each permutation of words takes them
//! from two vectors, one of which starts at an odd byte.

use std::arch::x86_64::*;

use veritas_quant::tables::MXFP4_VALUES;
use veritas_quant::unpack::MXFP4;

use super::blocks32::{BLOCKS, Block32, ROWS};
use super::{bytes64, words32};
use crate::quant::avx512::vectors::nibbles;

/// Bytes of a block.
const BYTES: usize = 17;
/// The byte at which the last 64 bytes of four blocks start.
const END: usize = BLOCKS * BYTES - 64;

impl Block32 for MXFP4 {
    const D_AT: usize = 0;
    const OFFSET: i16 = 12;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2] {
        const PLACES: [i16; 32] = places_of_codes();
        let codes = _mm512_permutex2var_epi16(bytes64(blocks, 1), words32(&PLACES, 0), bytes64(blocks, END));
        // SAFETY: the array has 16 bytes, and the load needs no alignment.
        let values = unsafe { _mm_loadu_si128(MXFP4_VALUES.as_ptr().cast()) };
        let values = _mm_add_epi8(values, _mm_set1_epi8(Self::OFFSET as i8));
        let values = _mm512_broadcast_i32x4(values);
        let [first, second] = nibbles(codes);
        [_mm512_shuffle_epi8(values, first), _mm512_shuffle_epi8(values, second)]
    }

    /// As `half_of_e8m0`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn factors(blocks: [&[u8]; ROWS]) -> __m512 {
        const PLACES: [i16; 32] = places_of_exponents();
        let places = words32(&PLACES, 0);
        // Each row in every fourth word.
        let [a, b, c, d] = [
            _mm512_maskz_permutex2var_epi16(0x1111, bytes64(blocks[0], 0), places, bytes64(blocks[0], 1)),
            _mm512_maskz_permutex2var_epi16(0x2222, bytes64(blocks[1], 0), places, bytes64(blocks[1], 1)),
            _mm512_maskz_permutex2var_epi16(0x4444, bytes64(blocks[2], 0), places, bytes64(blocks[2], 1)),
            _mm512_maskz_permutex2var_epi16(0x8888, bytes64(blocks[3], 0), places, bytes64(blocks[3], 1)),
        ];
        let words = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
        let words = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
        let exponents = _mm512_and_si512(words, _mm512_set1_epi32(0xFF));
        let bits = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
        // The two smallest are subnormal.
        let small = _mm512_cmplt_epu32_mask(exponents, _mm512_set1_epi32(2));
        let bits = _mm512_mask_sllv_epi32(bits, small, _mm512_set1_epi32(0x0020_0000), exponents);
        _mm512_castsi512_ps(bits)
    }
}

/// The eight words of codes of each block: in the bytes from 1 on where a block starts at an even byte, else in the last 64.
const fn places_of_codes() -> [i16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < 32 {
        let at = BYTES * (i / 8) + 1 + 2 * (i % 8);
        places[i] = (if at.is_multiple_of(2) { 32 + (at - END) / 2 } else { (at - 1) / 2 }) as i16;
        i += 1;
    }
    places
}

/// Four times the word that begins with the exponent of each block: in the bytes from 0 on, or from 1 on.
const fn places_of_exponents() -> [i16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < BLOCKS * ROWS {
        let at = BYTES * (i / ROWS);
        places[i] = (if at.is_multiple_of(2) { at / 2 } else { 32 + (at - 1) / 2 }) as i16;
        i += 1;
    }
    places
}
