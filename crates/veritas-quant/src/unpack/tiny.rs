//! Formats with one or two bits a weight, and NVFP4: they have a portable product only.

use super::{Unpacked, block_format, half_at, k::two_bit_codes};
use crate::tables::MXFP4_VALUES;

block_format!(TQ1_0: 256 weights in 54 bytes, span 256, group 256, scaled false, mins false, tq1_0);
block_format!(TQ2_0: 256 weights in 66 bytes, span 256, group 256, scaled false, mins false, tq2_0);
block_format!(NVFP4: 64 weights in 36 bytes, span 16, group 16, scaled false, mins false, nvfp4);
block_format!(Q1_0: 128 weights in 18 bytes, span 32, group 32, scaled false, mins false, q1_0);
block_format!(Q2_0: 64 weights in 18 bytes, span 32, group 32, scaled false, mins false, q2_0);

/// Base-3 digits, five to a byte (48 bytes) and four to a byte (4 bytes), d.
///
/// A byte is the fraction 0.ddddd in base 3, scaled to 256 and rounded up: multiplied by 3^n modulo 256, its
/// leading digit is digit n.
#[inline(always)]
fn tq1_0(block: &[u8; 54], out: &mut Unpacked) {
    out.d[0] = half_at(block, 52);
    out.scales = [1; 16];
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let mut at = 0;
    for (bytes, digits) in [(0..32, 5), (32..48, 5), (48..52, 4)] {
        for power in &POWERS[..digits] {
            for byte in &block[bytes.clone()] {
                let digit = (u16::from(byte.wrapping_mul(*power)) * 3) >> 8;
                out.quants[at] = digit as i8 - 1;
                at += 1;
            }
        }
    }
}

/// 2-bit codes (64 bytes), d.
#[inline(always)]
fn tq2_0(block: &[u8; 66], out: &mut Unpacked) {
    out.d[0] = half_at(block, 64);
    out.scales = [1; 16];
    two_bit_codes(&block[..64], &mut out.quants);
    out.quants.iter_mut().for_each(|quant| *quant -= 1);
}

/// Four unsigned E4M3 factors, then per 16 weights eight bytes of 4-bit codes, low nibbles first.
#[inline(always)]
fn nvfp4(block: &[u8; 36], out: &mut Unpacked) {
    out.scales = [1; 16];
    for sub in 0..4 {
        out.d[sub] = half_of_ue4m3(block[sub]);
        for (i, code) in block[4 + 8 * sub..][..8].iter().enumerate() {
            out.quants[16 * sub + i] = MXFP4_VALUES[usize::from(code & 15)];
            out.quants[16 * sub + 8 + i] = MXFP4_VALUES[usize::from(code >> 4)];
        }
    }
}

/// Half of the number that an unsigned E4M3 byte stands for, because the values are counted doubled; the code for
/// NaN counts as zero, as in ggml.
#[inline(always)]
fn half_of_ue4m3(byte: u8) -> f32 {
    if byte == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (u32::from(byte >> 3) & 15, u32::from(byte & 7));
    let steps = if exponent == 0 { mantissa } else { (8 + mantissa) << (exponent - 1) };
    steps as f32 / 1024.0
}

/// d, one bit a weight: set is +1, clear −1.
#[inline(always)]
fn q1_0(block: &[u8; 18], out: &mut Unpacked) {
    out.d = [half_at(block, 0); 4];
    out.scales = [1; 16];
    for i in 0..128 {
        out.quants[i] = ((block[2 + i / 8] >> (i % 8)) & 1) as i8 * 2 - 1;
    }
}

/// d, two bits a weight: the code minus one.
#[inline(always)]
fn q2_0(block: &[u8; 18], out: &mut Unpacked) {
    out.d = [half_at(block, 0); 4];
    out.scales = [1; 16];
    for i in 0..64 {
        out.quants[i] = ((block[2 + i / 4] >> (i % 4 * 2)) & 3) as i8 - 1;
    }
}
