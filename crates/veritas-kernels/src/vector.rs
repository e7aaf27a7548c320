//! Elementary functions on sixteen lanes. `math.rs` defines them, one number at a time.

use crate::lanes::Simd;
use crate::math::{
    ERF_LARGE_F32, ERF_ONE, ERF_SMALL_F32, EXP_F32, EXP_HIGHEST, EXP_LOWEST, LN2_HIGH_F32, LN2_LOW_F32,
    ROUND_F32, TANH_F32, TANH_SMALL,
};

/// [`exp_f32`](crate::math::exp_f32) of each lane.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let round = s.splat(ROUND_F32);
    let t = s.fma(x, s.splat(std::f32::consts::LOG2_E), round);
    let n = s.sub(t, round);
    let r = s.fma(n, s.splat(-LN2_HIGH_F32), x);
    let r = s.fma(n, s.splat(-LN2_LOW_F32), r);
    let p = polynomial(s, &EXP_F32, r);
    let p = s.add(s.splat(1.0), s.fma(p, s.mul(r, r), r));
    let result = s.add_to_exponent(p, t);
    // Outside the range the bits above mean nothing.
    let result = s.select(s.lt(x, s.splat(EXP_LOWEST)), s.splat(0.0), result);
    let result = s.select(s.lt(s.splat(EXP_HIGHEST), x), s.splat(f32::INFINITY), result);
    s.select(s.is_nan(x), s.splat(f32::NAN), result)
}

/// [`tanh_f32`](crate::math::tanh_f32) of each lane.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    let magnitude = s.abs(x);
    let u = s.mul(x, x);
    let small = s.fma(polynomial(s, &TANH_F32, u), s.mul(magnitude, u), magnitude);
    let e = exp(s, s.mul(magnitude, s.splat(-2.0)));
    let large = s.div(s.sub(one, e), s.add(one, e));
    s.copysign(s.select(s.lt(magnitude, s.splat(TANH_SMALL)), small, large), x)
}

/// [`erf_f32`](crate::math::erf_f32) of each lane.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    let magnitude = s.abs(x);
    let small = s.mul(polynomial(s, &ERF_SMALL_F32, s.mul(x, x)), magnitude);
    // In this order, min lets a NaN pass.
    let bounded = s.min(s.splat(ERF_ONE), magnitude);
    let large = s.sub(one, exp(s, s.neg(polynomial(s, &ERF_LARGE_F32, bounded))));
    s.copysign(s.select(s.lt(magnitude, one), small, large), x)
}

/// Horner's rule with fused multiply-adds; the coefficients ascend.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, coefficients: &[f32; N], x: S::V) -> S::V {
    let mut p = s.splat(coefficients[N - 1]);
    let mut n = N - 1;
    while n > 0 {
        n -= 1;
        p = s.fma(p, x, s.splat(coefficients[n]));
    }
    p
}
