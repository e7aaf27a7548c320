//! Q4_0: nibbles, the weight plus eight.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q4_0;

use super::{Direct, bytes16, dots_of_32, less, nibbles};

impl Direct for Q4_0 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        dots_of_32(less(nibbles(bytes16(block, 2)), 8), q, 0)
    }
}
