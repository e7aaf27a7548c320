//! Q6_K: low nibbles and high bit pairs, the weight plus 32, in sixteen groups of 16 with signed scales.

use std::arch::aarch64::*;

use veritas_quant::unpack::Q6_K;

use super::{Direct, add_dots, bytes16, less, nibbles, q16};

impl Direct for Q6_K {
    const D_AT: usize = 208;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t {
        let mut acc = vdupq_n_s32(0);
        for half in 0..2 {
            for part in 0..2 {
                // The strips of 32 of a half block: their first 16 weights, or their last.
                let [first, third] = nibbles(bytes16(block, 64 * half + 16 * part));
                let [second, fourth] = nibbles(bytes16(block, 64 * half + 32 + 16 * part));
                let high = bytes16(block, 128 + 32 * half + 16 * part);
                let strips = [
                    less([with_pair::<4>(first, high), with_pair::<2>(second, high)], 32),
                    less([with_pair::<0>(third, high), vorrq_u8(fourth, top_pair(high))], 32),
                ];
                for (strip, &weights) in strips.as_flattened().iter().enumerate() {
                    let at = 128 * half + 32 * strip + 16 * part;
                    let dots = add_dots(vdupq_n_s32(0), weights, q16(q, at));
                    acc = vmlaq_n_s32(acc, dots, i32::from(block[192 + at / 16].cast_signed()));
                }
            }
        }
        acc
    }
}

/// `codes` and the bit pair of `high` that a shift by `SHIFT` brings to bits 4 and 5.
#[inline]
#[target_feature(enable = "neon")]
fn with_pair<const SHIFT: i32>(codes: uint8x16_t, high: uint8x16_t) -> uint8x16_t {
    vorrq_u8(codes, vandq_u8(vshlq_n_u8::<SHIFT>(high), vdupq_n_u8(0x30)))
}

/// The uppermost bit pair, at bits 4 and 5.
#[inline]
#[target_feature(enable = "neon")]
fn top_pair(high: uint8x16_t) -> uint8x16_t {
    vandq_u8(vshrq_n_u8::<2>(high), vdupq_n_u8(0x30))
}
