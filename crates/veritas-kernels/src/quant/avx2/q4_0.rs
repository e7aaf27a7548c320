//! Q4_0: nibbles, the weight plus eight.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q4_0;

use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, store32, unsigned_quads};

impl Direct for Q4_0 {
    const D_AT: usize = 0;
    const OFFSET: i32 = 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        unsigned_quads(nibbles(bytes16(block, 2)), q32(q, 0))
    }
}

impl Vector for Q4_0 {
    const BITS: u32 = 4;
    const CODE_OFFSET: u8 = 8;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        store32(out, 0, nibbles(bytes16(block, 2)));
    }
}
