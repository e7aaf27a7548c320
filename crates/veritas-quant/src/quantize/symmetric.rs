//! Super-blocks of 256 weights whose groups have a signed integer scale: Q3_K, Q6_K and IQ4_XS.

use super::group::{Codebook, Integers, Iq4, Scale, best_scale, encode, error_at};
use super::small::{code_of, pack_halves};
use super::to_f16;
use crate::tables::IQ4_NL_VALUES;

pub(super) fn q3_k(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 110]) {
    let fit = SuperBlock::<16, 16>::fit::<Integers<-4, 3>>(x, w, (-32, 31));
    out.fill(0);
    for (i, value) in fit.values::<Integers<-4, 3>>(x).into_iter().enumerate() {
        let code = (value + 4.0) as u8;
        out[32 + i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
        out[i % 32] |= (code >> 2) << (i / 32);
    }
    for (sub, scale) in fit.scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        out[96 + sub % 8] |= (scale & 15) << (sub / 8 * 4);
        out[104 + sub % 4] |= (scale >> 4) << (sub / 4 * 2);
    }
    out[108..].copy_from_slice(&fit.d.to_le_bytes());
}

pub(super) fn q6_k(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 210]) {
    let fit = SuperBlock::<16, 16>::fit::<Integers<-32, 31>>(x, w, (-128, 127));
    out.fill(0);
    for (i, value) in fit.values::<Integers<-32, 31>>(x).into_iter().enumerate() {
        let (code, half, within) = ((value + 32.0) as u8, i / 128, i % 128);
        out[half * 64 + within % 64] |= (code & 15) << (within / 64 * 4);
        out[128 + half * 32 + within % 32] |= (code >> 4) << (within / 32 * 2);
    }
    for (out, &scale) in out[192..208].iter_mut().zip(&fit.scales) {
        *out = scale as i8 as u8;
    }
    out[208..].copy_from_slice(&fit.d.to_le_bytes());
}

pub(super) fn iq4_xs(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 136]) {
    let fit = SuperBlock::<8, 32>::fit::<Iq4>(x, w, (-32, 31));
    out.fill(0);
    out[..2].copy_from_slice(&fit.d.to_le_bytes());
    let mut high = 0;
    for (sub, scale) in fit.scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        high |= u16::from(scale >> 4) << (2 * sub);
        out[4 + sub / 2] |= (scale & 15) << (sub % 2 * 4);
    }
    out[2..4].copy_from_slice(&high.to_le_bytes());
    let codes = fit.values::<Iq4>(x).map(|value| code_of(&IQ4_NL_VALUES, value));
    for (codes, out) in codes.as_chunks().0.iter().zip(out[8..].chunks_mut(16)) {
        pack_halves(codes, out);
    }
}

/// The scales of a super-block of `SUBS` groups of `N` weights: weight ≈ d · scale · value.
struct SuperBlock<const SUBS: usize, const N: usize> {
    d: half::f16,
    scales: [i32; SUBS],
    error: f32,
}

impl<const SUBS: usize, const N: usize> SuperBlock<SUBS, N> {
    /// Searches d and the integer scales within `range`.
    fn fit<C: Codebook>(x: &[f32; 256], w: &[f32; 256], range: (i32, i32)) -> Self {
        let (x, w) = (x.as_chunks::<N>().0, w.as_chunks::<N>().0);
        let ideal: [[Scale; 2]; SUBS] =
            std::array::from_fn(|sub| [1.0, -1.0].map(|sign| best_scale::<C, N>(&x[sub], &w[sub], sign)));
        let largest = ideal
            .iter()
            .map(|[plus, minus]| if minus.error < plus.error { minus.scale } else { plus.scale })
            .fold(0f32, |largest, scale| if scale.abs() > largest.abs() { scale } else { largest });
        let mut best = Self { d: half::f16::ZERO, scales: [0; SUBS], error: f32::INFINITY };
        // The largest ideal scale should fall near one end of the range, or a little outside.
        for part in [1.04, 1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7] {
            for end in [range.0, range.1] {
                let candidate = Self::around::<C>(x, w, largest / (end as f32 * part), range, |sub, d| {
                    let [plus, minus] = ideal[sub];
                    let (first, second) = (plus.scale / d, minus.scale / d);
                    [first.floor(), first.ceil(), second.floor(), second.ceil()]
                });
                best.keep_better(candidate);
            }
        }
        for _ in 0..4 {
            let solved = best.solve::<C>(x, w);
            let scales = best.scales;
            let candidate = Self::around::<C>(x, w, solved, range, |sub, _| {
                let scale = scales[sub] as f32;
                [scale, scale - 1.0, scale + 1.0, -scale]
            });
            if !best.keep_better(candidate) {
                break;
            }
        }
        best
    }

    /// The best choice among `candidates` for each group, once d is rounded.
    fn around<C: Codebook>(
        x: &[[f32; N]],
        w: &[[f32; N]],
        d: f32,
        range: (i32, i32),
        candidates: impl Fn(usize, f32) -> [f32; 4],
    ) -> Self {
        let rounded = to_f16(d);
        let mut fit = Self { d: rounded, scales: [0; SUBS], error: 0.0 };
        let d = rounded.to_f32();
        for sub in 0..SUBS {
            let (mut best_error, mut best_scale) = (error_at::<C, N>(&x[sub], &w[sub], 0.0), 0);
            let mut tried = [0; 4];
            if d != 0.0 {
                tried = candidates(sub, d).map(|scale| (scale as i32).clamp(range.0, range.1));
            }
            for (i, &scale) in tried.iter().enumerate() {
                if scale == 0 || tried[..i].contains(&scale) {
                    continue;
                }
                let error = error_at::<C, N>(&x[sub], &w[sub], d * scale as f32);
                if error < best_error {
                    (best_error, best_scale) = (error, scale);
                }
            }
            fit.scales[sub] = best_scale;
            fit.error += best_error;
        }
        fit
    }

    fn keep_better(&mut self, candidate: Self) -> bool {
        let better = candidate.error < self.error;
        if better {
            *self = candidate;
        }
        better
    }

    /// The least-squares d for the codes and integer scales of this fit.
    fn solve<C: Codebook>(&self, x: &[[f32; N]], w: &[[f32; N]]) -> f32 {
        let (mut product, mut square) = (0.0, 0.0);
        for sub in 0..SUBS {
            let scale = self.scales[sub] as f32;
            let values = encode::<C, N>(&x[sub], self.d.to_f32() * scale);
            for (i, value) in values.into_iter().enumerate() {
                product += w[sub][i] * x[sub][i] * scale * value;
                square += w[sub][i] * scale * value * scale * value;
            }
        }
        if square > 0.0 { product / square } else { 0.0 }
    }

    /// The value of each weight.
    fn values<C: Codebook>(&self, x: &[f32; 256]) -> [f32; 256] {
        let mut values = [0.0; 256];
        for (sub, values) in values.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            let scale = self.d.to_f32() * self.scales[sub] as f32;
            *values = encode::<C, N>(&x.as_chunks::<N>().0[sub], scale);
        }
        values
    }
}
