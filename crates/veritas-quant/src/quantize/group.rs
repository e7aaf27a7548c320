//! The best scale (and minimum) of one group of weights.
//!
//! Everything here works on fixed arrays in eight lanes, so that compilers vectorise it.

use crate::tables::{IQ4_NL_VALUES, MXFP4_VALUES};

/// The values that a code can stand for, before the scale.
pub(super) trait Codebook {
    /// The magnitude that the largest weight of a group should fall on: from where to where the search goes.
    const REACH: (f32, f32);
    /// The magnitudes of the smallest and the largest value.
    const ENDS: (f32, f32);
    /// Whether −v is a value for each value v: then a negative scale brings nothing.
    const SYMMETRIC: bool;
    /// The value nearest to `t`.
    fn nearest(t: f32) -> f32;
}

/// The integers from `LOW` to `HIGH`.
pub(super) struct Integers<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Codebook for Integers<LOW, HIGH> {
    // Clipping the largest weight pays only if the steps are coarse: it may fall 1.5 steps outside, or, with few
    // steps, so far inside that a third of the range stays empty.
    const REACH: (f32, f32) = (HIGH as f32 * 0.97 - 0.7, -LOW as f32 + if HIGH < 100 { 1.5 } else { 0.5 });
    const ENDS: (f32, f32) = (-LOW as f32, HIGH as f32);
    const SYMMETRIC: bool = LOW == -HIGH;

    fn nearest(t: f32) -> f32 {
        round(t.clamp(LOW as f32, HIGH as f32))
    }
}

/// The values of IQ4_NL.
pub(super) struct Iq4;

impl Codebook for Iq4 {
    const REACH: (f32, f32) = (85.0, 150.0);
    const ENDS: (f32, f32) = (127.0, 113.0);
    const SYMMETRIC: bool = false;

    fn nearest(t: f32) -> f32 {
        static NEAREST: [f32; 512] = nearest_by_halves(&IQ4_NL_VALUES);
        lookup(&NEAREST, t)
    }
}

/// The values of MXFP4.
pub(super) struct E2m1;

impl Codebook for E2m1 {
    const REACH: (f32, f32) = (6.0, 16.0);
    const ENDS: (f32, f32) = (12.0, 12.0);
    const SYMMETRIC: bool = true;

    fn nearest(t: f32) -> f32 {
        static NEAREST: [f32; 512] = nearest_by_halves(&MXFP4_VALUES);
        lookup(&NEAREST, t)
    }
}

/// The nearest value for t in each of 512 intervals of width ½ from −128 on.
///
/// The values are integers, so the middle between two of them is a multiple of ½: all of an interval has the
/// same nearest value.
const fn nearest_by_halves(values: &[i8; 16]) -> [f32; 512] {
    let mut table = [0.0; 512];
    let mut at = 0;
    while at < 512 {
        // Four times the middle of the interval, an odd number; four times a value is even: no ties.
        let middle = 2 * at - 511;
        let mut best = values[0] as i32;
        let mut i = 1;
        while i < 16 {
            let value = values[i] as i32;
            if (4 * value - middle).abs() < (4 * best - middle).abs() {
                best = value;
            }
            i += 1;
        }
        table[at as usize] = best as f32;
        at += 1;
    }
    table
}

fn lookup(table: &[f32; 512], t: f32) -> f32 {
    // The clamp keeps the index in range; the conversion rounds down, as its argument is not negative.
    table[((t.clamp(-128.0, 127.75) + 128.0) * 2.0) as usize & 511]
}

/// Rounds to the nearest integer, ties to even, for magnitudes below 2²²: adding 1.5 · 2²³ leaves no bits for a
/// fraction.
pub(super) fn round(t: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (t + SHIFT) - SHIFT
}

/// Groups whose largest weight is smaller become zero: no half-precision scale reaches down there.
const TINY: f32 = 1e-12;

/// A scale and the weighted squared error it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) error: f32,
}

/// How many scales a search starts from.
const STARTS: usize = 20;

/// The best scale of the given sign.
pub(super) fn best_scale<C: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N], sign: f32) -> Scale {
    let mut best = Scale { scale: 0.0, error: sum::<N>(|i| w[i] * x[i] * x[i]) };
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    if largest < TINY {
        return best;
    }
    let (from, to) = C::REACH;
    for start in 0..STARTS {
        let reach = from + (to - from) * start as f32 / (STARTS - 1) as f32;
        improve(&mut best, solve::<C, N>(x, w, sign * largest / reach));
    }
    for _ in 0..4 {
        let next = solve::<C, N>(x, w, best.scale);
        if !improve(&mut best, next) {
            break;
        }
    }
    best
}

fn improve(best: &mut Scale, candidate: Scale) -> bool {
    let better = candidate.error < best.error;
    if better {
        *best = candidate;
    }
    better
}

/// Least squares for the codes that are nearest at `scale`.
fn solve<C: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N], scale: f32) -> Scale {
    let values = encode::<C, N>(x, scale);
    let squares = sum::<N>(|i| w[i] * values[i] * values[i]);
    if squares <= 0.0 {
        return Scale { scale, error: f32::INFINITY };
    }
    let scale = sum::<N>(|i| w[i] * values[i] * x[i]) / squares;
    let error = sum::<N>(|i| {
        let rest = x[i] - scale * values[i];
        w[i] * rest * rest
    });
    Scale { scale, error }
}

/// The nearest values at `scale`.
pub(super) fn encode<C: Codebook, const N: usize>(x: &[f32; N], scale: f32) -> [f32; N] {
    let inverse = inverse(scale);
    x.map(|x| C::nearest(x * inverse))
}

/// The weighted squared error at `scale`.
pub(super) fn error_at<C: Codebook, const N: usize>(x: &[f32; N], w: &[f32; N], scale: f32) -> f32 {
    let values = encode::<C, N>(x, scale);
    sum::<N>(|i| {
        let rest = x[i] - scale * values[i];
        w[i] * rest * rest
    })
}

/// A scale, a minimum (which is subtracted) and the weighted squared error that they leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) min: f32,
    pub(super) error: f32,
}

/// The best scale and minimum for codes 0 to `code_max`; the minimum of a `lowered` group is not negative,
/// so that its range always holds 0.
pub(super) fn best_affine<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    code_max: f32,
    lowered: bool,
) -> Affine {
    let mut low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if lowered {
        low = low.min(0.0);
    }
    let constant = Affine { scale: 0.0, min: -low, error: 0.0 };
    let mut best =
        Affine { error: affine_error_at(x, w, constant.scale, constant.min, code_max), ..constant };
    let range = high - low;
    if range < TINY {
        return best;
    }
    // Each end of the range may lie a little outside of the outermost weight or some way inside.
    const MOVES: [f32; 5] = [-0.25, 0.0, 0.25, 0.5, 0.75];
    for low_move in MOVES {
        for high_move in MOVES {
            let scale = range * (1.0 - (low_move + high_move) / code_max) / code_max;
            let start = Affine { scale, min: -(low + low_move * range / code_max), error: f32::INFINITY };
            let mut end = solve_affine(x, w, start, code_max, lowered);
            for _ in 0..2 {
                let next = solve_affine(x, w, end, code_max, lowered);
                if next.error >= end.error {
                    break;
                }
                end = next;
            }
            if end.error < best.error {
                best = end;
            }
        }
    }
    best
}

/// Least squares for the codes that are nearest at `from`.
fn solve_affine<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    from: Affine,
    code_max: f32,
    lowered: bool,
) -> Affine {
    let codes = encode_affine(x, from.scale, from.min, code_max);
    let weight = sum::<N>(|i| w[i]);
    let sum_x = sum::<N>(|i| w[i] * x[i]);
    let sum_code = sum::<N>(|i| w[i] * codes[i]);
    let sum_code2 = sum::<N>(|i| w[i] * codes[i] * codes[i]);
    let sum_x_code = sum::<N>(|i| w[i] * codes[i] * x[i]);
    let determinant = weight * sum_code2 - sum_code * sum_code;
    if sum_code2 <= 0.0 {
        return Affine { error: f32::INFINITY, ..from };
    }
    let mut scale = (weight * sum_x_code - sum_x * sum_code) / determinant;
    let mut min = (scale * sum_code - sum_x) / weight;
    if determinant <= 1e-6 * weight * sum_code2 || (lowered && min < 0.0) {
        (scale, min) = if lowered { (sum_x_code / sum_code2, 0.0) } else { (from.scale, from.min) };
    }
    let error = sum::<N>(|i| {
        let rest = x[i] - (scale * codes[i] - min);
        w[i] * rest * rest
    });
    Affine { scale, min, error }
}

/// The nearest codes, 0 to `code_max`, for x ≈ scale · code − min.
pub(super) fn encode_affine<const N: usize>(x: &[f32; N], scale: f32, min: f32, code_max: f32) -> [f32; N] {
    let inverse = inverse(scale);
    x.map(|x| round(((x + min) * inverse).clamp(0.0, code_max)))
}

/// The weighted squared error of the nearest codes.
pub(super) fn affine_error_at<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    scale: f32,
    min: f32,
    code_max: f32,
) -> f32 {
    let codes = encode_affine(x, scale, min, code_max);
    sum::<N>(|i| {
        let rest = x[i] - (scale * codes[i] - min);
        w[i] * rest * rest
    })
}

/// 1 / scale, and 0 for the scale 0: then all codes mean the same.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The sum of the terms 0..N in eight lanes; N is a multiple of 8.
pub(super) fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; 8];
    for chunk in 0..N / 8 {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(8 * chunk + lane);
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_halves_gives_the_nearest_value() {
        for step in -1200..1200 {
            let t = step as f32 * 0.11 + 0.013;
            let nearest = IQ4_NL_VALUES
                .iter()
                .map(|&v| f32::from(v))
                .min_by(|a, b| (a - t).abs().total_cmp(&(b - t).abs()));
            assert_eq!(Some(Iq4::nearest(t)), nearest, "{t}");
        }
        assert_eq!(E2m1::nearest(-1e30), -12.0);
        assert_eq!(E2m1::nearest(5.1), 6.0);
        assert_eq!(E2m1::nearest(0.4), 0.0);
    }

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        for (t, rounded) in [(0.5, 0.0), (1.5, 2.0), (-0.5, 0.0), (-2.5, -2.0), (2.4, 2.0), (-126.6, -127.0)]
        {
            assert_eq!(round(t), rounded);
        }
    }

    #[test]
    fn weights_on_a_lattice_are_found_exactly() {
        let x: [f32; 32] = std::array::from_fn(|i| (i as f32 - 16.0) * 0.25);
        assert!(best_scale::<Integers<-16, 15>, 32>(&x, &[1.0; 32], 1.0).error < 1e-9);
        let fit = best_affine(&x, &[1.0; 32], 31.0, false);
        assert!(fit.error < 1e-9 && (fit.scale - 0.25).abs() < 1e-6 && (fit.min - 4.0).abs() < 1e-5);
    }
}
