//! Rotary position embedding of one head.

use crate::lanes::{LANES, Simd};

/// Which values of a head form a pair that is rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// `(x[2i], x[2i + 1])`: the layout of the original paper and of converted llama files.
    Interleaved,
    /// `(x[i], x[i + n])` with n pairs: the layout of GPT-NeoX.
    Neox,
}

/// `(a, b)` becomes `(a · cos − b · sin, a · sin + b · cos)`, each as one product and one fused multiply-add:
/// `fma(a, cos, −(b · sin))` and `fma(a, sin, b · cos)`.
#[inline(always)]
pub(crate) fn rope<S: Simd>(s: S, style: RopeStyle, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    let sin = &sin[..n];
    match style {
        RopeStyle::Interleaved => {
            let (pairs, _) = x.as_chunks_mut::<2>();
            for ((pair, &cos), &sin) in pairs.iter_mut().zip(cos).zip(sin) {
                *pair = rotate(*pair, cos, sin);
            }
        }
        RopeStyle::Neox => {
            let (first, rest) = x.split_at_mut(n);
            let second = &mut rest[..n];
            let whole = n / LANES * LANES;
            let (first, first_rest) = first.split_at_mut(whole);
            let (second, second_rest) = second.split_at_mut(whole);
            let vectors = first.as_chunks_mut::<LANES>().0.iter_mut().zip(second.as_chunks_mut::<LANES>().0);
            let tables = cos.as_chunks::<LANES>().0.iter().zip(sin.as_chunks::<LANES>().0);
            for ((a_out, b_out), (cos, sin)) in vectors.zip(tables) {
                let (a, b) = (s.load(a_out), s.load(b_out));
                let (cos, sin) = (s.load(cos), s.load(sin));
                s.store(s.fma(a, cos, s.neg(s.mul(b, sin))), a_out);
                s.store(s.fma(a, sin, s.mul(b, cos)), b_out);
            }
            for (i, (a, b)) in first_rest.iter_mut().zip(second_rest).enumerate() {
                [*a, *b] = rotate([*a, *b], cos[whole + i], sin[whole + i]);
            }
        }
    }
}

/// One pair.
#[inline(always)]
fn rotate([a, b]: [f32; 2], cos: f32, sin: f32) -> [f32; 2] {
    [a.mul_add(cos, -(b * sin)), a.mul_add(sin, b * cos)]
}
