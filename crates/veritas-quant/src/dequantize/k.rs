//! The K formats: 256 weights in sub-blocks of 16 or 32 with their own integer scales.

use super::f16_at;

/// `scales: [u8; 16], codes: [u8; 64], d: f16, dmin: f16`; sub-blocks of 16.
///
/// A scale byte holds the scale in its low and the minimum in its high half. Weight i has its two bits in byte
/// 32·(i / 128) + i mod 32, at bit 2·(i mod 128 / 32). Weight = d · scale · code − dmin · minimum.
pub(super) fn q2_k(block: &[u8; 84], y: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[sub] & 15);
        let min = dmin * f32::from(block[sub] >> 4);
        let (start, shift) = (16 + sub / 8 * 32 + sub % 2 * 16, sub % 8 / 2 * 2);
        for (y, byte) in y.iter_mut().zip(&block[start..start + 16]) {
            *y = scale * f32::from(byte >> shift & 3) - min;
        }
    }
}

/// `high bits: [u8; 32], codes: [u8; 64], scales: [u8; 12], d: f16`; sub-blocks of 16.
///
/// The two low bits lie as in Q2_K, the high bit of weight i in byte i mod 32 at bit i / 32.
/// Weight = d · (scale − 32) · (code − 4).
pub(super) fn q3_k(block: &[u8; 110], y: &mut [f32; 256]) {
    let d = f16_at(block, 108);
    for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(q3_k_scale(&block[96..108], sub));
        let (start, shift) = (32 + sub / 8 * 32 + sub % 2 * 16, sub % 8 / 2 * 2);
        let (high_start, high_shift) = (sub % 2 * 16, sub / 2);
        for (i, y) in y.iter_mut().enumerate() {
            let high = block[high_start + i] >> high_shift & 1;
            let code = block[start + i] >> shift & 3 | high << 2;
            *y = scale * f32::from(code as i8 - 4);
        }
    }
}

/// The scale of sub-block `sub` of Q3_K, −32 to 31: four low bits in bytes 0..8 (low halves first), two high
/// bits in bytes 8..12.
fn q3_k_scale(packed: &[u8], sub: usize) -> i8 {
    let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
    let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

/// `d: f16, dmin: f16, scales: [u8; 12], codes: [u8; 128]`; sub-blocks of 32.
///
/// Each 32 bytes of codes hold two sub-blocks, the first in the low bits.
/// Weight = d · scale · code − dmin · minimum.
pub(super) fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let (start, shift) = (16 + sub / 2 * 32, sub % 2 * 4);
        for (y, byte) in y.iter_mut().zip(&block[start..start + 32]) {
            *y = scale * f32::from(byte >> shift & 15) - min;
        }
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], fifth bits: [u8; 32], codes: [u8; 128]`; sub-blocks of 32.
///
/// As Q4_K; the fifth bit of weight i of sub-block s is bit s of byte i.
pub(super) fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], sub);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        let (start, shift) = (48 + sub / 2 * 32, sub % 2 * 4);
        for (i, y) in y.iter_mut().enumerate() {
            let fifth = block[16 + i] >> sub & 1;
            *y = scale * f32::from(block[start + i] >> shift & 15 | fifth << 4) - min;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `sub` of Q4_K and Q5_K.
///
/// Sub-blocks 0 to 3 have theirs in the low six bits of bytes 0..4 (scales) and 4..8 (minimums); of sub-blocks
/// 4 to 7 the two high bits fill those bytes up and the low bits share bytes 8..12.
fn scale_and_min(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        return (packed[sub] & 63, packed[4 + sub] & 63);
    }
    let low = packed[4 + sub];
    (low & 15 | packed[sub - 4] >> 6 << 4, low >> 4 | packed[sub] >> 6 << 4)
}

/// `low bits: [u8; 128], high bits: [u8; 64], scales: [i8; 16], d: f16`; sub-blocks of 16.
///
/// Each half of 128 weights has 64 bytes of low bits (weights 0..64 in their low, 64..128 in their high halves)
/// and 32 bytes of high bits (two bits for each quarter). Weight = d · scale · (code − 32).
pub(super) fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let d = f16_at(block, 208);
    for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + sub] as i8);
        let (half, within) = (sub / 8, sub % 8);
        let (low_start, low_shift) = (half * 64 + within % 4 * 16, within / 4 * 4);
        let (high_start, high_shift) = (128 + half * 32 + within % 2 * 16, within / 2 * 2);
        for (i, y) in y.iter_mut().enumerate() {
            let low = block[low_start + i] >> low_shift & 15;
            let high = block[high_start + i] >> high_shift & 3;
            *y = scale * f32::from((low | high << 4) as i8 - 32);
        }
    }
}
