//! Q5_K: as Q4_K, with fifth bits.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q5_K;

use super::q4_k::{add_scaled, six_bits, total_of_mins};
use super::{Direct, bytes16, nibbles};

impl Direct for Q5_K {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        let (scales, _) = six_bits(block);
        // Bit s of each byte belongs to sub-block s: after each pair the next two bits come down to the bottom.
        let mut high = [bytes16(block, 16), bytes16(block, 32)];
        let mut acc = vdupq_n_s32(0);
        for pair in 0..4 {
            let [a, c] = nibbles(bytes16(block, 48 + 32 * pair));
            let [b, d] = nibbles(bytes16(block, 64 + 32 * pair));
            let first = [with_fifth::<0>(a, high[0]), with_fifth::<0>(b, high[1])];
            let second = [with_fifth::<1>(c, high[0]), with_fifth::<1>(d, high[1])];
            acc = add_scaled(acc, first, q, 64 * pair, scales[2 * pair]);
            acc = add_scaled(acc, second, q, 64 * pair + 32, scales[2 * pair + 1]);
            high = [vshrq_n_u8::<2>(high[0]), vshrq_n_u8::<2>(high[1])];
        }
        acc
    }

    #[inline(always)]
    fn mins(block: &[u8], sums: &[i16]) -> i32 {
        total_of_mins(block, sums)
    }
}

/// `codes`, and 16 more where the bit `BIT` of `high` is set.
#[inline]
#[target_feature(enable = "neon")]
fn with_fifth<const BIT: u8>(codes: uint8x16_t, high: uint8x16_t) -> uint8x16_t {
    let is_set = vtstq_u8(high, vdupq_n_u8(1 << BIT));
    vorrq_u8(codes, vandq_u8(is_set, vdupq_n_u8(16)))
}
