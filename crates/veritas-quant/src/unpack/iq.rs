//! The IQ formats of 256 weights: rows of a fixed grid, picked by an index, with signs beside them.
//!
//! The IQ2 types scale by `d · (s + ½) / 4`, here `(d / 8) · (2s + 1)`; IQ3_XXS by `d · (s + ½) / 2`, here
//! `(d / 4) · (2s + 1)`. The IQ1 types add ±1/8 to values of −1, 0 and 1: here `(d / 8) · (8 · value ± 1)`.

use half::f16;

use super::{Unpacked, block_format, half_at, u16_at, u32_at};
use crate::tables::{
    EVEN_SIGNS, IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID, IQ4_NL_VALUES,
};

block_format!(IQ4_XS: 256 weights in 136 bytes, span 256, group 32, scaled true, mins false, iq4_xs);
block_format!(IQ2_XXS: 256 weights in 66 bytes, span 256, group 32, scaled true, mins false, iq2_xxs);
block_format!(IQ2_XS: 256 weights in 74 bytes, span 256, group 16, scaled true, mins false, iq2_xs);
block_format!(IQ2_S: 256 weights in 82 bytes, span 256, group 16, scaled true, mins false, iq2_s);
block_format!(IQ3_XXS: 256 weights in 98 bytes, span 256, group 32, scaled true, mins false, iq3_xxs);
block_format!(IQ3_S: 256 weights in 110 bytes, span 256, group 32, scaled true, mins false, iq3_s);
block_format!(IQ1_S: 256 weights in 50 bytes, span 256, group 32, scaled true, mins false, iq1_s);
block_format!(IQ1_M: 256 weights in 56 bytes, span 256, group 16, scaled true, mins false, iq1_m);

/// d, high bits of the scales (u16), low nibbles of the scales (4 bytes), 4-bit codes (128 bytes).
#[inline(always)]
fn iq4_xs(block: &[u8; 136], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0);
    let high = u16_at(block, 2);
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        let low = (block[4 + sub / 2] >> (sub % 2 * 4)) & 15;
        let scale = i16::from(low) | (((high >> (2 * sub)) & 3) << 4) as i16;
        out.scales[2 * sub..2 * sub + 2].fill(scale - 32);
        for (i, code) in block[8 + 16 * sub..][..16].iter().enumerate() {
            quants[i] = IQ4_NL_VALUES[usize::from(code & 15)];
            quants[i + 16] = IQ4_NL_VALUES[usize::from(code >> 4)];
        }
    }
}

/// d, then per 32 weights four indices (a byte each) and a word of four 7-bit sign indices and a scale.
#[inline(always)]
fn iq2_xxs(block: &[u8; 66], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0) * 0.125;
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        let word = u32_at(block, 6 + 8 * sub);
        odd_scale(&mut out.scales[2 * sub..2 * sub + 2], (word >> 28) as i16);
        for (i, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let row = &IQ2_XXS_GRID[usize::from(block[2 + 8 * sub + i])];
            *quants = signed(row, EVEN_SIGNS[((word >> (7 * i)) & 127) as usize]);
        }
    }
}

/// d, 32 words of a 9-bit index and a 7-bit sign index, 16 scales in nibbles.
#[inline(always)]
fn iq2_xs(block: &[u8; 74], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0) * 0.125;
    nibble_scales(&block[66..], out);
    for (i, quants) in out.quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let word = usize::from(u16_at(block, 2 + 2 * i));
        *quants = signed(&IQ2_XS_GRID[word & 511], EVEN_SIGNS[word >> 9]);
    }
}

/// d, low index bytes (32), signs (32 bytes), high index bit pairs (8 bytes), 16 scales in nibbles.
#[inline(always)]
fn iq2_s(block: &[u8; 82], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0) * 0.125;
    nibble_scales(&block[74..], out);
    for (i, quants) in out.quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = usize::from((block[66 + i / 4] >> (i % 4 * 2)) & 3);
        *quants = signed(&IQ2_S_GRID[usize::from(block[2 + i]) | (high << 8)], block[34 + i]);
    }
}

/// d, 64 indices (a byte each), then per 32 weights a word of four 7-bit sign indices and a scale.
#[inline(always)]
fn iq3_xxs(block: &[u8; 98], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0) * 0.25;
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        let word = u32_at(block, 66 + 4 * sub);
        odd_scale(&mut out.scales[2 * sub..2 * sub + 2], (word >> 28) as i16);
        for (i, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let at = 2 + 8 * sub + 2 * i;
            let rows = [&IQ3_XXS_GRID[usize::from(block[at])], &IQ3_XXS_GRID[usize::from(block[at + 1])]];
            *quants = signed(&joined(rows), EVEN_SIGNS[((word >> (7 * i)) & 127) as usize]);
        }
    }
}

/// d, 64 low index bytes, their ninth bits (8 bytes), signs (32 bytes), eight scales in nibbles.
#[inline(always)]
fn iq3_s(block: &[u8; 110], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0);
    for sub in 0..8 {
        let scale = i16::from((block[106 + sub / 2] >> (sub % 2 * 4)) & 15);
        odd_scale(&mut out.scales[2 * sub..2 * sub + 2], scale);
    }
    let row = |i: usize| {
        let high = usize::from((block[66 + i / 8] >> (i % 8)) & 1);
        &IQ3_S_GRID[usize::from(block[2 + i]) | (high << 8)]
    };
    for (i, quants) in out.quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *quants = signed(&joined([row(2 * i), row(2 * i + 1)]), block[74 + i]);
    }
}

/// d, 32 low index bytes, then per 32 weights a u16: four times 3 high index bits, a 3-bit scale, the sign of the
/// added eighth.
#[inline(always)]
fn iq1_s(block: &[u8; 50], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0) * 0.125;
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        let word = u16_at(block, 34 + 2 * sub);
        odd_scale(&mut out.scales[2 * sub..2 * sub + 2], ((word >> 12) & 7) as i16);
        for (i, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = usize::from((word >> (3 * i)) & 7);
            let row = &IQ1_GRID[usize::from(block[2 + 4 * sub + i]) | (high << 8)];
            *quants = shifted(row, word & 0x8000 != 0);
        }
    }
}

/// 32 low index bytes, a nibble per index (3 high bits, the sign of the added eighth), four u16: each four 3-bit
/// scales and, on top, a nibble of d.
#[inline(always)]
fn iq1_m(block: &[u8; 56], out: &mut Unpacked) {
    let words: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + 2 * i));
    let d = words.iter().rev().fold(0, |d, word| (d << 4) | (word >> 12));
    out.d[0] = f16::from_bits(d).to_f32() * 0.125;
    for (group, scale) in out.scales.chunks_exact_mut(1).enumerate() {
        odd_scale(scale, ((words[group / 4] >> (group % 4 * 3)) & 7) as i16);
    }
    for (i, quants) in out.quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let nibble = block[32 + i / 2] >> (i % 2 * 4);
        let row = &IQ1_GRID[usize::from(block[i]) | (usize::from(nibble & 7) << 8)];
        *quants = shifted(row, nibble & 8 != 0);
    }
}

/// Sets scales to 2s + 1.
#[inline(always)]
fn odd_scale(scales: &mut [i16], s: i16) {
    scales.fill(2 * s + 1);
}

#[inline(always)]
fn nibble_scales(packed: &[u8], out: &mut Unpacked) {
    for (i, byte) in packed.iter().enumerate() {
        out.scales[2 * i] = 2 * i16::from(byte & 15) + 1;
        out.scales[2 * i + 1] = 2 * i16::from(byte >> 4) + 1;
    }
}

#[inline(always)]
fn joined(rows: [&[i8; 4]; 2]) -> [i8; 8] {
    std::array::from_fn(|i| rows[i / 4][i % 4])
}

/// The row with the weights negated whose bit is set.
#[inline(always)]
fn signed(row: &[i8; 8], signs: u8) -> [i8; 8] {
    std::array::from_fn(|i| {
        let mask = -(((signs >> i) & 1) as i8);
        (row[i] ^ mask) - mask
    })
}

/// Eight times the row, plus one, or minus one if `negative`.
#[inline(always)]
fn shifted(row: &[i8; 8], negative: bool) -> [i8; 8] {
    let delta = if negative { -1 } else { 1 };
    row.map(|value| 8 * value + delta)
}
