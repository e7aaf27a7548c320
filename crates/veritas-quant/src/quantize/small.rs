//! Formats of 32 weights with one half-precision scale, or a power of two.

use super::group::{
    Affine, Codebook, E2m1, Integers, Iq4, affine_error_at, best_affine, best_scale, encode, encode_affine,
    error_at,
};
use super::to_f16;
use crate::dequantize::half_power_of_two;
use crate::tables::{IQ4_NL_VALUES, MXFP4_VALUES};

pub(super) fn q4_0(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 18]) {
    let (d, values) = one_scale::<Integers<-8, 7>>(x, w);
    out[..2].copy_from_slice(&d.to_le_bytes());
    pack_halves(&values.map(|v| (v + 8.0) as u8), &mut out[2..]);
}

pub(super) fn q5_0(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 22]) {
    let (d, values) = one_scale::<Integers<-16, 15>>(x, w);
    let codes = values.map(|v| (v + 16.0) as u8);
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..6].copy_from_slice(&fifth_bits(&codes).to_le_bytes());
    pack_halves(&codes, &mut out[6..]);
}

// −128 stays unused: kernels that multiply magnitudes need codes that can be negated.
pub(super) fn q8_0(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 34]) {
    let (d, values) = one_scale::<Integers<-127, 127>>(x, w);
    out[..2].copy_from_slice(&d.to_le_bytes());
    for (out, value) in out[2..].iter_mut().zip(values) {
        *out = value as i8 as u8;
    }
}

pub(super) fn iq4_nl(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 18]) {
    let (d, values) = one_scale::<Iq4>(x, w);
    out[..2].copy_from_slice(&d.to_le_bytes());
    pack_halves(&values.map(|v| code_of(&IQ4_NL_VALUES, v)), &mut out[2..]);
}

pub(super) fn q4_1(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 20]) {
    let (d, m, codes) = scale_and_offset(x, w, 15.0);
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    pack_halves(&codes, &mut out[4..]);
}

pub(super) fn q5_1(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 24]) {
    let (d, m, codes) = scale_and_offset(x, w, 31.0);
    out[..2].copy_from_slice(&d.to_le_bytes());
    out[2..4].copy_from_slice(&m.to_le_bytes());
    out[4..8].copy_from_slice(&fifth_bits(&codes).to_le_bytes());
    pack_halves(&codes, &mut out[8..]);
}

/// Tries each power of two that could hold the largest weight: there are few, so no search is needed.
pub(super) fn mxfp4(x: &[f32; 32], w: &[f32; 32], out: &mut [u8; 17]) {
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    // The exponent byte e stands for a step of 2^(e − 128), and the largest value is 12 steps.
    let near = if largest > 0.0 { i32::from(exponent(largest)) - 2 } else { 0 };
    let tried = (near - 1..=near + 3).map(|e| e.clamp(0, 254) as u8);
    let best = tried.min_by(|&a, &b| mxfp4_error(x, w, a).total_cmp(&mxfp4_error(x, w, b))).unwrap_or(0);
    out[0] = best;
    let values = scaled_up::<E2m1>(x, best).0;
    pack_halves(&values.map(|v| code_of(&MXFP4_VALUES, v)), &mut out[1..]);
}

/// e with 2^(e − 128) ≤ value < 2^(e − 127), for normal numbers; 0 below.
fn exponent(value: f32) -> u8 {
    ((value.to_bits() >> 23) & 255).saturating_add(1).min(254) as u8
}

/// The nearest values and the weights in units of the step: division by a power of two is exact, in F64 for
/// subnormal steps too.
fn scaled_up<C: Codebook>(x: &[f32; 32], e: u8) -> ([f32; 32], [f64; 32]) {
    let units = x.map(|x| f64::from(x) / f64::from(half_power_of_two(e)));
    (units.map(|t| C::nearest(t as f32)), units)
}

fn mxfp4_error(x: &[f32; 32], w: &[f32; 32], e: u8) -> f64 {
    let (values, units) = scaled_up::<E2m1>(x, e);
    let step = f64::from(half_power_of_two(e));
    let terms =
        values.iter().zip(units).zip(w).map(|((&v, t), &w)| f64::from(w) * (t - f64::from(v)).powi(2));
    terms.sum::<f64>() * step * step
}

/// The scale as it will be read back, and the value of each weight.
fn one_scale<C: Codebook>(x: &[f32; 32], w: &[f32; 32]) -> (half::f16, [f32; 32]) {
    let signs = if C::SYMMETRIC { &[1.0][..] } else { &[1.0, -1.0] };
    // The rounded scale may be a poor one (few bits are left in tiny ones), so its neighbours compete.
    let mut best = (half::f16::ZERO, f32::INFINITY);
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for &sign in signs {
        let [a, b, c] = neighbours(best_scale::<C, 32>(x, w, sign).scale);
        // Blocks that were quantised before have their largest weight on an end of the range: those come back
        // exactly, though other scales fit as well before they are rounded.
        let ends = [sign * largest / C::ENDS.0, sign * largest / C::ENDS.1].map(to_f16);
        for d in [a, b, c, ends[0], ends[1]] {
            let error = error_at::<C, 32>(x, w, d.to_f32());
            if error < best.1 {
                best = (d, error);
            }
        }
    }
    (best.0, encode::<C, 32>(x, best.0.to_f32()))
}

/// The half-precision number nearest to `value` and the ones before and after it in magnitude.
fn neighbours(value: f32) -> [half::f16; 3] {
    let nearest = to_f16(value).to_bits();
    // One less than a zero or one more than the largest number would be another kind of number.
    let less = if nearest & 0x7fff == 0 { nearest } else { nearest - 1 };
    let more = if nearest & 0x7fff >= 0x7bff { nearest } else { nearest + 1 };
    [nearest, less, more].map(half::f16::from_bits)
}

/// Scale, offset (which is added) and codes of a format with both.
fn scale_and_offset(x: &[f32; 32], w: &[f32; 32], code_max: f32) -> (half::f16, half::f16, [u8; 32]) {
    let best = best_affine(x, w, code_max, false);
    let mut chosen = Affine { error: f32::INFINITY, ..best };
    for d in neighbours(best.scale).map(half::f16::to_f32) {
        for m in neighbours(best.min).map(half::f16::to_f32) {
            let error = affine_error_at(x, w, d, m, code_max);
            if error < chosen.error {
                chosen = Affine { scale: d, min: m, error };
            }
        }
    }
    let codes = encode_affine(x, chosen.scale, chosen.min, code_max);
    (to_f16(chosen.scale), to_f16(-chosen.min), codes.map(|code| code as u8))
}

fn fifth_bits(codes: &[u8; 32]) -> u32 {
    codes.iter().enumerate().fold(0, |bits, (i, code)| bits | u32::from(code >> 4) << i)
}

/// Low four bits: the first 16 codes in the low halves of the bytes, the others in the high halves.
pub(super) fn pack_halves(codes: &[u8; 32], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = codes[i] & 15 | codes[i + 16] << 4;
    }
}

/// The first code that stands for `value`.
pub(super) fn code_of(values: &[i8; 16], value: f32) -> u8 {
    values.iter().position(|&v| f32::from(v) == value).unwrap_or(0) as u8
}
