//! Formats with at most 128 weights in a block. In those with two weights a byte, the first half of a group
//! lies in the low bits and the second half in the high bits.

use super::{f16_at, u32_at};
use crate::tables::{IQ4_NL_VALUES, MXFP4_VALUES};

/// `d: f16, codes: [u8; 16]`; weight = d · (code − 8).
pub(super) fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        y[i] = d * f32::from((byte & 15) as i8 - 8);
        y[i + 16] = d * f32::from((byte >> 4) as i8 - 8);
    }
}

/// `d: f16, m: f16, codes: [u8; 16]`; weight = d · code + m.
pub(super) fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    for (i, &byte) in block[4..].iter().enumerate() {
        y[i] = d * f32::from(byte & 15) + m;
        y[i + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// `d: f16, fifth bits: u32, low bits: [u8; 16]`; weight = d · (code − 16).
pub(super) fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let (d, fifth) = (f16_at(block, 0), u32_at(block, 2));
    for (i, &byte) in block[6..].iter().enumerate() {
        y[i] = d * f32::from((byte & 15 | fifth_bit(fifth, i)) as i8 - 16);
        y[i + 16] = d * f32::from((byte >> 4 | fifth_bit(fifth, i + 16)) as i8 - 16);
    }
}

/// `d: f16, m: f16, fifth bits: u32, low bits: [u8; 16]`; weight = d · code + m.
pub(super) fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m, fifth) = (f16_at(block, 0), f16_at(block, 2), u32_at(block, 4));
    for (i, &byte) in block[8..].iter().enumerate() {
        y[i] = d * f32::from(byte & 15 | fifth_bit(fifth, i)) + m;
        y[i + 16] = d * f32::from(byte >> 4 | fifth_bit(fifth, i + 16)) + m;
    }
}

fn fifth_bit(bits: u32, i: usize) -> u8 {
    ((bits >> i & 1) << 4) as u8
}

/// `d: f16, codes: [i8; 32]`; weight = d · code.
pub(super) fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (y, &byte) in y.iter_mut().zip(&block[2..]) {
        *y = d * f32::from(byte as i8);
    }
}

/// `d: f16, codes: [u8; 16]`; weight = d · `table[code]`.
pub(super) fn iq4_nl(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (i, &byte) in block[2..].iter().enumerate() {
        y[i] = d * f32::from(IQ4_NL_VALUES[usize::from(byte & 15)]);
        y[i + 16] = d * f32::from(IQ4_NL_VALUES[usize::from(byte >> 4)]);
    }
}

/// `e: u8, codes: [u8; 16]`; weight = 2^(e − 128) · `table[code]`.
pub(super) fn mxfp4(block: &[u8; 17], y: &mut [f32; 32]) {
    let d = half_power_of_two(block[0]);
    for (i, &byte) in block[1..].iter().enumerate() {
        y[i] = d * f32::from(MXFP4_VALUES[usize::from(byte & 15)]);
        y[i + 16] = d * f32::from(MXFP4_VALUES[usize::from(byte >> 4)]);
    }
}

/// 2^(e − 128): half of what the E8M0 byte stands for, as the table holds doubled values. The two smallest
/// are subnormal.
pub(crate) fn half_power_of_two(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// Four groups of 16: `scales: [u8; 4]`, then `codes: [u8; 8]` for each group; weight = scale · `table[code]`.
pub(super) fn nvfp4(block: &[u8; 36], y: &mut [f32; 64]) {
    for (group, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let d = half_e4m3(block[group]);
        for (i, &byte) in block[4 + 8 * group..][..8].iter().enumerate() {
            y[i] = d * f32::from(MXFP4_VALUES[usize::from(byte & 15)]);
            y[i + 8] = d * f32::from(MXFP4_VALUES[usize::from(byte >> 4)]);
        }
    }
}

/// Half of what an unsigned E4M3 byte (bias 7) stands for, as the table holds doubled values. The code for
/// not-a-number counts as 0; the highest bit is no part of the number.
pub(crate) fn half_e4m3(code: u8) -> f32 {
    if code == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (code >> 3 & 15, f32::from(code & 7));
    match exponent {
        0 => mantissa / 1024.0,
        _ => (8.0 + mantissa) * f32::from_bits((u32::from(exponent) + 127 - 7 - 3 - 1) << 23),
    }
}

/// `d: f16, bits: [u8; 16]`; weight = d for a set bit, else −d.
pub(super) fn q1_0(block: &[u8; 18], y: &mut [f32; 128]) {
    let d = f16_at(block, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = if block[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
    }
}

/// `d: f16, codes: [u8; 16]`, four a byte, the first lowest; weight = d · (code − 1).
pub(super) fn q2_0(block: &[u8; 18], y: &mut [f32; 64]) {
    let d = f16_at(block, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * f32::from((block[2 + i / 4] >> (2 * (i % 4)) & 3) as i8 - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_scales_are_half_their_value() {
        assert_eq!(half_e4m3(0), 0.0);
        assert_eq!(half_e4m3(1), 0.5 / 512.0);
        assert_eq!(half_e4m3(0x38), 0.5);
        assert_eq!(half_e4m3(0x7e), 224.0);
        assert_eq!(half_e4m3(0x7f), 0.0);
    }

    #[test]
    fn e8m0_scales_reach_into_the_subnormal_numbers() {
        assert_eq!(half_power_of_two(128), 1.0);
        assert_eq!(f64::from(half_power_of_two(0)), 2f64.powi(-128));
        assert_eq!(f64::from(half_power_of_two(1)), 2f64.powi(-127));
        assert_eq!(f64::from(half_power_of_two(2)), 2f64.powi(-126));
        assert_eq!(f64::from(half_power_of_two(255)), 2f64.powi(127));
    }
}
