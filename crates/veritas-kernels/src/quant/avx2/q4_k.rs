//! Q4_K: nibbles in eight sub-blocks of 32 with 6-bit scales and minimums.

use std::arch::x86_64::*;

use veritas_quant::unpack::{GROUP, Q4_K};

use super::panel::Vector;
use super::{Direct, bytes32, q32, store32, words16};

impl Direct for Q4_K {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let scales = scales(block);
        let low = _mm256_set1_epi8(15);
        let mut acc = _mm256_setzero_si256();
        for pair in 0..4 {
            let codes = bytes32(block, 16 + 32 * pair);
            let first = _mm256_and_si256(codes, low);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
            let first = _mm256_maddubs_epi16(first, q32(q, 64 * pair));
            let second = _mm256_maddubs_epi16(second, q32(q, 64 * pair + 32));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(first, _mm256_set1_epi16(scales[2 * pair])));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(second, _mm256_set1_epi16(scales[2 * pair + 1])));
        }
        acc
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(block: &[u8], sums: &[i16]) -> __m256i {
        mins(block, sums)
    }
}

impl Vector for Q4_K {
    const BITS: u32 = 4;
    const CODE_OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        let low = _mm256_set1_epi8(15);
        for pair in 0..4 {
            let codes = bytes32(block, 16 + 32 * pair);
            store32(out, 64 * pair, _mm256_and_si256(codes, low));
            store32(out, 64 * pair + 32, _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low));
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        six_bits(block)
    }
}

/// The eight scales and the eight minimums of a block of Q4_K or Q5_K; what follows them is zero.
#[inline(always)]
pub(super) fn six_bits(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
    let [a, b, c] = [word(block, 4), word(block, 8), word(block, 12)];
    let (six, four, two) = (0x3F3F_3F3F, 0x0F0F_0F0F, 0x3030_3030);
    let eight = |low: u32, high: u32| {
        let mut out = [0; GROUP];
        for (i, byte) in low.to_le_bytes().into_iter().chain(high.to_le_bytes()).enumerate() {
            out[i] = byte.cast_signed();
        }
        out
    };
    (eight(a & six, c & four | (a >> 2) & two), eight(b & six, (c >> 4) & four | (b >> 2) & two))
}

/// The eight scales of a block of Q4_K or Q5_K.
#[inline]
pub(super) fn scales(block: &[u8]) -> [i16; 8] {
    let (low, rest) = (word(block, 4), word(block, 12));
    // The first four have their six bits in one byte, the other four in a nibble and two spare bits.
    let first = (low & 0x3F3F_3F3F).to_le_bytes();
    let second = ((rest & 0x0F0F_0F0F) | ((low >> 2) & 0x3030_3030)).to_le_bytes();
    std::array::from_fn(|i| i16::from(if i < 4 { first[i] } else { second[i - 4] }))
}

/// Partial sums of the minimums of a block of Q4_K or Q5_K times the sums of the activations.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn mins(block: &[u8], sums: &[i16]) -> __m256i {
    let (low, rest) = (word(block, 8), word(block, 12));
    let first = low & 0x3F3F_3F3F;
    let second = ((rest >> 4) & 0x0F0F_0F0F) | ((low >> 2) & 0x3030_3030);
    let mins = _mm_cvtsi64_si128((u64::from(first) | u64::from(second) << 32).cast_signed());
    // Each minimum belongs to two sums.
    let mins = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins));
    _mm256_madd_epi16(mins, words16(sums))
}

#[inline]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
