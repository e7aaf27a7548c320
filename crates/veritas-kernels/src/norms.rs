//! Normalisations of a row: RMS norm, layer norm, softmax.
//!
//! Sums go over sixteen lanes (lane = index mod 16, ascending), then the fold. The row's end is padded with what adds
//! zero.

use crate::lanes::{LANES, Simd};
use crate::vector;

/// `out = x / sqrt(mean(x²) + eps) · weight`.
#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut squares = s.splat(0.0);
    for chunk in chunks {
        let v = s.load(chunk);
        squares = s.fma(v, v, squares);
    }
    if !rest.is_empty() {
        let v = s.load_part(rest, 0.0);
        squares = s.fma(v, v, squares);
    }
    let mean = s.fold_add(squares) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    affine(s, x, 0.0, scale, weight, &[], out);
}

/// `out = (x − mean) / sqrt(variance + eps) · weight + bias`.
#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = s.splat(0.0);
    for chunk in chunks {
        sums = s.add(sums, s.load(chunk));
    }
    if !rest.is_empty() {
        sums = s.add(sums, s.load_part(rest, 0.0));
    }
    let mean = s.fold_add(sums) / x.len() as f32;
    let means = s.splat(mean);
    let mut squares = s.splat(0.0);
    for chunk in chunks {
        let d = s.sub(s.load(chunk), means);
        squares = s.fma(d, d, squares);
    }
    if !rest.is_empty() {
        let d = s.sub(s.load_part(rest, mean), means);
        squares = s.fma(d, d, squares);
    }
    let variance = s.fold_add(squares) / x.len() as f32;
    let scale = 1.0 / (variance + eps).sqrt();
    affine(s, x, mean, scale, weight, bias, out);
}

/// `out = ((x − mean) · scale) · weight + bias`, the last two in one fused multiply-add, or without it where there is no
/// bias.
#[inline(always)]
fn affine<S: Simd>(s: S, x: &[f32], mean: f32, scale: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let (means, scales) = (s.splat(mean), s.splat(scale));
    let mut start = 0;
    while start < x.len() {
        let end = x.len().min(start + LANES);
        let mut v = s.mul(s.sub(load(s, x, start, end), means), scales);
        if !bias.is_empty() {
            let b = load(s, bias, start, end);
            let w = if weight.is_empty() { s.splat(1.0) } else { load(s, weight, start, end) };
            v = s.fma(v, w, b);
        } else if !weight.is_empty() {
            v = s.mul(v, load(s, weight, start, end));
        }
        match out[start..end].first_chunk_mut::<LANES>() {
            Some(chunk) => s.store(v, chunk),
            None => s.store_part(v, &mut out[start..end]),
        }
        start = end;
    }
}

#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32], start: usize, end: usize) -> S::V {
    match x[start..end].first_chunk::<LANES>() {
        Some(chunk) => s.load(chunk),
        None => s.load_part(&x[start..end], 0.0),
    }
}

/// `x = exp(x − max) / Σ exp(x − max)`.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    let mut max = s.splat(f32::NEG_INFINITY);
    for chunk in &*chunks {
        max = s.max(max, s.load(chunk));
    }
    if !rest.is_empty() {
        max = s.max(max, s.load_part(rest, f32::NEG_INFINITY));
    }
    let max = s.splat(s.fold_max(max));
    let mut sums = s.splat(0.0);
    for chunk in &mut *chunks {
        let p = vector::exp(s, s.sub(s.load(chunk), max));
        s.store(p, chunk);
        sums = s.add(sums, p);
    }
    if !rest.is_empty() {
        let p = vector::exp(s, s.sub(s.load_part(rest, f32::NEG_INFINITY), max));
        s.store_part(p, rest);
        sums = s.add(sums, p);
    }
    let sum = s.splat(s.fold_add(sums));
    for chunk in chunks {
        s.store(s.div(s.load(chunk), sum), chunk);
    }
    if !rest.is_empty() {
        s.store_part(s.div(s.load_part(rest, 0.0), sum), rest);
    }
}
