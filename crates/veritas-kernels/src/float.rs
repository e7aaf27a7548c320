//! Products of F32, F16 and BF16 weights.
//!
//! The canonical order of an output: sixteen chains over the row, lane `l` taking `k ≡ l (mod 16)` in ascending order,
//! and then the fold. BF16 takes pairs: lane `l` takes pairs `p ≡ l (mod 16)`, the second of a pair before the first,
//! and flushes subnormal inputs and results, which is what `vdpbf16ps` does.
//!
//! A register tile is some weight rows × some activation rows, each output with its sixteen chains in registers, so
//! that a load serves several products. With one activation row it is more weight rows: then the weights stream from
//! memory, and several streams keep the memory busy.

#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16_avx512;

use crate::activations::Activations;
use crate::lanes::{LANES, Simd};
use crate::tile::TileWriter;

/// How the weights of a type are read, step by step along a row.
pub(crate) trait Weights {
    /// The bytes of a step.
    type Bytes: Copy;
    /// A step's activations.
    type Inputs: Copy;
    /// A step's weights or activations in registers.
    type Step<S: Simd>: Copy;

    /// The whole steps of a row, and the bytes that are left.
    fn steps(row: &[u8]) -> (&[Self::Bytes], &[u8]);
    /// The last step, padded with zeros.
    fn padded(rest: &[u8]) -> Self::Bytes;
    fn inputs(x: &[f32]) -> &[Self::Inputs];
    fn load<S: Simd>(s: S, bytes: &Self::Bytes) -> Self::Step<S>;
    fn load_inputs<S: Simd>(s: S, x: &Self::Inputs) -> Self::Step<S>;
    /// `acc` with the step's products added.
    fn accumulate<S: Simd>(s: S, w: Self::Step<S>, x: Self::Step<S>, acc: S::V) -> S::V;
}

/// F32 weights.
pub(crate) struct F32;

/// F16 weights.
pub(crate) struct F16;

/// BF16 weights.
pub(crate) struct Bf16;

impl Weights for F32 {
    type Bytes = [u8; 64];
    type Inputs = [f32; LANES];
    type Step<S: Simd> = S::V;

    #[inline(always)]
    fn steps(row: &[u8]) -> (&[[u8; 64]], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn padded(rest: &[u8]) -> [u8; 64] {
        padded(rest)
    }

    #[inline(always)]
    fn inputs(x: &[f32]) -> &[[f32; LANES]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8; 64]) -> S::V {
        s.load_bytes(bytes)
    }

    #[inline(always)]
    fn load_inputs<S: Simd>(s: S, x: &[f32; LANES]) -> S::V {
        s.load(x)
    }

    #[inline(always)]
    fn accumulate<S: Simd>(s: S, w: S::V, x: S::V, acc: S::V) -> S::V {
        s.fma(w, x, acc)
    }
}

impl Weights for F16 {
    type Bytes = [u8; 32];
    type Inputs = [f32; LANES];
    type Step<S: Simd> = S::V;

    #[inline(always)]
    fn steps(row: &[u8]) -> (&[[u8; 32]], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn padded(rest: &[u8]) -> [u8; 32] {
        padded(rest)
    }

    #[inline(always)]
    fn inputs(x: &[f32]) -> &[[f32; LANES]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8; 32]) -> S::V {
        s.load_f16(bytes)
    }

    #[inline(always)]
    fn load_inputs<S: Simd>(s: S, x: &[f32; LANES]) -> S::V {
        s.load(x)
    }

    #[inline(always)]
    fn accumulate<S: Simd>(s: S, w: S::V, x: S::V, acc: S::V) -> S::V {
        s.fma(w, x, acc)
    }
}

impl Weights for Bf16 {
    type Bytes = [u8; 64];
    type Inputs = [f32; 2 * LANES];
    /// (The second of each pair, the first of each pair.)
    type Step<S: Simd> = (S::V, S::V);

    #[inline(always)]
    fn steps(row: &[u8]) -> (&[[u8; 64]], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn padded(rest: &[u8]) -> [u8; 64] {
        padded(rest)
    }

    #[inline(always)]
    fn inputs(x: &[f32]) -> &[[f32; 2 * LANES]] {
        x.as_chunks().0
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8; 64]) -> (S::V, S::V) {
        let (second, first) = s.load_bf16_pairs(bytes);
        (s.flush(second), s.flush(first))
    }

    #[inline(always)]
    fn load_inputs<S: Simd>(s: S, x: &[f32; 2 * LANES]) -> (S::V, S::V) {
        let (halves, _) = x.as_chunks::<LANES>();
        (s.load(&halves[0]), s.load(&halves[1]))
    }

    #[inline(always)]
    fn accumulate<S: Simd>(s: S, w: (S::V, S::V), x: (S::V, S::V), acc: S::V) -> S::V {
        let acc = s.flush(s.fma(w.0, x.0, acc));
        s.flush(s.fma(w.1, x.1, acc))
    }
}

fn padded<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// The products of `n_rows` weight rows with all activation rows. `R` × `C` is the register tile (weight rows ×
/// activation rows), `D` the weight rows at a time for a single activation row.
#[inline(always)]
pub(crate) fn rows<S: Simd, W: Weights, const R: usize, const C: usize, const D: usize>(
    s: S,
    w: &[u8],
    n_rows: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = w.len() / n_rows.max(1);
    let n_acts = out.n_act_rows();
    if n_acts == 1 {
        let whole = n_rows / D * D;
        columns::<S, W, D, 1>(s, w, row_bytes, 0..whole, acts, 0, out);
        columns::<S, W, 1, 1>(s, w, row_bytes, whole..n_rows, acts, 0, out);
        return;
    }
    let whole = n_rows / R * R;
    let mut act = 0;
    while act + C <= n_acts {
        columns::<S, W, R, C>(s, w, row_bytes, 0..whole, acts, act, out);
        columns::<S, W, 1, C>(s, w, row_bytes, whole..n_rows, acts, act, out);
        act += C;
    }
    while act < n_acts {
        columns::<S, W, R, 1>(s, w, row_bytes, 0..whole, acts, act, out);
        columns::<S, W, 1, 1>(s, w, row_bytes, whole..n_rows, acts, act, out);
        act += 1;
    }
}

/// The outputs of a range of weight rows (a multiple of `R`) and of `C` activation rows from `act`.
#[inline(always)]
fn columns<S: Simd, W: Weights, const R: usize, const C: usize>(
    s: S,
    w: &[u8],
    row_bytes: usize,
    rows: std::ops::Range<usize>,
    acts: &Activations,
    act: usize,
    out: &mut TileWriter<'_>,
) {
    let x: [&[f32]; C] = std::array::from_fn(|c| acts.f32_row(act + c));
    let mut row = rows.start;
    while row < rows.end {
        let mut w_rows: [&[u8]; R] = [&[]; R];
        for (r, w_row) in w_rows.iter_mut().enumerate() {
            *w_row = &w[(row + r) * row_bytes..][..row_bytes];
        }
        let sums = tile::<S, W, R, C>(s, &w_rows, &x);
        for c in 0..C {
            let out = &mut out.row_mut(act + c)[row..row + R];
            for r in 0..R {
                out[r] = sums[r][c];
            }
        }
        row += R;
    }
}

/// The register tile.
#[inline(always)]
fn tile<S: Simd, W: Weights, const R: usize, const C: usize>(
    s: S,
    w: &[&[u8]; R],
    x: &[&[f32]; C],
) -> [[f32; C]; R] {
    let (steps, rest) = W::steps(w[0]);
    let n_steps = steps.len();
    let n_all = n_steps + usize::from(!rest.is_empty());
    let mut w_steps: [&[W::Bytes]; R] = [&[]; R];
    for r in 0..R {
        w_steps[r] = &W::steps(w[r]).0[..n_steps];
    }
    let mut inputs: [&[W::Inputs]; C] = [&[]; C];
    for c in 0..C {
        inputs[c] = &W::inputs(x[c])[..n_all];
    }
    let mut acc = [[s.splat(0.0); C]; R];
    for step in 0..n_steps {
        let mut x_step = [W::load_inputs(s, &inputs[0][step]); C];
        for c in 1..C {
            x_step[c] = W::load_inputs(s, &inputs[c][step]);
        }
        for r in 0..R {
            let w_step = W::load(s, &w_steps[r][step]);
            for c in 0..C {
                acc[r][c] = W::accumulate(s, w_step, x_step[c], acc[r][c]);
            }
        }
    }
    if n_all > n_steps {
        for r in 0..R {
            let w_step = W::load(s, &W::padded(W::steps(w[r]).1));
            for c in 0..C {
                let x_step = W::load_inputs(s, &inputs[c][n_steps]);
                acc[r][c] = W::accumulate(s, w_step, x_step, acc[r][c]);
            }
        }
    }
    let mut sums = [[0.0; C]; R];
    for r in 0..R {
        for c in 0..C {
            sums[r][c] = s.fold_add(acc[r][c]);
        }
    }
    sums
}
