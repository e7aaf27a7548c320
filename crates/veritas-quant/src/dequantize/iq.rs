//! The IQ formats of 256 weights: groups of 8 or 4 weights are rows of a grid, with signs or a shift.

use super::{f16_at, u16_at, u32_at};
use crate::tables::{
    EVEN_SIGNS, IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, IQ4_NL_VALUES,
};

/// `d: f16, high bits of scales: u16, low bits of scales: [u8; 4], codes: [u8; 128]`; sub-blocks of 32.
///
/// Weight = d · (scale − 32) · `table[code]`; within a sub-block the codes lie as in IQ4_NL.
pub(super) fn iq4_xs(block: &[u8; 136], y: &mut [f32; 256]) {
    let (d, high) = (f16_at(block, 0), u16_at(block, 2));
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = block[4 + sub / 2] >> (sub % 2 * 4) & 15;
        let scale = d * f32::from((low | ((high >> (2 * sub) & 3) << 4) as u8) as i8 - 32);
        for (i, &byte) in block[8 + sub * 16..][..16].iter().enumerate() {
            y[i] = scale * f32::from(IQ4_NL_VALUES[usize::from(byte & 15)]);
            y[i + 16] = scale * f32::from(IQ4_NL_VALUES[usize::from(byte >> 4)]);
        }
    }
}

/// `d: f16`, then for each 32 weights `indices: [u8; 4], signs and scale: u32` (four times 7 bits, then 4).
///
/// Weight = d · (scale + ½) / 4 · sign · magnitude.
pub(super) fn iq2_xxs(block: &[u8; 66], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let start = 2 + 8 * sub;
        let signs = u32_at(block, start + 4);
        let scale = d * (0.5 + (signs >> 28) as f32) * 0.25;
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let row = &IQ2_XXS_GRID[usize::from(block[start + i])];
            signed(scale, row, even_signs(signs, i), y);
        }
    }
}

/// `d: f16, indices and signs: [u16; 32], scales: [u8; 8]`: 9 bits of index, 7 of signs; a scale for each 16.
///
/// Weight = d · (scale + ½) / 4 · sign · magnitude.
pub(super) fn iq2_xs(block: &[u8; 74], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let code = u16_at(block, 2 + 2 * i);
        let scale = d * (0.5 + f32::from(nibble(&block[66..], i / 2))) * 0.25;
        let row = &IQ2_XS_GRID[usize::from(code & 511)];
        signed(scale, row, EVEN_SIGNS[usize::from(code >> 9)], y);
    }
}

/// `d: f16, low bits of indices: [u8; 32], signs: [u8; 32], high bits of indices: [u8; 8], scales: [u8; 8]`.
///
/// Weight = d · (scale + ½) / 4 · sign · magnitude, a scale for each 16.
pub(super) fn iq2_s(block: &[u8; 82], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3);
        let scale = d * (0.5 + f32::from(nibble(&block[74..], i / 2))) * 0.25;
        let row = &IQ2_S_GRID[usize::from(block[2 + i]) | high << 8];
        signed(scale, row, block[34 + i], y);
    }
}

/// `d: f16, indices: [u8; 64]`, then for each 32 weights `signs and scale: u32` as in IQ2_XXS.
///
/// Weight = d · (scale + ½) / 2 · sign · magnitude.
pub(super) fn iq3_xxs(block: &[u8; 98], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let signs = u32_at(block, 66 + 4 * sub);
        let scale = d * (0.5 + (signs >> 28) as f32) * 0.5;
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let indices = [block[2 + 8 * sub + 2 * i], block[3 + 8 * sub + 2 * i]];
            let row = joined(indices.map(|index| &IQ3_XXS_GRID[usize::from(index)]));
            signed(scale, &row, even_signs(signs, i), y);
        }
    }
}

/// `d: f16, low bits of indices: [u8; 64], ninth bits: [u8; 8], signs: [u8; 32], scales: [u8; 4]`.
///
/// Weight = d · (2 · scale + 1) · sign · magnitude, a scale for each 32.
pub(super) fn iq3_s(block: &[u8; 110], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = d * f32::from(1 + 2 * nibble(&block[106..], i / 4));
        let row = joined([2 * i, 2 * i + 1].map(|at| {
            let ninth = usize::from(block[66 + at / 8] >> (at % 8) & 1);
            &IQ3_S_GRID[usize::from(block[2 + at]) | ninth << 8]
        }));
        signed(scale, &row, block[74 + i], y);
    }
}

/// `d: f16, low bits of indices: [u8; 32]`, then for each 32 weights a `u16`: four times 3 high bits of an
/// index, 3 bits of scale, the sign of the shift.
///
/// Weight = d · (2 · scale + 1) · (value ± ⅛).
pub(super) fn iq1_s(block: &[u8; 50], y: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let high = u16_at(block, 34 + 2 * sub);
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let index = usize::from(block[2 + 4 * sub + i]) | usize::from(high >> (3 * i) & 7) << 8;
            shifted(scale, index, high >> 15 == 1, y);
        }
    }
}

/// `low bits of indices: [u8; 32], high bits and shifts: [u8; 16], scales: [u16; 4]`.
///
/// A half byte for each 8 weights holds 3 high bits of the index and the sign of the shift. Each `u16` holds
/// four 3-bit scales (16 weights each) and, in its highest bits, a quarter of d (f16), lowest first.
/// Weight = d · (2 · scale + 1) · (value ± ⅛).
pub(super) fn iq1_m(block: &[u8; 56], y: &mut [f32; 256]) {
    let d = iq1_m_scale(block);
    for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (sub, high) = (i / 2, nibble(&block[32..], i));
        let scale = d * f32::from(2 * (u16_at(block, 48 + sub / 4 * 2) >> (sub % 4 * 3) & 7) + 1);
        let index = usize::from(block[i]) | usize::from(high & 7) << 8;
        shifted(scale, index, high & 8 != 0, y);
    }
}

/// The scale d of a block of IQ1_M.
fn iq1_m_scale(block: &[u8; 56]) -> f32 {
    let bits = (0..4).fold(0, |bits, i| bits | u16_at(block, 48 + 2 * i) >> 12 << (4 * i));
    half::f16::from_bits(bits).to_f32()
}

/// Half byte `i`, the low half of a byte first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// The signs of group `i` among four that share 28 bits.
fn even_signs(packed: u32, i: usize) -> u8 {
    EVEN_SIGNS[(packed >> (7 * i) & 127) as usize]
}

fn joined(rows: [&[i8; 4]; 2]) -> [i8; 8] {
    let [[a, b, c, d], [e, f, g, h]] = rows.map(|row| *row);
    [a, b, c, d, e, f, g, h]
}

fn signed(scale: f32, row: &[i8; 8], signs: u8, y: &mut [f32; 8]) {
    for (i, (y, &magnitude)) in y.iter_mut().zip(row).enumerate() {
        let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
        *y = scale * f32::from(magnitude) * sign;
    }
}

fn shifted(scale: f32, index: usize, down: bool, y: &mut [f32; 8]) {
    let shift = if down { -0.125 } else { 0.125 };
    for (y, &value) in y.iter_mut().zip(&IQ1_GRID[index]) {
        *y = scale * (f32::from(value) + shift);
    }
}
