//! BF16 products with `vdpbf16ps`, where the processor has it.
//!
//! The instruction multiplies pairs of BF16 numbers and adds them to an f32, the second of a pair first, with subnormal
//! numbers flushed: the canonical order of these products was chosen to be the one that it computes.

use std::arch::x86_64::*;

use veritas_simd::Avx512Token;

use crate::activations::Activations;
use crate::lanes::Simd;
use crate::tile::TileWriter;

/// BF16 numbers in a vector.
const STEP: usize = 32;

/// Weight rows × activation rows of a register tile, and weight rows for one activation row.
const TILE: (usize, usize) = (4, 5);
const DECODE: usize = 4;

/// Whether this machine has the instruction.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// The products of `n_rows` weight rows with all activation rows, which are stored as pairs.
///
/// # Safety
/// The machine has AVX-512 (as the level's other kernels need it) and AVX512_BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(crate) unsafe fn rows(
    w: &[u8],
    n_rows: usize,
    _cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let n_acts = out.n_act_rows();
    if n_acts == 1 {
        strip::<DECODE, 1>(w, n_rows, acts, 0, out);
        return;
    }
    let mut act = 0;
    while act + TILE.1 <= n_acts {
        strip::<{ TILE.0 }, { TILE.1 }>(w, n_rows, acts, act, out);
        act += TILE.1;
    }
    while act < n_acts {
        strip::<{ TILE.0 }, 1>(w, n_rows, acts, act, out);
        act += 1;
    }
}

/// All weight rows times `C` activation rows from `act` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn strip<const R: usize, const C: usize>(
    w: &[u8],
    n_rows: usize,
    acts: &Activations,
    act: usize,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = w.len() / n_rows;
    let x: [&[[u32; STEP / 2]]; C] = std::array::from_fn(|c| acts.pair_row(act + c).as_chunks().0);
    let row_at = |row: usize| &w[row * row_bytes..][..row_bytes];
    let mut row = 0;
    while row < n_rows {
        if row + R <= n_rows {
            let sums = tile::<R, C>(std::array::from_fn(|r| row_at(row + r)), x);
            for c in 0..C {
                out.row_mut(act + c)[row..row + R]
                    .copy_from_slice(&std::array::from_fn::<_, R, _>(|r| sums[r][c]));
            }
            row += R;
        } else {
            let sums = tile::<1, C>([row_at(row)], x);
            for c in 0..C {
                out.row_mut(act + c)[row] = sums[0][c];
            }
            row += 1;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn tile<const R: usize, const C: usize>(w: [&[u8]; R], x: [&[[u32; STEP / 2]]; C]) -> [[f32; C]; R] {
    // SAFETY: this function needs the level's instructions.
    let s = unsafe { Avx512Token::assume() };
    let mut acc = [[_mm512_setzero_ps(); C]; R];
    let steps = w.map(|w| w.as_chunks::<{ 2 * STEP }>().0);
    let n = steps[0].len();
    let x = x.map(|x| &x[..x.len().min(n + 1)]);
    let steps = steps.map(|steps| &steps[..n]);
    for step in 0..n {
        let mut inputs = [_mm512_setzero_ps(); C];
        for c in 0..C {
            inputs[c] = pairs(&x[c][step]);
        }
        for r in 0..R {
            let weights = s.load_bytes(&steps[r][step]);
            for c in 0..C {
                acc[r][c] = dot(acc[r][c], weights, inputs[c]);
            }
        }
    }
    let rest = w.map(|w| w.as_chunks::<{ 2 * STEP }>().1);
    if !rest[0].is_empty() {
        for r in 0..R {
            let mut bytes = [0; 2 * STEP];
            bytes[..rest[r].len()].copy_from_slice(rest[r]);
            let weights = s.load_bytes(&bytes);
            for c in 0..C {
                acc[r][c] = dot(acc[r][c], weights, pairs(&x[c][n]));
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

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(x: &[u32; STEP / 2]) -> __m512 {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(acc: __m512, w: __m512, x: __m512) -> __m512 {
    // SAFETY: both types are 64 bytes of which every pattern is a value.
    unsafe {
        _mm512_dpbf16_ps(
            acc,
            std::mem::transmute::<__m512, __m512bh>(w),
            std::mem::transmute::<__m512, __m512bh>(x),
        )
    }
}
