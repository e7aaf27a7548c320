//! Q8_0: signed bytes.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q8_0;

use super::{Direct, bytes16, dots_of_32};

impl Direct for Q8_0 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        let weights = [bytes16(block, 2), bytes16(block, 18)];
        dots_of_32([vreinterpretq_s8_u8(weights[0]), vreinterpretq_s8_u8(weights[1])], q, 0)
    }
}
