//! Q5_0: nibbles and a word of fifth bits, the weight plus sixteen.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q5_0;

use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, store32, unsigned_quads};

impl Direct for Q5_0 {
    const D_AT: usize = 0;
    const OFFSET: i32 = 16;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        unsigned_quads(codes(block), q32(q, 0))
    }
}

impl Vector for Q5_0 {
    const BITS: u32 = 5;
    const CODE_OFFSET: u8 = 16;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        store32(out, 0, codes(block));
    }
}

/// The 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn codes(block: &[u8]) -> __m256i {
    let bits = i32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    _mm256_or_si256(nibbles(bytes16(block, 6)), fifth_bits(bits))
}

/// Sixteen in each byte whose bit is set.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fifth_bits(bits: i32) -> __m256i {
    // Byte i gets the byte of the word that holds bit i, then all bits but bit i mod 8 are dropped.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let one_bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64.cast_signed());
    let bytes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), one_bit);
    _mm256_and_si256(_mm256_cmpeq_epi8(bytes, one_bit), _mm256_set1_epi8(16))
}
