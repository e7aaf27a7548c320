//! Q4_1: nibbles and a minimum that is added.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q4_1;

use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, store32, sum_of_block, unsigned_quads};

impl Direct for Q4_1 {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;
    const MIN_IS_ADDED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        unsigned_quads(nibbles(bytes16(block, 4)), q32(q, 0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(_block: &[u8], sums: &[i16]) -> __m256i {
        sum_of_block(sums)
    }
}

impl Vector for Q4_1 {
    const BITS: u32 = 4;
    const CODE_OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        store32(out, 0, nibbles(bytes16(block, 4)));
    }
}
