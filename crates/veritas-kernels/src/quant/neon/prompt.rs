//! Many activation rows: panels of 16 weight rows times tiles of six columns.
//!
//! A panel is unpacked once for all columns, into the first-level cache. A register tile is four vectors of weight rows
//! times six columns: 24 accumulators, four vectors of weights and two of activations are 30 of the 32 registers. `sdot`
//! takes the activations of one column out of a vector of four.
//!
//! K is cut into stretches that fit the cache. Between them the sums wait in memory, so the chain of each output stays
//! what it is.

use std::arch::aarch64::*;
use std::arch::asm;
use std::cell::RefCell;

use veritas_mem::AlignedBuf;
use veritas_quant::unpack::Format;

use super::panel::{LANES, LEN, Panel, ROWS, VECTORS};
use super::vectors::{self, floats, quads, store};
use crate::Activations;
use crate::columns::{ColumnTile, ColumnTiles, NARROW, STEP, SpanLayout, WIDE};
use crate::quant::stretch::{Ahead, Stretch, finish};
use crate::tile::TileWriter;

/// Weights along K in a stretch of rows that do not fit a panel as a whole.
const STRETCH: usize = 512;

/// The sums of a tile: per column and weight row.
type Sums<const C: usize> = [[[f32; LANES]; VECTORS]; C];

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
#[target_feature(enable = "neon,dotprod")]
pub(super) fn rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let columns = acts.columns().expect("the activations are side by side");
    assert_eq!(columns.layout().map(|layout| layout.span), Some(F::SPAN), "one kind of span");
    SCRATCH.with_borrow_mut(|Scratch { panel, sums }| {
        let panel_sums = columns.n_columns() * ROWS;
        sums.resize(n_rows.div_ceil(ROWS) * panel_sums);
        let stretch = if cols <= LEN { cols } else { STRETCH };
        for at in (0..cols).step_by(stretch) {
            let end = cols.min(at + stretch);
            let stretch = Stretch::new::<F>(at..end);
            for (p, sums) in sums.chunks_exact_mut(panel_sums).enumerate() {
                let first = p * ROWS;
                panel.fill::<F>(&stretch.rows::<F>(w, n_rows, cols, first));
                let mut ahead = Ahead::new(stretch.next::<F>(w, n_rows, cols, first));
                tiles::<F>(panel, columns, &stretch, sums, &mut ahead);
                if end == cols {
                    finish::<ROWS>(sums, first, n_rows, out);
                }
            }
        }
    });
}

/// A panel times all columns.
#[target_feature(enable = "neon,dotprod")]
fn tiles<F: Format>(
    panel: &Panel,
    columns: &ColumnTiles,
    stretch: &Stretch<ROWS>,
    sums: &mut [f32],
    ahead: &mut Ahead<'_, ROWS>,
) {
    let tiles = columns.tiles();
    let n_lines = ahead.n_lines().div_ceil(tiles.len());
    for tile in tiles {
        ahead.fetch(n_lines);
        match tile.columns {
            WIDE => one::<F, WIDE>(panel, &tile, stretch, sums),
            _ => one::<F, NARROW>(panel, &tile, stretch, sums),
        }
    }
}

/// A panel times one tile.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn one<F: Format, const C: usize>(
    panel: &Panel,
    tile: &ColumnTile<'_>,
    stretch: &Stretch<ROWS>,
    sums: &mut [f32],
) {
    let span_dwords = SpanLayout { span: F::SPAN }.dwords() * C;
    let dwords = &tile.dwords[stretch.first_span * span_dwords..][..stretch.n_spans * span_dwords];
    let sums: &mut Sums<C> =
        sums[tile.first * ROWS..][..C * ROWS].as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0[..1]
            .first_mut()
            .expect("a tile of sums");
    if stretch.first_span == 0 {
        *sums = [[[0.0; LANES]; VECTORS]; C];
    }
    match (F::SPAN, F::GROUP, F::MINS) {
        (32, 32, false) => spans_of_32::<C>(panel, dwords, sums),
        (256, 16, false) => spans_of_256::<C, 16, false>(panel, dwords, sums),
        (256, 32, true) => spans_of_256::<C, 32, true>(panel, dwords, sums),
        _ => unreachable!("{} has no panel", F::TYPE),
    }
}

/// Adds the products of spans of 32 weights to `sums`, span by span. `dwords` holds whole spans.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "neon,dotprod")]
fn spans_of_32<const C: usize>(panel: &Panel, dwords: &[u32], sums: &mut Sums<C>) {
    const LAYOUT: SpanLayout = SpanLayout { span: 32 };
    let steps = panel.quants.as_chunks::<{ 32 / STEP }>().0;
    for ((span, steps), d) in dwords.chunks_exact(LAYOUT.dwords() * C).zip(steps).zip(&panel.d) {
        let dots = dots_of_steps::<C>(steps, &span[..LAYOUT.scale() * C]);
        add_terms::<C, false>(d, &span[LAYOUT.scale() * C..][..C], &dots, sums);
    }
}

/// Adds the products of spans of 256 weights to `sums`, span by span; `G` weights share an integer scale. `dwords` holds
/// whole spans.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "neon,dotprod")]
fn spans_of_256<const C: usize, const G: usize, const MINS: bool>(
    panel: &Panel,
    dwords: &[u32],
    sums: &mut Sums<C>,
) {
    const LAYOUT: SpanLayout = SpanLayout { span: 256 };
    for (s, span) in dwords.chunks_exact(LAYOUT.dwords() * C).enumerate() {
        let mut total = [[vdupq_n_s32(0); VECTORS]; C];
        let mut mins = [[vdupq_n_s32(0); VECTORS]; C];
        for g in 0..256 / G {
            let group = s * 256 / G + g;
            let steps = &panel.quants[group * G / STEP..][..G / STEP];
            let dots = dots_of_steps::<C>(steps, &span[g * G / STEP * C..][..G / STEP * C]);
            for c in 0..C {
                for v in 0..VECTORS {
                    let scale = vectors::dwords(&panel.scales[group][v]);
                    total[c][v] = vmlaq_s32(total[c][v], dots[c][v], scale);
                }
                if MINS {
                    let sum = sum_of_group::<G>(span, LAYOUT, g, c, C);
                    for v in 0..VECTORS {
                        let min = vectors::dwords(&panel.mins[group][v]);
                        mins[c][v] = vmlaq_n_s32(mins[c][v], min, sum);
                    }
                }
            }
        }
        let scales = &span[LAYOUT.scale() * C..][..C];
        add_terms::<C, false>(&panel.d[s], scales, &total, sums);
        if MINS {
            add_terms::<C, true>(&panel.d_min[s], scales, &mins, sums);
        }
    }
}

/// The sum of the activations of the group `g` of the column `c` of a span: a half of a pair.
#[inline(always)]
fn sum_of_group<const G: usize>(span: &[u32], layout: SpanLayout, g: usize, c: usize, n: usize) -> i32 {
    let pairs_at = if G == 16 { layout.pairs_of_16() } else { layout.pairs_of_32() };
    let pair = span[(pairs_at + g / 2) * n + c];
    i32::from((pair >> (g % 2 * 16)) as u16 as i16)
}

/// The integers of a span become one step of each sum: `sum + d · da · total`, or with a minus sign.
#[inline]
#[target_feature(enable = "neon")]
fn add_terms<const C: usize, const MINUS: bool>(
    d: &[[f32; LANES]; VECTORS],
    scales: &[u32],
    totals: &[[int32x4_t; VECTORS]; C],
    sums: &mut Sums<C>,
) {
    for c in 0..C {
        for v in 0..VECTORS {
            let scale = vmulq_n_f32(floats(&d[v]), f32::from_bits(scales[c]));
            let (sum, total) = (floats(&sums[c][v]), vcvtq_f32_s32(totals[c][v]));
            let sum = if MINUS { vfmsq_f32(sum, scale, total) } else { vfmaq_f32(sum, scale, total) };
            store(&mut sums[c][v], sum);
        }
    }
}

/// The products over some steps: of the weights in `steps` and the activations in `dwords`, `C` for each step.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots_of_steps<const C: usize>(
    steps: &[[[[i8; STEP]; LANES]; VECTORS]],
    dwords: &[u32],
) -> [[int32x4_t; VECTORS]; C] {
    const { assert!(C == WIDE && WIDE == 6 || C == NARROW && NARROW == 4) };
    let mut dots = [[vdupq_n_s32(0); VECTORS]; C];
    for (w, x) in steps.iter().zip(dwords.as_chunks::<C>().0) {
        let w = [quads(&w[0]), quads(&w[1]), quads(&w[2]), quads(&w[3])];
        // SAFETY: there are at least four dwords.
        let four = unsafe { vld1q_u32(x.as_ptr()) };
        dots[0] = add_column::<0>(dots[0], w, four);
        dots[1] = add_column::<1>(dots[1], w, four);
        dots[2] = add_column::<2>(dots[2], w, four);
        dots[3] = add_column::<3>(dots[3], w, four);
        if C == WIDE {
            let (a, b) = (x[C - 2], x[C - 1]);
            let two = vreinterpretq_u32_u64(vdupq_n_u64(u64::from(a) | u64::from(b) << 32));
            dots[C - 2] = add_column::<0>(dots[C - 2], w, two);
            dots[C - 1] = add_column::<1>(dots[C - 1], w, two);
        }
    }
    dots
}

/// `dots` and the products of a step with the four activations in lane `LANE` of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_column<const LANE: usize>(
    mut dots: [int32x4_t; VECTORS],
    w: [int8x16_t; VECTORS],
    x: uint32x4_t,
) -> [int32x4_t; VECTORS] {
    for v in 0..VECTORS {
        // SAFETY: `sdot` on registers alone, which the function enables.
        unsafe {
            asm!(
                "sdot {dots:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
                dots = inout(vreg) dots[v],
                w = in(vreg) w[v],
                x = in(vreg) x,
                lane = const LANE,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
    dots
}
