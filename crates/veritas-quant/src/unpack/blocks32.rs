//! Formats of 32 weights with one factor: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
//!
//! Four-bit codes lie in 16 bytes: the low nibbles are the weights 0 to 15, the high nibbles 16 to 31. The fifth
//! bits of Q5 are a little-endian word, bit i for weight i.

use super::{Unpacked, block_format, half_at, u32_at};
use crate::tables::{IQ4_NL_VALUES, MXFP4_VALUES};

block_format!(Q4_0: 32 weights in 18 bytes, span 32, group 32, scaled false, mins false, q4_0);
block_format!(Q4_1: 32 weights in 20 bytes, span 32, group 32, scaled false, mins true, q4_1);
block_format!(Q5_0: 32 weights in 22 bytes, span 32, group 32, scaled false, mins false, q5_0);
block_format!(Q5_1: 32 weights in 24 bytes, span 32, group 32, scaled false, mins true, q5_1);
block_format!(Q8_0: 32 weights in 34 bytes, span 32, group 32, scaled false, mins false, q8_0);
block_format!(IQ4_NL: 32 weights in 18 bytes, span 32, group 32, scaled false, mins false, iq4_nl);
block_format!(MXFP4: 32 weights in 17 bytes, span 32, group 32, scaled false, mins false, mxfp4);

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    nibbles(&block[2..], out, |code| code as i8 - 8);
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    added_minimum(half_at(block, 2), out);
    nibbles(&block[4..], out, |code| code as i8);
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    nibbles(&block[6..], out, |code| code as i8 - 16);
    add_fifth_bits(u32_at(block, 2), out);
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    added_minimum(half_at(block, 2), out);
    nibbles(&block[8..], out, |code| code as i8);
    add_fifth_bits(u32_at(block, 4), out);
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    for (quant, &byte) in out.quants.iter_mut().zip(&block[2..]) {
        *quant = byte as i8;
    }
}

#[inline(always)]
fn iq4_nl(block: &[u8; 18], out: &mut Unpacked) {
    factor(half_at(block, 0), out);
    nibbles(&block[2..], out, |code| IQ4_NL_VALUES[usize::from(code)]);
}

#[inline(always)]
fn mxfp4(block: &[u8; 17], out: &mut Unpacked) {
    factor(half_of_e8m0(block[0]), out);
    nibbles(&block[1..], out, |code| MXFP4_VALUES[usize::from(code)]);
}

/// Half of the power of two that an E8M0 byte stands for, 2^(exponent − 128): the values are counted doubled.
#[inline(always)]
pub fn half_of_e8m0(exponent: u8) -> f32 {
    match exponent {
        // The two smallest are subnormal in f32.
        0 => f32::from_bits(0x0020_0000),
        1 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}

#[inline(always)]
fn factor(d: f32, out: &mut Unpacked) {
    out.d[0] = d;
    out.scales = [1; 16];
}

/// The minimum of Q4_1 and Q5_1 is added, not subtracted: the factor changes its sign.
#[inline(always)]
fn added_minimum(m: f32, out: &mut Unpacked) {
    out.d_min = -m;
    out.mins = [1; 16];
}

#[inline(always)]
fn nibbles(codes: &[u8], out: &mut Unpacked, value: impl Fn(u8) -> i8) {
    for (i, code) in codes[..16].iter().enumerate() {
        out.quants[i] = value(code & 15);
        out.quants[i + 16] = value(code >> 4);
    }
}

#[inline(always)]
fn add_fifth_bits(bits: u32, out: &mut Unpacked) {
    for i in 0..32 {
        out.quants[i] += (((bits >> i) & 1) << 4) as i8;
    }
}
