//! Super-blocks of 256 weights whose groups have an unsigned integer scale and minimum: Q2_K, Q4_K and Q5_K.

use super::group::{Affine, affine_error_at, best_affine, encode_affine};
use super::to_f16;

pub(super) fn q2_k(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 84]) {
    let fit = SuperBlock::<16, 16>::fit(x, w, 3.0, 15.0, &[1.06, 1.0, 0.92, 0.82]);
    out.fill(0);
    for (out, (scale, min)) in out.iter_mut().zip(fit.scales.iter().zip(fit.mins)) {
        *out = scale | min << 4;
    }
    for (i, code) in fit.codes(x, 3.0).into_iter().enumerate() {
        out[16 + i / 128 * 32 + i % 32] |= code << (i % 128 / 32 * 2);
    }
    out[80..82].copy_from_slice(&fit.d.to_le_bytes());
    out[82..].copy_from_slice(&fit.dmin.to_le_bytes());
}

pub(super) fn q4_k(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 144]) {
    let fit = SuperBlock::<8, 32>::fit(x, w, 15.0, 63.0, &[1.0, 0.97, 0.94]);
    out.fill(0);
    fit.pack_head(&mut out[..16]);
    for (i, code) in fit.codes(x, 15.0).into_iter().enumerate() {
        out[16 + i / 64 * 32 + i % 32] |= code << (i % 64 / 32 * 4);
    }
}

pub(super) fn q5_k(x: &[f32; 256], w: &[f32; 256], out: &mut [u8; 176]) {
    let fit = SuperBlock::<8, 32>::fit(x, w, 31.0, 63.0, &[1.0, 0.97, 0.94]);
    out.fill(0);
    fit.pack_head(&mut out[..16]);
    for (i, code) in fit.codes(x, 31.0).into_iter().enumerate() {
        out[48 + i / 64 * 32 + i % 32] |= (code & 15) << (i % 64 / 32 * 4);
        out[16 + i % 32] |= (code >> 4) << (i / 32);
    }
}

/// The scales of a super-block of `SUBS` groups of `N` weights: weight ≈ d · scale · code − dmin · min.
struct SuperBlock<const SUBS: usize, const N: usize> {
    d: half::f16,
    dmin: half::f16,
    scales: [u8; SUBS],
    mins: [u8; SUBS],
    error: f32,
}

impl<const SUBS: usize, const N: usize> SuperBlock<SUBS, N> {
    /// Searches d, dmin and the integers up to `int_max`; `parts` are the parts of the range of integers that the
    /// largest scale and the largest minimum may take.
    fn fit(x: &[f32; 256], w: &[f32; 256], code_max: f32, int_max: f32, parts: &[f32]) -> Self {
        let (x, w) = (x.as_chunks::<N>().0, w.as_chunks::<N>().0);
        let ideal: [Affine; SUBS] = std::array::from_fn(|sub| best_affine(&x[sub], &w[sub], code_max, true));
        let largest_scale = ideal.iter().fold(0f32, |largest, fit| largest.max(fit.scale));
        let largest_min = ideal.iter().fold(0f32, |largest, fit| largest.max(fit.min));
        let mut best = Self::around(x, w, (0.0, 0.0), (code_max, int_max), |_, _, _| ([0.0; 3], [0.0; 3]));
        for scale_part in parts {
            for min_part in parts {
                let steps = (largest_scale / (int_max * scale_part), largest_min / (int_max * min_part));
                best.keep_better(Self::around(x, w, steps, (code_max, int_max), |sub, d, dmin| {
                    let (scale, min) = (divide(ideal[sub].scale, d), divide(ideal[sub].min, dmin));
                    ([scale.floor(), scale.ceil(), 0.0], [min.floor(), min.ceil(), 0.0])
                }));
            }
        }
        for _ in 0..5 {
            let steps = best.solve(x, w, code_max);
            let (scales, mins) = (best.scales, best.mins);
            let candidate = Self::around(x, w, steps, (code_max, int_max), |sub, _, _| {
                let (scale, min) = (f32::from(scales[sub]), f32::from(mins[sub]));
                ([scale, scale - 1.0, scale + 1.0], [min, min - 1.0, min + 1.0])
            });
            if !best.keep_better(candidate) {
                break;
            }
        }
        best
    }

    /// The best choice among the candidates (scales and minimums) for each group, once d and dmin are rounded.
    fn around(
        x: &[[f32; N]],
        w: &[[f32; N]],
        (d, dmin): (f32, f32),
        (code_max, int_max): (f32, f32),
        candidates: impl Fn(usize, f32, f32) -> ([f32; 3], [f32; 3]),
    ) -> Self {
        let (d, dmin) = (to_f16(d.max(0.0)), to_f16(dmin.max(0.0)));
        let mut fit = Self { d, dmin, scales: [0; SUBS], mins: [0; SUBS], error: 0.0 };
        let (d, dmin) = (d.to_f32(), dmin.to_f32());
        for sub in 0..SUBS {
            let (scales, mins) = candidates(sub, d, dmin);
            let scales = scales.map(|scale| scale.clamp(0.0, int_max));
            let mins = mins.map(|min| min.clamp(0.0, int_max));
            let mut best = Affine { scale: 0.0, min: 0.0, error: f32::INFINITY };
            for (i, &scale) in scales.iter().enumerate() {
                for (j, &min) in mins.iter().enumerate() {
                    if scales[..i].contains(&scale) || mins[..j].contains(&min) {
                        continue;
                    }
                    let error = affine_error_at(&x[sub], &w[sub], d * scale, dmin * min, code_max);
                    if error < best.error {
                        best = Affine { scale, min, error };
                    }
                }
            }
            fit.scales[sub] = best.scale as u8;
            fit.mins[sub] = best.min as u8;
            fit.error += best.error;
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

    /// The least-squares d and dmin for the codes and integers of this fit.
    fn solve(&self, x: &[[f32; N]], w: &[[f32; N]], code_max: f32) -> (f32, f32) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        // Normal equations of x ≈ d · a − dmin · b with a = scale · code and b = min.
        let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0f64, 0f64, 0f64, 0f64, 0f64);
        for sub in 0..SUBS {
            let (scale, b) = (f32::from(self.scales[sub]), f32::from(self.mins[sub]));
            let codes = encode_affine(&x[sub], d * scale, dmin * b, code_max);
            for i in 0..N {
                let (a, w, x) = (scale * codes[i], w[sub][i], x[sub][i]);
                aa += f64::from(w * a * a);
                ab += f64::from(w * a * b);
                bb += f64::from(w * b * b);
                xa += f64::from(w * x * a);
                xb += f64::from(w * x * b);
            }
        }
        let determinant = aa * bb - ab * ab;
        if determinant <= 1e-9 * aa * bb {
            let alone = if aa > 0.0 { ((xa + f64::from(dmin) * ab) / aa) as f32 } else { d };
            return (alone, dmin);
        }
        (((xa * bb - xb * ab) / determinant) as f32, ((xa * ab - xb * aa) / determinant) as f32)
    }

    /// The code of each weight.
    fn codes(&self, x: &[f32; 256], code_max: f32) -> [u8; 256] {
        let mut codes = [0; 256];
        for (sub, codes) in codes.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            let scale = self.d.to_f32() * f32::from(self.scales[sub]);
            let min = self.dmin.to_f32() * f32::from(self.mins[sub]);
            *codes = encode_affine(&x.as_chunks::<N>().0[sub], scale, min, code_max).map(|code| code as u8);
        }
        codes
    }

    /// The first 16 bytes of Q4_K and Q5_K: d, dmin and twelve bytes of 6-bit scales and minimums.
    fn pack_head(&self, out: &mut [u8]) {
        out[..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        let packed = &mut out[4..];
        for sub in 0..4 {
            let (scale, min) = (self.scales[sub + 4], self.mins[sub + 4]);
            packed[sub] = self.scales[sub] | scale >> 4 << 6;
            packed[sub + 4] = self.mins[sub] | min >> 4 << 6;
            packed[sub + 8] = scale & 15 | min << 4;
        }
    }
}

/// a / b, and 0 for a step of 0: then the integer has no effect.
fn divide(a: f32, b: f32) -> f32 {
    if b == 0.0 { 0.0 } else { a / b }
}
