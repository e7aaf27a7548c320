//! Q5_0: nibbles and a word of fifth bits, the weight plus sixteen.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q5_0;

use super::{Direct, bytes16, dots_of_32, less, nibbles};

impl Direct for Q5_0 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        let [first, second] = nibbles(bytes16(block, 6));
        let codes = [
            vorrq_u8(first, fifth_bits([block[2], block[3]])),
            vorrq_u8(second, fifth_bits([block[4], block[5]])),
        ];
        dots_of_32(less(codes, 16), q, 0)
    }
}

/// Sixteen in each byte whose bit is set.
#[inline]
#[target_feature(enable = "neon")]
fn fifth_bits(bits: [u8; 2]) -> uint8x16_t {
    // All bits but bit i mod 8 are dropped from byte i.
    let one_bit = vcreate_u8(0x8040_2010_0804_0201);
    let bytes = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
    vandq_u8(vtstq_u8(bytes, vcombine_u8(one_bit, one_bit)), vdupq_n_u8(16))
}
