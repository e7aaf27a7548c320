//! Q4_K: nibbles in eight sub-blocks of 32 with 6-bit scales and minimums.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q4_K;

use super::{Direct, bytes16, dots_of_32, nibbles};

impl Direct for Q4_K {
    const D_AT: usize = 0;
    const D_MIN_AT: usize = 2;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        let (scales, _) = six_bits(block);
        let mut acc = vdupq_n_s32(0);
        for pair in 0..4 {
            let codes = [bytes16(block, 16 + 32 * pair), bytes16(block, 32 + 32 * pair)];
            let [[a, c], [b, d]] = codes.map(|codes| nibbles(codes));
            acc = add_scaled(acc, [a, b], q, 64 * pair, scales[2 * pair]);
            acc = add_scaled(acc, [c, d], q, 64 * pair + 32, scales[2 * pair + 1]);
        }
        acc
    }

    #[inline(always)]
    fn mins(block: &[u8], sums: &[i16]) -> i32 {
        total_of_mins(block, sums)
    }
}

/// `acc` and the products of 32 unsigned codes times a scale.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn add_scaled(
    acc: int32x4_t,
    codes: [uint8x16_t; 2],
    q: &[i8],
    at: usize,
    scale: u8,
) -> int32x4_t {
    let weights = [vreinterpretq_s8_u8(codes[0]), vreinterpretq_s8_u8(codes[1])];
    vmlaq_n_s32(acc, dots_of_32(weights, q, at), i32::from(scale))
}

/// The eight scales and the eight minimums of a block of Q4_K or Q5_K.
#[inline(always)]
pub(super) fn six_bits(block: &[u8]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let (scales, mins, rest) = (word(4), word(8), word(12));
    // The first four have their six bits in one byte, the other four in a nibble and two spare bits.
    let eight = |bytes: u32, nibbles: u32| {
        let second = (nibbles & 0x0F0F_0F0F) | ((bytes >> 2) & 0x3030_3030);
        (u64::from(bytes & 0x3F3F_3F3F) | u64::from(second) << 32).to_le_bytes()
    };
    (eight(scales, rest), eight(mins, rest >> 4))
}

/// The minimums of a block of Q4_K or Q5_K times the sums of each 16 activations.
#[inline(always)]
pub(super) fn total_of_mins(block: &[u8], sums: &[i16]) -> i32 {
    let (_, mins) = six_bits(block);
    let sums = sums.as_chunks::<2>().0;
    mins.iter().zip(sums).map(|(&min, [a, b])| i32::from(min) * (i32::from(*a) + i32::from(*b))).sum()
}
