//! The K formats: 256 weights, factors in f16, integer scales per 16 or 32 weights.

use super::{Unpacked, block_format, half_at};

block_format!(Q2_K: 256 weights in 84 bytes, span 256, group 16, scaled true, mins true, q2_k);
block_format!(Q3_K: 256 weights in 110 bytes, span 256, group 16, scaled true, mins false, q3_k);
block_format!(Q4_K: 256 weights in 144 bytes, span 256, group 32, scaled true, mins true, q4_k);
block_format!(Q5_K: 256 weights in 176 bytes, span 256, group 32, scaled true, mins true, q5_k);
block_format!(Q6_K: 256 weights in 210 bytes, span 256, group 16, scaled true, mins false, q6_k);

/// Scales and minimums in nibbles (16 bytes), 2-bit codes (64 bytes), d, d_min.
#[inline(always)]
fn q2_k(block: &[u8; 84], out: &mut Unpacked) {
    out.d[0] = half_at(block, 80);
    out.d_min = half_at(block, 82);
    for (group, packed) in block[..16].iter().enumerate() {
        out.scales[group] = i16::from(packed & 15);
        out.mins[group] = i16::from(packed >> 4);
    }
    two_bit_codes(&block[16..80], &mut out.quants);
}

/// Third bits (32 bytes), 2-bit codes (64 bytes), 6-bit scales (12 bytes), d.
#[inline(always)]
fn q3_k(block: &[u8; 110], out: &mut Unpacked) {
    out.d[0] = half_at(block, 108);
    let scales = &block[96..108];
    for group in 0..16 {
        let low = (scales[group % 8] >> (group / 8 * 4)) & 15;
        let high = (scales[8 + group % 4] >> (group / 4 * 2)) & 3;
        out.scales[group] = i16::from(low | (high << 4)) - 32;
    }
    two_bit_codes(&block[32..96], &mut out.quants);
    // A third bit that is set means that nothing is subtracted.
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        for (quant, bits) in quants.iter_mut().zip(&block[..32]) {
            *quant += ((bits >> sub) & 1) as i8 * 4 - 4;
        }
    }
}

/// d, d_min, 6-bit scales and minimums (12 bytes), 4-bit codes (128 bytes).
#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut Unpacked) {
    header(block, out);
    four_bit_codes(&block[16..], &mut out.quants);
}

/// As Q4_K, with the fifth bits (32 bytes) before the codes: bit s of byte i belongs to weight i of sub-block s.
#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut Unpacked) {
    header(block, out);
    four_bit_codes(&block[48..], &mut out.quants);
    for (sub, quants) in out.quants.chunks_exact_mut(32).enumerate() {
        for (quant, bits) in quants.iter_mut().zip(&block[16..48]) {
            *quant |= (((bits >> sub) & 1) << 4) as i8;
        }
    }
}

/// Low nibbles (128 bytes), high bit pairs (64 bytes), scales (16 signed bytes), d.
#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut Unpacked) {
    out.d[0] = half_at(block, 208);
    for group in 0..16 {
        out.scales[group] = i16::from(block[192 + group] as i8);
    }
    for (half, quants) in out.quants.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
        for i in 0..32 {
            let six = |low: u8, shift: u32| (low | (((high[i] >> shift) & 3) << 4)) as i8 - 32;
            quants[i] = six(low[i] & 15, 0);
            quants[i + 32] = six(low[i + 32] & 15, 2);
            quants[i + 64] = six(low[i] >> 4, 4);
            quants[i + 96] = six(low[i + 32] >> 4, 6);
        }
    }
}

/// Factors, scales and minimums of Q4_K and Q5_K: eight sub-blocks of 32.
#[inline(always)]
fn header(block: &[u8], out: &mut Unpacked) {
    out.d[0] = half_at(block, 0);
    out.d_min = half_at(block, 2);
    let packed = &block[4..16];
    for sub in 0..4 {
        // The first four have their six bits in one byte, the other four in a nibble and two spare bits.
        let (scale, min, rest) = (packed[sub], packed[sub + 4], packed[sub + 8]);
        let pairs = [
            (sub, scale & 63, min & 63),
            (sub + 4, (rest & 15) | ((scale >> 6) << 4), (rest >> 4) | ((min >> 6) << 4)),
        ];
        for (sub, scale, min) in pairs {
            out.scales[2 * sub..2 * sub + 2].fill(i16::from(scale));
            out.mins[2 * sub..2 * sub + 2].fill(i16::from(min));
        }
    }
}

/// Four strips of 32 weights from each 32 bytes, the lowest bits first.
#[inline(always)]
pub(super) fn two_bit_codes(codes: &[u8], quants: &mut [i8; 256]) {
    for (codes, quants) in codes.chunks_exact(32).zip(quants.chunks_exact_mut(128)) {
        for (strip, quants) in quants.chunks_exact_mut(32).enumerate() {
            for (quant, code) in quants.iter_mut().zip(codes) {
                *quant = ((code >> (2 * strip)) & 3) as i8;
            }
        }
    }
}

/// Two strips of 32 weights from each 32 bytes, the low nibbles first.
#[inline(always)]
fn four_bit_codes(codes: &[u8], quants: &mut [i8; 256]) {
    for (codes, quants) in codes.chunks_exact(32).zip(quants.chunks_exact_mut(64)) {
        for i in 0..32 {
            quants[i] = (codes[i] & 15) as i8;
            quants[i + 32] = (codes[i] >> 4) as i8;
        }
    }
}
