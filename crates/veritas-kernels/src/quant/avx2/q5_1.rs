//! Q5_1: nibbles, a word of fifth bits, and a minimum that is added.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q5_1;

use super::panel::Vector;
use super::q5_0::fifth_bits;
use super::{Direct, bytes16, nibbles, q32, store32, sum_of_block, unsigned_quads};

impl Direct for Q5_1 {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;
    const MIN_IS_ADDED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        unsigned_quads(codes(block), q32(q, 0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(_block: &[u8], sums: &[i16]) -> __m256i {
        sum_of_block(sums)
    }
}

impl Vector for Q5_1 {
    const BITS: u32 = 5;
    const CODE_OFFSET: u8 = 0;

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
    let bits = i32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    _mm256_or_si256(nibbles(bytes16(block, 8)), fifth_bits(bits))
}
