//! Many activation rows: panels of 32 weight rows times tiles of six columns.
//!
//! A panel is unpacked once for all columns, into the first-level cache. A register tile is two vectors of weight rows
//! times six columns: twelve integer accumulators, and twelve of floats where a span is 32 weights. `vpdpbusd` multiplies
//! unsigned with signed bytes and adds four products in i32 without saturation; where the weights are signed, 128 is
//! added to them, and the accumulators start from −128 times the sum of the activations.
//!
//! K is cut into stretches that fit the cache. Between them the sums wait in memory, so the chain of each output stays
//! what it is.

use std::arch::x86_64::*;
use std::cell::RefCell;

use veritas_mem::AlignedBuf;
use veritas_quant::unpack::Format;

use super::ahead::Ahead;
use super::panel::{Fill, LANES, Panel, PanelRows, ROWS};
use super::vectors::{self, floats, quads, store, words};
use crate::Activations;
use crate::columns::{ColumnTile, ColumnTiles, NARROW, STEP, SpanLayout, WIDE};
use crate::quant::stretch::finish;
use crate::tile::TileWriter;

/// Rows of at most this many weights are one stretch.
const WHOLE_MAX: usize = 896;
/// Weights along K in a stretch of longer rows.
const STRETCH: usize = 512;

/// Most bytes of activations that are walked whole for each panel: half of a second-level cache of common size.
const COLUMNS_BYTES_MAX: usize = 256 << 10;

/// What a thread keeps from one product to the next.
struct Scratch {
    panel: Box<Panel>,
    /// Per panel, column and weight row: the sum so far.
    sums: AlignedBuf<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { panel: Panel::zeroed(), sums: AlignedBuf::default() });
}

/// All weight rows, panel by panel, times all columns.
///
/// # Panics
/// If the activations have not been put side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn rows<F: Fill>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let columns = acts.columns().expect("the activations are side by side");
    assert_eq!(columns.layout().map(|layout| layout.span), Some(F::Format::SPAN.max(32)), "one kind of span");
    SCRATCH.with_borrow_mut(|Scratch { panel, sums }| {
        let panel_sums = columns.n_columns() * ROWS;
        sums.resize(n_rows.div_ceil(ROWS) * panel_sums);
        let stretch = if cols <= WHOLE_MAX { cols } else { STRETCH };
        let (n_panels, n_stretches) = (n_rows.div_ceil(ROWS), cols.div_ceil(stretch));
        // A panel's stretches one after the other read memory in its order. All panels of a stretch keep many columns in
        // the cache.
        let by_panel = columns.bytes() <= COLUMNS_BYTES_MAX;
        let place = |i: usize| {
            let (p, s) =
                if by_panel { (i / n_stretches, i % n_stretches) } else { (i % n_panels, i / n_panels) };
            let at = s * stretch;
            (p, Stretch { at, len: stretch.min(cols - at) })
        };
        let n_places = n_panels * n_stretches;
        for i in 0..n_places {
            let (p, stretch) = place(i);
            let rows = stretch.rows::<F::Format>(w, n_rows, cols, p);
            let (next_p, next) = place((i + 1).min(n_places - 1));
            // SAFETY: this function needs the same instructions.
            unsafe { F::fill(panel, &rows) };
            // The products ask once per 32 weights.
            let n_calls = columns.tiles().len() * stretch.len / 32;
            let mut ahead = Ahead::new(next.rows::<F::Format>(w, n_rows, cols, next_p), n_calls);
            let sums = &mut sums[p * panel_sums..][..panel_sums];
            tiles::<F::Format>(panel, columns, &stretch, sums, &mut ahead);
            if stretch.at + stretch.len == cols {
                finish::<ROWS>(sums, p * ROWS, n_rows, out);
            }
        }
    });
}

/// A part of K.
struct Stretch {
    at: usize,
    len: usize,
}

impl Stretch {
    /// This stretch of the panel `p` of rows of `cols` weights.
    fn rows<'w, F: Format>(&self, w: &'w [u8], n_rows: usize, cols: usize, p: usize) -> PanelRows<'w> {
        let row_bytes = cols / F::LEN * F::BYTES;
        let bytes = |weights: usize| weights / F::LEN * F::BYTES;
        let first = p * ROWS;
        PanelRows::new(
            &w[first * row_bytes..],
            n_rows - first,
            row_bytes,
            bytes(self.at)..bytes(self.at + self.len),
        )
    }
}

/// A panel times all columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tiles<F: Format>(
    panel: &Panel,
    columns: &ColumnTiles,
    stretch: &Stretch,
    sums: &mut [f32],
    ahead: &mut Ahead<'_>,
) {
    for tile in columns.tiles() {
        match tile.columns {
            WIDE => one::<F, WIDE>(panel, &tile, stretch, sums, ahead),
            _ => one::<F, NARROW>(panel, &tile, stretch, sums, ahead),
        }
    }
}

/// A panel times one tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn one<F: Format, const C: usize>(
    panel: &Panel,
    tile: &ColumnTile<'_>,
    stretch: &Stretch,
    sums: &mut [f32],
    ahead: &mut Ahead<'_>,
) {
    const { assert!(F::SPAN == 32 || F::SPAN == 256) };
    let span_dwords = SpanLayout { span: F::SPAN }.dwords() * C;
    let dwords = &tile.dwords[stretch.at / F::SPAN * span_dwords..][..stretch.len / F::SPAN * span_dwords];
    let sums: &mut [[[f32; LANES]; 2]; C] =
        sums[tile.first * ROWS..][..C * ROWS].as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0[..1]
            .first_mut()
            .expect("a tile of sums");
    if stretch.at == 0 {
        *sums = [[[0.0; LANES]; 2]; C];
    }
    match (F::SPAN, F::GROUP, F::MINS) {
        (32, 32, false) => spans_of_32::<C, false>(panel, dwords, sums, ahead),
        (32, 32, true) => spans_of_32::<C, true>(panel, dwords, sums, ahead),
        (256, 16, false) => spans_of_256::<C, 16, false>(panel, dwords, sums, ahead),
        (256, 16, true) => spans_of_256::<C, 16, true>(panel, dwords, sums, ahead),
        (256, 32, false) => spans_of_256::<C, 32, false>(panel, dwords, sums, ahead),
        (256, 32, true) => spans_of_256::<C, 32, true>(panel, dwords, sums, ahead),
        _ => unreachable!("{} has no panel", F::TYPE),
    }
}

/// Adds the products of spans of 32 weights without integer scales to `sums`, span by span. `dwords` holds whole spans.
///
/// A sum is at most 32 · 255 · 127 = 1 036 320 in magnitude on the way.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn spans_of_32<const C: usize, const MINS: bool>(
    panel: &Panel,
    dwords: &[u32],
    sums: &mut [[[f32; LANES]; 2]; C],
    ahead: &mut Ahead<'_>,
) {
    const LAYOUT: SpanLayout = SpanLayout { span: 32 };
    const STEPS: usize = 32 / STEP;
    let mut total = [[_mm512_setzero_ps(); 2]; C];
    for c in 0..C {
        total[c] = [floats(&sums[c][0]), floats(&sums[c][1])];
    }
    let spans = dwords.chunks_exact(LAYOUT.dwords() * C);
    let steps = panel.quants.as_chunks::<STEPS>().0;
    for (((span, steps), d), d_min) in spans.zip(steps).zip(&panel.d).zip(&panel.d_min) {
        ahead.fetch();
        let mut dots = [[_mm512_setzero_si512(); 2]; C];
        if !MINS {
            for c in 0..C {
                dots[c] = [broadcast(span, LAYOUT.corrections() * C + c); 2];
            }
        }
        for (step, w) in steps.iter().enumerate() {
            let w = [quads(&w[0]), quads(&w[1])];
            for c in 0..C {
                let x = broadcast(span, step * C + c);
                dots[c][0] = _mm512_dpbusd_epi32(dots[c][0], w[0], x);
                dots[c][1] = _mm512_dpbusd_epi32(dots[c][1], w[1], x);
            }
        }
        let d = [floats(&d[0]), floats(&d[1])];
        for c in 0..C {
            let da = _mm512_castsi512_ps(broadcast(span, LAYOUT.scale() * C + c));
            for half in 0..2 {
                let scale = _mm512_mul_ps(d[half], da);
                total[c][half] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dots[c][half]), total[c][half]);
            }
        }
        if MINS {
            let d_min = [floats(&d_min[0]), floats(&d_min[1])];
            for c in 0..C {
                let da = _mm512_castsi512_ps(broadcast(span, LAYOUT.scale() * C + c));
                // The correction is −128 times the sum, whose conversion is exact: at most 32 · 127.
                let sum = _mm512_cvtepi32_ps(broadcast(span, LAYOUT.corrections() * C + c));
                let sum = _mm512_mul_ps(sum, _mm512_set1_ps(-1.0 / 128.0));
                for half in 0..2 {
                    let scale = _mm512_mul_ps(d_min[half], da);
                    total[c][half] = _mm512_fnmadd_ps(scale, sum, total[c][half]);
                }
            }
        }
    }
    for c in 0..C {
        store(&mut sums[c][0], total[c][0]);
        store(&mut sums[c][1], total[c][1]);
    }
}

/// Adds the products of spans of 256 weights to `sums`, span by span; `G` weights share an integer scale. `dwords` holds
/// whole spans.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn spans_of_256<const C: usize, const G: usize, const MINS: bool>(
    panel: &Panel,
    dwords: &[u32],
    sums: &mut [[[f32; LANES]; 2]; C],
    ahead: &mut Ahead<'_>,
) {
    const LAYOUT: SpanLayout = SpanLayout { span: 256 };
    for (s, span) in dwords.chunks_exact(LAYOUT.dwords() * C).enumerate() {
        let steps = &panel.quants[s * 256 / STEP..][..256 / STEP];
        let mut total = [[_mm512_setzero_si512(); 2]; C];
        for g in 0..256 / G {
            if G == 32 || g % 2 == 0 {
                ahead.fetch();
            }
            let mut dots = [[_mm512_setzero_si512(); 2]; C];
            if !MINS {
                for c in 0..C {
                    let at = |i: usize| (LAYOUT.corrections() + i) * C + c;
                    let correction = if G == 16 {
                        broadcast(span, at(g))
                    } else {
                        _mm512_add_epi32(broadcast(span, at(2 * g)), broadcast(span, at(2 * g + 1)))
                    };
                    dots[c] = [correction; 2];
                }
            }
            for step in g * G / STEP..(g + 1) * G / STEP {
                let w = [quads(&steps[step][0]), quads(&steps[step][1])];
                for c in 0..C {
                    let x = broadcast(span, step * C + c);
                    dots[c][0] = _mm512_dpbusd_epi32(dots[c][0], w[0], x);
                    dots[c][1] = _mm512_dpbusd_epi32(dots[c][1], w[1], x);
                }
            }
            let scales = &panel.scales[s * 256 / G + g];
            let scales = [vectors::dwords(&scales[0]), vectors::dwords(&scales[1])];
            for c in 0..C {
                for half in 0..2 {
                    let scaled = _mm512_mullo_epi32(dots[c][half], scales[half]);
                    total[c][half] = _mm512_add_epi32(total[c][half], scaled);
                }
            }
        }
        let d = [floats(&panel.d[s][0]), floats(&panel.d[s][1])];
        for c in 0..C {
            let da = _mm512_castsi512_ps(broadcast(span, LAYOUT.scale() * C + c));
            for half in 0..2 {
                let scale = _mm512_mul_ps(d[half], da);
                let sum = floats(&sums[c][half]);
                store(&mut sums[c][half], _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(total[c][half]), sum));
            }
        }
        if MINS {
            let (pairs_at, n_pairs) =
                if G == 16 { (LAYOUT.pairs_of_16(), 8) } else { (LAYOUT.pairs_of_32(), 4) };
            let mut mins = [[_mm512_setzero_si512(); 2]; C];
            for (pair, min) in panel.mins[s * n_pairs..][..n_pairs].iter().enumerate() {
                let min = [words(&min[0]), words(&min[1])];
                for c in 0..C {
                    let sums = broadcast(span, (pairs_at + pair) * C + c);
                    mins[c][0] = _mm512_dpwssd_epi32(mins[c][0], min[0], sums);
                    mins[c][1] = _mm512_dpwssd_epi32(mins[c][1], min[1], sums);
                }
            }
            let d_min = [floats(&panel.d_min[s][0]), floats(&panel.d_min[s][1])];
            for c in 0..C {
                let da = _mm512_castsi512_ps(broadcast(span, LAYOUT.scale() * C + c));
                for half in 0..2 {
                    let scale = _mm512_mul_ps(d_min[half], da);
                    let sum = floats(&sums[c][half]);
                    store(
                        &mut sums[c][half],
                        _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(mins[c][half]), sum),
                    );
                }
            }
        }
    }
}

/// One dword in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(dwords: &[u32], at: usize) -> __m512i {
    debug_assert!(at < dwords.len());
    // SAFETY: every caller reads inside the span that `SpanLayout` describes, which `dwords` is a whole one of.
    _mm512_set1_epi32(unsafe { *dwords.get_unchecked(at) } as i32)
}
