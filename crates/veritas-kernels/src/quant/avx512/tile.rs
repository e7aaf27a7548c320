//! The formats with grids: panels of sixteen weight rows times tiles of up to four activation rows.

use std::arch::x86_64::*;

use veritas_quant::unpack::{Format, GROUP};

use super::vectors::{dwords, floats, quads, store};
use crate::Activations;
use crate::quant::panel::{Columns, PANEL_LEN, Panel, SPAN, quad, row_slices};
use crate::tile::TileWriter;

/// Weight rows of a panel: the lanes of a vector.
const ROWS: usize = 16;

/// What makes signed bytes unsigned: it adds 128.
const TO_UNSIGNED: u8 = 0x80;

/// All weight rows, panel by panel, times all activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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
            let rows = row_slices::<F, ROWS>(w, n_rows, cols, first, at / F::LEN, len / F::LEN);
            panel.fill::<F, TO_UNSIGNED, false>(&rows);
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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
    match F::GROUP {
        16 => tile::<C, 16>(panel, &columns, acc),
        32 => tile::<C, 32>(panel, &columns, acc),
        _ => unreachable!("{} has no panel", F::TYPE),
    }
    C
}

/// Adds the products over the panel's stretch to `acc`, span by span in order; `SCALE_LEN` weights share an integer scale.
///
/// With the offset a sum over 32 weights is at most 32 · 255 · 127 = 1 036 320 in magnitude on the way, and after the
/// correction what `veritas_quant::unpack` says.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<const C: usize, const SCALE_LEN: usize>(
    panel: &Panel<ROWS>,
    columns: &Columns<'_, C>,
    acc: &mut [[f32; ROWS]; C],
) {
    let mut total = [_mm512_setzero_ps(); C];
    for c in 0..C {
        total[c] = floats(&acc[c]);
    }
    for span in 0..columns.scales[0].len() {
        let mut dots = [_mm512_setzero_si512(); C];
        for sub in span * SPAN / SCALE_LEN..(span + 1) * SPAN / SCALE_LEN {
            let mut part = [_mm512_setzero_si512(); C];
            for c in 0..C {
                let sums = &columns.sums[c][sub * SCALE_LEN / GROUP..][..SCALE_LEN / GROUP];
                let sum: i32 = sums.iter().map(|&sum| i32::from(sum)).sum();
                part[c] = _mm512_set1_epi32(-128 * sum);
            }
            for group in sub * SCALE_LEN / GROUP..(sub + 1) * SCALE_LEN / GROUP {
                let q: [_; C] = std::array::from_fn(|c| columns.q[c][group]);
                for (step, w) in panel.quants[group].iter().enumerate() {
                    let w = quads(w);
                    for c in 0..C {
                        part[c] = _mm512_dpbusd_epi32(part[c], w, _mm512_set1_epi32(quad(q[c][step])));
                    }
                }
            }
            let scale = dwords(&panel.scales[sub * SCALE_LEN / GROUP]);
            for c in 0..C {
                dots[c] = _mm512_add_epi32(dots[c], _mm512_mullo_epi32(part[c], scale));
            }
        }
        let d = floats(&panel.d[span]);
        for c in 0..C {
            let scale = _mm512_mul_ps(d, _mm512_set1_ps(columns.scales[c][span]));
            total[c] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dots[c]), total[c]);
        }
    }
    for c in 0..C {
        store(&mut acc[c], total[c]);
    }
}
