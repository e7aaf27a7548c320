//! The formats with grids: panels of eight weight rows times tiles of up to four activation rows.

use std::arch::x86_64::*;

use veritas_quant::unpack::{Format, GROUP};

use super::vectors::{dwords, floats, quads, store};
use crate::Activations;
use crate::quant::panel::{Columns, PANEL_LEN, Panel, SPAN, quad, row_slices};
use crate::tile::TileWriter;

/// Weight rows of a panel: the lanes of a vector.
const ROWS: usize = 8;

/// All weight rows, panel by panel, times all activation rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let n_acts = acts.rows();
    let mut panel = Panel::<ROWS>::new();
    let mut sums = vec![[0.0f32; ROWS]; n_acts];
    for first in (0..n_rows).step_by(ROWS) {
        sums.fill([0.0; ROWS]);
        for at in (0..cols).step_by(PANEL_LEN) {
            let len = PANEL_LEN.min(cols - at);
            panel.fill::<F, 0, true>(&row_slices::<F, ROWS>(
                w,
                n_rows,
                cols,
                first,
                at / F::LEN,
                len / F::LEN,
            ));
            let mut a = 0;
            while a < n_acts {
                let left = &mut sums[a..];
                a += match left.len() {
                    1 => tiles::<F, 1>(&panel, acts, a, at, len, left),
                    2..4 => tiles::<F, 2>(&panel, acts, a, at, len, left),
                    _ => tiles::<F, 4>(&panel, acts, a, at, len, left),
                };
            }
        }
        let n_valid = ROWS.min(n_rows - first);
        for (a, sums) in sums.iter().enumerate() {
            out.row_mut(a)[first..first + n_valid].copy_from_slice(&sums[..n_valid]);
        }
    }
}

/// One tile of `C` activation rows from row `a` on. Returns `C`.
#[target_feature(enable = "avx2,fma,f16c")]
fn tiles<F: Format, const C: usize>(
    panel: &Panel<ROWS>,
    acts: &Activations,
    a: usize,
    at: usize,
    len: usize,
    acc: &mut [[f32; ROWS]],
) -> usize {
    let columns = Columns::<C>::new(acts, a, at, len);
    let (acc, _) = acc.split_first_chunk_mut::<C>().expect("the caller chose C by the rows that are left");
    tile(panel, &columns, acc);
    C
}

/// Adds the products over the panel's stretch to `acc`, span by span in order.
///
/// The sum of a dword is at most 4 · 128 · 127 in magnitude, times a scale of at most 128; the sum over a span is
/// bounded as `veritas_quant::unpack` says.
#[inline(never)] // One copy, not one per format.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const C: usize>(panel: &Panel<ROWS>, columns: &Columns<'_, C>, acc: &mut [[f32; ROWS]; C]) {
    let mut total = [_mm256_setzero_ps(); C];
    for c in 0..C {
        total[c] = floats(&acc[c]);
    }
    for span in 0..columns.scales[0].len() {
        let mut dots = [_mm256_setzero_si256(); C];
        for group in span * SPAN / GROUP..(span + 1) * SPAN / GROUP {
            let scale = dwords(&panel.scales[group]);
            let q: [_; C] = std::array::from_fn(|c| columns.q[c][group]);
            for (step, w) in panel.quants[group].iter().enumerate() {
                let w = quads(w);
                let magnitude = _mm256_abs_epi8(w);
                for c in 0..C {
                    let q = _mm256_set1_epi32(quad(q[c][step]));
                    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(q, w));
                    dots[c] = _mm256_add_epi32(dots[c], _mm256_madd_epi16(pairs, scale));
                }
            }
        }
        let d = floats(&panel.d[span]);
        for c in 0..C {
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(columns.scales[c][span]));
            total[c] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[c]), total[c]);
        }
    }
    for c in 0..C {
        store(&mut acc[c], total[c]);
    }
}
