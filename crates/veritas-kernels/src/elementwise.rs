//! Operations on one element at a time: activation functions, sums, products, the soft cap.

use crate::lanes::{LANES, Simd};
use crate::vector;

/// The nonlinearity of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + e^−x)`.
    Silu,
    /// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `½ x (1 + erf(x / √2))`.
    GeluErf,
    /// `x / (1 + e^(−1.702 x))`.
    GeluQuick,
    /// `x` above 0, else 0; a NaN becomes 0.
    Relu,
    /// The square of [`Activation::Relu`].
    ReluSquared,
}

/// √(2/π), of the tanh form of GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The cubic coefficient of the tanh form of GELU.
const GELU_CUBIC: f32 = 0.044_715;
/// The slope of the quick form of GELU.
const GELU_QUICK: f32 = 1.702;

/// Replaces each vector of `x` by an expression of it; the row's end is padded with zeros.
macro_rules! map {
    ($s:ident, $x:ident, |$v:ident| $body:expr) => {{
        let (chunks, rest) = $x.as_chunks_mut::<LANES>();
        for chunk in chunks {
            let $v = $s.load(chunk);
            let result = $body;
            $s.store(result, chunk);
        }
        if !rest.is_empty() {
            let $v = $s.load_part(rest, 0.0);
            let result = $body;
            $s.store_part(result, rest);
        }
    }};
}

/// Sets each vector of `out` to an expression of those of `x` and `y`, which have its length.
macro_rules! zip {
    ($s:ident, $out:ident = |$v:ident: $x:ident, $w:ident: $y:ident| $body:expr) => {{
        let (chunks, rest) = $out.as_chunks_mut::<LANES>();
        let (x_chunks, x_rest) = $x.as_chunks::<LANES>();
        let (y_chunks, y_rest) = $y.as_chunks::<LANES>();
        for ((chunk, x), y) in chunks.iter_mut().zip(x_chunks).zip(y_chunks) {
            let ($v, $w) = ($s.load(x), $s.load(y));
            let result = $body;
            $s.store(result, chunk);
        }
        if !rest.is_empty() {
            let ($v, $w) = ($s.load_part(x_rest, 0.0), $s.load_part(y_rest, 0.0));
            let result = $body;
            $s.store_part(result, rest);
        }
    }};
}

/// Sets each vector of `x` to an expression of it and of `y`'s.
macro_rules! update {
    ($s:ident, $x:ident, $y:ident, |$v:ident, $w:ident| $body:expr) => {{
        let (chunks, rest) = $x.as_chunks_mut::<LANES>();
        let (y_chunks, y_rest) = $y.as_chunks::<LANES>();
        for (chunk, y) in chunks.iter_mut().zip(y_chunks) {
            let ($v, $w) = ($s.load(chunk), $s.load(y));
            let result = $body;
            $s.store(result, chunk);
        }
        if !rest.is_empty() {
            let ($v, $w) = ($s.load_part(rest, 0.0), $s.load_part(y_rest, 0.0));
            let result = $body;
            $s.store_part(result, rest);
        }
    }};
}

/// `x / (1 + e^(−slope · x))`.
#[inline(always)]
fn swish<S: Simd>(s: S, x: S::V, slope: f32) -> S::V {
    let e = vector::exp(s, s.mul(x, s.splat(-slope)));
    s.div(x, s.add(s.splat(1.0), e))
}

#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let cubic = s.mul(s.mul(x, x), x);
    let inner = s.mul(s.splat(SQRT_2_OVER_PI), s.fma(s.splat(GELU_CUBIC), cubic, x));
    let sum = s.add(s.splat(1.0), vector::tanh(s, inner));
    s.mul(s.mul(s.splat(0.5), x), sum)
}

#[inline(always)]
fn gelu_erf<S: Simd>(s: S, x: S::V) -> S::V {
    let erf = vector::erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(s.splat(0.5), x), s.add(s.splat(1.0), erf))
}

#[inline(always)]
fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(x, s.splat(0.0))
}

#[inline(always)]
fn relu_squared<S: Simd>(s: S, x: S::V) -> S::V {
    let x = relu(s, x);
    s.mul(x, x)
}

/// `out = f(gate) · up`.
#[inline(always)]
pub(crate) fn activate_mul<S: Simd>(s: S, f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match f {
        Activation::Silu => zip!(s, out = |g: gate, u: up| s.mul(swish(s, g, 1.0), u)),
        Activation::GeluTanh => zip!(s, out = |g: gate, u: up| s.mul(gelu_tanh(s, g), u)),
        Activation::GeluErf => zip!(s, out = |g: gate, u: up| s.mul(gelu_erf(s, g), u)),
        Activation::GeluQuick => zip!(s, out = |g: gate, u: up| s.mul(swish(s, g, GELU_QUICK), u)),
        Activation::Relu => zip!(s, out = |g: gate, u: up| s.mul(relu(s, g), u)),
        Activation::ReluSquared => zip!(s, out = |g: gate, u: up| s.mul(relu_squared(s, g), u)),
    }
}

/// `x = f(x)`.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, f: Activation, x: &mut [f32]) {
    match f {
        Activation::Silu => map!(s, x, |v| swish(s, v, 1.0)),
        Activation::GeluTanh => map!(s, x, |v| gelu_tanh(s, v)),
        Activation::GeluErf => map!(s, x, |v| gelu_erf(s, v)),
        Activation::GeluQuick => map!(s, x, |v| swish(s, v, GELU_QUICK)),
        Activation::Relu => map!(s, x, |v| relu(s, v)),
        Activation::ReluSquared => map!(s, x, |v| relu_squared(s, v)),
    }
}

/// `x = x + y`.
#[inline(always)]
pub(crate) fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    update!(s, x, y, |a, b| s.add(a, b));
}

/// `x = y · factor + x`, rounded once.
#[inline(always)]
pub(crate) fn add_scaled<S: Simd>(s: S, x: &mut [f32], y: &[f32], factor: f32) {
    let factor = s.splat(factor);
    update!(s, x, y, |a, b| s.fma(b, factor, a));
}

/// `x = x · y`.
#[inline(always)]
pub(crate) fn mul<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    update!(s, x, y, |a, b| s.mul(a, b));
}

/// `x = x · factor`.
#[inline(always)]
pub(crate) fn scale<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    map!(s, x, |v| s.mul(v, factor));
}

/// `x = cap · tanh(x / cap)`.
#[inline(always)]
pub(crate) fn softcap<S: Simd>(s: S, x: &mut [f32], cap: f32) {
    map!(s, x, |v| softcap_lanes(s, v, cap));
}

/// `cap · tanh(x / cap)` of each lane.
#[inline(always)]
pub(crate) fn softcap_lanes<S: Simd>(s: S, x: S::V, cap: f32) -> S::V {
    let cap = s.splat(cap);
    s.mul(cap, vector::tanh(s, s.div(x, cap)))
}
