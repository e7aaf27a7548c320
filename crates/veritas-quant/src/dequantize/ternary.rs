//! Formats whose weights are −1, 0 or 1 times one scale.

use super::f16_at;

/// `codes: [u8; 48], rest: [u8; 4], d: f16`: five weights a byte, four in the rest.
///
/// The digits of a byte are those of a fraction in base 3: the byte is ⌈256 · 0.abcde₃⌉, so that multiplying it
/// by 3^i within 8 bits drops i digits, and the next digit is the carry of one more multiplication by 3.
/// 32 bytes hold weights 0..160 (digit i of byte j is weight 32·i + j), 16 bytes 160..240, 4 bytes 240..256.
pub(super) fn tq1_0(block: &[u8; 54], y: &mut [f32; 256]) {
    let d = f16_at(block, 52);
    let parts = [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)];
    for (start, bytes, digits, first) in parts {
        let mut power = 1u8;
        for digit in 0..digits {
            for (j, &byte) in block[start..start + bytes].iter().enumerate() {
                let carry = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                y[first + bytes * digit + j] = d * f32::from(carry as i16 - 1);
            }
            power = power.wrapping_mul(3);
        }
    }
}

/// `codes: [u8; 64], d: f16`; each 32 bytes hold 128 weights, 32 in each pair of bits; weight = d · (code − 1).
pub(super) fn tq2_0(block: &[u8; 66], y: &mut [f32; 256]) {
    let d = f16_at(block, 64);
    for (i, y) in y.iter_mut().enumerate() {
        let byte = block[i / 128 * 32 + i % 32];
        *y = d * f32::from((byte >> (i % 128 / 32 * 2) & 3) as i8 - 1);
    }
}
