//! Elementary functions, the same bits on every machine: only `+ − × ÷`, the fused multiply-add and bit patterns.
//!
//! The f64 functions serve tables (rope) and the sampler; their relative error is about 1e-15. The f32 functions are
//! the definitions, one number at a time, of what `vector.rs` computes sixteen at a time. Coefficients without a name are
//! 1/n!; the others are minimax fits that we computed, each with the error that it leaves.

/// 1.5 · 2^52: adding it rounds to an integer (ties to even), which the low bits then hold.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// ln 2 in two parts: the first has 21 trailing zero bits, so that its product with an exponent is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// π/2 in three parts of 53 bits each.
const HALF_PI_1: f64 = f64::from_bits(0x3FF9_21FB_5444_2D18);
const HALF_PI_2: f64 = f64::from_bits(0x3C91_A626_3314_5C07);
const HALF_PI_3: f64 = f64::from_bits(0xB91F_1976_B7ED_8FBC);

/// 1/n! for n from 0 to 17.
const INVERSE_FACTORIAL: [f64; 18] = {
    let mut table = [1.0; 18];
    let mut factorial = 1.0; // Exact to 18!, which has 45 significant bits.
    let mut n = 1;
    while n < 18 {
        factorial *= n as f64;
        table[n] = 1.0 / factorial;
        n += 1;
    }
    table
};

/// `e^x`. 0 below −745.2, infinite above 709.78; subnormal results are rounded once more.
pub fn exp(x: f64) -> f64 {
    exp_of_sum(x, 0.0)
}

/// `e^(high + low)` for a `low` that is small beside `high`.
fn exp_of_sum(high: f64, low: f64) -> f64 {
    if high.is_nan() {
        return f64::NAN;
    }
    if high > 709.79 {
        return f64::INFINITY;
    }
    if high < -745.2 {
        return 0.0;
    }
    let shifted = high.mul_add(std::f64::consts::LOG2_E, ROUND_F64);
    let n = shifted - ROUND_F64;
    let r = n.mul_add(-LN2_HIGH, high);
    let r = n.mul_add(-LN2_LOW, r) + low;
    let p = 1.0 + expm1_reduced(r);
    // Two factors, because 2^n itself may be too large or too small for an f64.
    let n = n as i64;
    p * power_of_two(n / 2) * power_of_two(n - n / 2)
}

/// `e^r − 1` for |r| ≤ 0.35.
fn expm1_reduced(r: f64) -> f64 {
    let mut p = INVERSE_FACTORIAL[13];
    for n in (2..13).rev() {
        p = p.mul_add(r, INVERSE_FACTORIAL[n]);
    }
    (p * r).mul_add(r, r)
}

/// 2^n for n from −1022 to 1023.
fn power_of_two(n: i64) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// The natural logarithm. −∞ for 0, NaN below.
pub fn ln(x: f64) -> f64 {
    let (high, low) = ln_two_parts(x);
    high + low
}

/// The natural logarithm as a sum of two f64, with about 20 more bits than one.
fn ln_two_parts(x: f64) -> (f64, f64) {
    if x.is_nan() || x < 0.0 {
        return (f64::NAN, 0.0);
    }
    if x == 0.0 {
        return (f64::NEG_INFINITY, 0.0);
    }
    if x == f64::INFINITY {
        return (f64::INFINITY, 0.0);
    }
    // x = m · 2^e with m from √½ to √2.
    let (x, bias) = if x < f64::MIN_POSITIVE { (x * power_of_two(54), 54) } else { (x, 0) };
    let mut e = (x.to_bits() >> 52) as i64 - 1023 - bias;
    let mut m = f64::from_bits(x.to_bits() & 0x000F_FFFF_FFFF_FFFF | 0x3FF0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    // ln m = 2 artanh(s), s = (m − 1) / (m + 1), as high + low.
    let f = m - 1.0;
    let (sum, sum_low) = two_sum(m, 1.0);
    let s = f / sum;
    let s_low = ((-s).mul_add(sum, f) - s * sum_low) / sum;
    // artanh(s) = s + s³/3 + s⁵/5 + …; s² ≤ 0.0295, so that s^27/27 is below 1e-21.
    let u = s * s;
    let mut p = 0.0;
    for n in (3..=25).rev().step_by(2) {
        p = u.mul_add(p, 1.0 / n as f64);
    }
    let tail = s * u * p;
    let (high, low) = two_sum(e as f64 * LN2_HIGH, 2.0 * s);
    let low = low + 2.0 * (s_low + tail);
    let low = (e as f64).mul_add(LN2_LOW, low);
    two_sum(high, low)
}

/// `a + b` as the rounded sum and its error, exactly.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}

/// `x^y` for x ≥ 0, and for x < 0 with an integer y; otherwise NaN. `x^0` and `1^y` are 1.
pub fn pow(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    if x < 0.0 {
        // Beyond 2^53 every f64 is an even integer.
        let is_integer = y.abs() >= 9_007_199_254_740_992.0 || y as i64 as f64 == y;
        let is_odd = y.abs() < 9_007_199_254_740_992.0 && y as i64 % 2 != 0;
        let magnitude = pow(-x, y);
        return if !is_integer {
            f64::NAN
        } else if is_odd {
            -magnitude
        } else {
            magnitude
        };
    }
    let (high, low) = ln_two_parts(x);
    let product = high * y;
    if !product.is_finite() {
        // x is 0 or infinite, or the result is out of range anyway.
        return exp(product);
    }
    let product_low = high.mul_add(y, -product) + low * y;
    exp_of_sum(product, product_low)
}

/// (sin x, cos x) for |x| up to about 1e7; beyond, the reduction loses accuracy, and from 1e15 on the result is NaN.
pub fn sin_cos(x: f64) -> (f64, f64) {
    if !x.is_finite() || x.abs() > 1e15 {
        return (f64::NAN, f64::NAN);
    }
    let n = x.mul_add(std::f64::consts::FRAC_2_PI, ROUND_F64) - ROUND_F64;
    // r + r_low = x − n · π/2. The first difference is exact for |n| < 2^23 or so: both sides are multiples of 2^-52.
    let r = n.mul_add(-HALF_PI_1, x);
    let step = n * HALF_PI_2;
    let step_low = n.mul_add(HALF_PI_2, -step);
    let (r, r_low) = two_sum(r, -step);
    let r_low = n.mul_add(-HALF_PI_3, r_low - step_low);
    let u = r * r;
    let (mut sin, mut cos) = (INVERSE_FACTORIAL[17], INVERSE_FACTORIAL[16]);
    for k in (1..8).rev() {
        sin = u.mul_add(-sin, INVERSE_FACTORIAL[2 * k + 1]);
        cos = u.mul_add(-cos, INVERSE_FACTORIAL[2 * k]);
    }
    let sin = (-(r * u)).mul_add(sin, r);
    let cos = u.mul_add(-cos, 1.0);
    // The derivatives carry r_low.
    let (sin, cos) = (cos.mul_add(r_low, sin), (-sin).mul_add(r_low, cos));
    match n as i64 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// The hyperbolic tangent.
pub fn tanh(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    let magnitude = x.abs();
    if magnitude > 20.0 {
        return 1.0f64.copysign(x);
    }
    // tanh x = (e^2x − 1) / (e^2x + 1), with e^2x − 1 computed without cancellation.
    let y = 2.0 * magnitude;
    let n = y.mul_add(std::f64::consts::LOG2_E, ROUND_F64) - ROUND_F64;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, y));
    let scale = power_of_two(n as i64);
    let expm1 = scale.mul_add(expm1_reduced(r), scale - 1.0);
    (expm1 / (expm1 + 2.0)).copysign(x)
}

/// 1.5 · 2^23: adding it rounds to an integer (ties to even), which the low bits then hold.
pub(crate) const ROUND_F32: f32 = 12_582_912.0;
/// ln 2 in two parts, for fused multiply-adds.
pub(crate) const LN2_HIGH_F32: f32 = std::f32::consts::LN_2;
pub(crate) const LN2_LOW_F32: f32 = -1.904_654_2e-9;
/// Below, `exp_f32` is 0: the result would be subnormal, or within a factor of 1.04 of that.
pub(crate) const EXP_LOWEST: f32 = -87.3;
/// Above, `exp_f32` is infinite: the greatest f32 whose exponential is finite.
pub(crate) const EXP_HIGHEST: f32 = f32::from_bits(0x42B1_7217);
/// e^r = 1 + r + r² · P(r) for |r| ≤ ½ ln 2: relative error 3.1e-9.
pub(crate) const EXP_F32: [f32; 5] =
    [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_7];

/// tanh x = x + x³ · P(x²) for |x| ≤ 0.625: relative error 4.7e-9.
pub(crate) const TANH_F32: [f32; 5] =
    [-0.333_332_78, 0.133_313_28, -0.053_729_23, 0.020_602_006, -0.005_660_788_6];
/// Where `tanh_f32` changes from the polynomial to the exponential.
pub(crate) const TANH_SMALL: f32 = 0.625;

/// erf x = x · P(x²) for |x| ≤ 1: relative error 1.2e-9.
#[allow(clippy::approx_constant)] // The first coefficient of the fit is near 2/√π, and is not it.
pub(crate) const ERF_SMALL_F32: [f32; 7] = [
    1.128_379_1,
    -0.376_126_26,
    0.112_835_854,
    -0.026_853_813,
    0.005_188_327_7,
    -0.000_801_019_37,
    7.853_861e-5,
];
/// erf x = 1 − e^−Q(x) for 1 ≤ x ≤ 4: absolute error 1.1e-9.
pub(crate) const ERF_LARGE_F32: [f32; 7] =
    [0.000_312_469_3, 1.127_202_3, 0.637_965, 0.103_256_2, -0.021_906_476, 0.002_964_006_3, -0.000_187_971_7];
/// From here on, erf is 1 in f32.
pub(crate) const ERF_ONE: f32 = 4.0;

/// `e^x` within 2 units of the last place; 0 below −87.3, infinite where it exceeds the f32, NaN for NaN.
pub fn exp_f32(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x > EXP_HIGHEST {
        return f32::INFINITY;
    }
    if x < EXP_LOWEST {
        return 0.0;
    }
    let t = x.mul_add(std::f32::consts::LOG2_E, ROUND_F32);
    let n = t - ROUND_F32;
    let r = n.mul_add(-LN2_LOW_F32, n.mul_add(-LN2_HIGH_F32, x));
    let p = polynomial_f32(&EXP_F32, r);
    let p = 1.0 + p.mul_add(r * r, r);
    f32::from_bits(p.to_bits().wrapping_add(t.to_bits() << 23))
}

/// The hyperbolic tangent, within 2e-7.
pub fn tanh_f32(x: f32) -> f32 {
    let magnitude = x.abs();
    let result = if magnitude < TANH_SMALL {
        let u = x * x;
        polynomial_f32(&TANH_F32, u).mul_add(magnitude * u, magnitude)
    } else {
        let e = exp_f32(magnitude * -2.0);
        (1.0 - e) / (1.0 + e)
    };
    result.copysign(x)
}

/// The error function, within 2e-7.
pub fn erf_f32(x: f32) -> f32 {
    let magnitude = x.abs();
    let result = if magnitude < 1.0 {
        polynomial_f32(&ERF_SMALL_F32, x * x) * magnitude
    } else {
        let bounded = if ERF_ONE < magnitude { ERF_ONE } else { magnitude };
        1.0 - exp_f32(-polynomial_f32(&ERF_LARGE_F32, bounded))
    };
    result.copysign(x)
}

/// Horner's rule with fused multiply-adds; the coefficients ascend.
fn polynomial_f32(coefficients: &[f32], x: f32) -> f32 {
    let (last, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    rest.iter().rev().fold(*last, |p, &c| p.mul_add(x, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers spread over a range, the ends included, at no regular distance of anything that matters.
    fn spread(low: f64, high: f64) -> impl Iterator<Item = f64> {
        let n = 20_011;
        (0..=n).map(move |i| low + (high - low) * (f64::from(i) / f64::from(n)))
    }

    fn relative(ours: f64, expected: f64) -> f64 {
        if ours == expected { 0.0 } else { ((ours - expected) / expected).abs() }
    }

    #[test]
    fn exp_is_accurate_over_the_whole_range() {
        let worst = spread(-708.0, 709.7).map(|x| relative(exp(x), x.exp())).fold(0.0, f64::max);
        assert!(worst < 1e-15, "{worst:e}");
        let worst = spread(-1.0, 1.0).map(|x| relative(exp(x), x.exp())).fold(0.0, f64::max);
        assert!(worst < 5e-16, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(710.0), f64::INFINITY);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert!(exp(-740.0) > 0.0 && exp(-740.0) < f64::MIN_POSITIVE);
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn ln_is_accurate_near_one_and_far_away() {
        for (low, high) in [(0.5, 2.0), (1e-300, 1e-290), (1e-3, 1e3), (1e290, 1e300)] {
            let worst = spread(low, high).map(|x| relative(ln(x), x.ln())).fold(0.0, f64::max);
            assert!(worst < 5e-16, "{low} to {high}: {worst:e}");
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert!(relative(ln(5e-324), 5e-324f64.ln()) < 5e-16);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn pow_is_accurate_where_rope_and_samplers_use_it() {
        for base in [10_000.0, 500_000.0, 1e6, 0.5, 1.0001, 3.0, 1e-5] {
            let worst = spread(-20.0, 20.0).map(|y| relative(pow(base, y), base.powf(y))).fold(0.0, f64::max);
            assert!(worst < 1e-15, "{base}: {worst:e}");
        }
        assert_eq!((pow(2.0, 10.0), pow(7.0, 0.0), pow(1.0, f64::NAN)), (1024.0, 1.0, 1.0));
        assert_eq!((pow(-2.0, 3.0), pow(-2.0, 2.0)), (-8.0, 4.0));
        assert!(pow(-2.0, 0.5).is_nan());
        assert_eq!((pow(0.0, 2.0), pow(0.0, -1.0)), (0.0, f64::INFINITY));
        assert_eq!((pow(10.0, 400.0), pow(10.0, -400.0)), (f64::INFINITY, 0.0));
    }

    #[test]
    fn sin_and_cos_are_accurate_to_ten_million() {
        for range in [1.0, 10.0, 1e4, 1e7] {
            for x in spread(-range, range) {
                let (sin, cos) = sin_cos(x);
                assert!((sin - x.sin()).abs() < 3e-16, "sin {x}: {sin} {}", x.sin());
                assert!((cos - x.cos()).abs() < 3e-16, "cos {x}: {cos} {}", x.cos());
            }
        }
        // Near a multiple of π, sin is small, and its relative error shows the reduction's.
        for k in 1..2000 {
            let x = std::f64::consts::PI * f64::from(k * 1591);
            assert!(relative(sin_cos(x).0, x.sin()) < 1e-15, "{x}");
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
        assert!(sin_cos(f64::INFINITY).0.is_nan());
    }

    #[test]
    fn tanh_is_accurate_near_zero_and_far_away() {
        for range in [1e-9, 0.1, 1.0, 25.0] {
            let worst = spread(-range, range).map(|x| relative(tanh(x), x.tanh())).fold(0.0, f64::max);
            assert!(worst < 2e-15, "{range}: {worst:e}");
        }
        assert_eq!((tanh(f64::INFINITY), tanh(-100.0)), (1.0, -1.0));
        assert!(tanh(f64::NAN).is_nan());
    }

    #[test]
    fn exp_f32_is_within_two_units_of_the_last_place() {
        let mut worst = 0.0f64;
        for x in spread(f64::from(EXP_LOWEST), f64::from(EXP_HIGHEST)).chain(spread(-1.0, 1.0)) {
            let x = x as f32;
            let expected = f64::from(x).exp();
            let unit = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
            worst = worst.max((f64::from(exp_f32(x)) - expected).abs() / unit);
        }
        assert!(worst < 1.5, "{worst}");
        assert_eq!((exp_f32(0.0), exp_f32(f32::NEG_INFINITY), exp_f32(-88.0)), (1.0, 0.0, 0.0));
        assert!(exp_f32(EXP_HIGHEST).is_finite() && exp_f32(EXP_LOWEST) > f32::MIN_POSITIVE);
        assert_eq!((exp_f32(EXP_HIGHEST.next_up()), exp_f32(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_f32_and_erf_f32_are_within_two_ten_millionths() {
        let (mut worst_tanh, mut worst_erf) = (0.0f64, 0.0f64);
        for x in spread(-10.0, 10.0).chain(spread(-1.5, 1.5)) {
            let x = x as f32;
            worst_tanh = worst_tanh.max((f64::from(tanh_f32(x)) - f64::from(x).tanh()).abs());
            worst_erf = worst_erf.max((f64::from(erf_f32(x)) - erf_by_series(f64::from(x))).abs());
        }
        assert!(worst_tanh < 1.5e-7, "{worst_tanh:e}");
        assert!(worst_erf < 1.5e-7, "{worst_erf:e}");
        for f in [tanh_f32, erf_f32] {
            assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY), f(50.0)), (1.0, -1.0, 1.0));
            assert_eq!(f(-0.0).to_bits(), (-0.0f32).to_bits());
            assert!(f(f32::NAN).is_nan());
        }
    }

    /// erf x = 2/√π · e^−x² · Σ 2^n x^(2n+1) / (1·3·…·(2n+1)), which has no cancellation.
    fn erf_by_series(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }
}
