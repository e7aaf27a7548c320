//! Many activation rows: panels of 16 weight rows times tiles of six columns.
//!
//! A panel is unpacked once for all columns, into the first-level cache. `vpmaddubsw` multiplies unsigned with signed
//! bytes and adds pairs in i16, with saturation. The weights are the unsigned operand, and have as few bits as their
//! format: of pairs of codes below 2ⁿ, 2^(7 − n) fit i16 (⌊32 767 / (2 · 127 · (2ⁿ − 1))⌋ is 8, 4, 2 and 1 for four to seven
//! bits). So many steps, a run, are added in i16, before `vpmaddwd` multiplies by the integer scale, or by one, and makes
//! i32 of it: two instructions a step, where a sum in i32 would take three. Codes of eight bits are two planes of four
//! bits, whose scales differ by sixteen.
//!
//! A register tile is two vectors of weight rows times six columns: twelve accumulators of i16, the weights, the
//! activations and a product are the sixteen registers. Sums in i32 and floats are in memory.
//!
//! K is cut into stretches that fit the cache. Between them the sums wait in memory, so the chain of each output stays
//! what it is.

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

use veritas_mem::AlignedBuf;
use veritas_quant::unpack::Format;

use super::panel::{Fill, LANES, LEN, Panel, ROWS, planes};
use super::vectors::{floats, quads, store, words};
use crate::Activations;
use crate::columns::{ColumnTile, ColumnTiles, NARROW, STEP, SpanLayout, WIDE};
use crate::quant::stretch::{Ahead, Stretch, finish};
use crate::tile::TileWriter;

/// Weights along K in a stretch of rows that do not fit a panel as a whole.
const STRETCH: usize = 512;

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
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows<F: Fill>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let columns = acts.columns().expect("the activations are side by side");
    assert_eq!(columns.layout().map(|layout| layout.span), Some(F::Format::SPAN), "one kind of span");
    SCRATCH.with_borrow_mut(|Scratch { panel, sums }| {
        let panel_sums = columns.n_columns() * ROWS;
        sums.resize(n_rows.div_ceil(ROWS) * panel_sums);
        let stretch = if cols * planes(F::BITS) <= LEN { cols } else { STRETCH };
        for at in (0..cols).step_by(stretch) {
            let end = cols.min(at + stretch);
            let stretch = Stretch::new::<F::Format>(at..end);
            for (p, sums) in sums.chunks_exact_mut(panel_sums).enumerate() {
                let first = p * ROWS;
                let rows = stretch.rows::<F::Format>(w, n_rows, cols, first);
                // SAFETY: this function needs the same instructions.
                unsafe { F::fill(panel, &rows) };
                let mut ahead = Ahead::new(stretch.next::<F::Format>(w, n_rows, cols, first));
                tiles::<F>(panel, columns, &stretch, sums, &mut ahead);
                if end == cols {
                    finish::<ROWS>(sums, first, n_rows, out);
                }
            }
        }
    });
}

/// A panel times all columns.
#[target_feature(enable = "avx2,fma,f16c")]
fn tiles<F: Fill>(
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
#[target_feature(enable = "avx2,fma,f16c")]
fn one<F: Fill, const C: usize>(
    panel: &Panel,
    tile: &ColumnTile<'_>,
    stretch: &Stretch<ROWS>,
    sums: &mut [f32],
) {
    let span = F::Format::SPAN;
    let span_dwords = SpanLayout { span }.dwords() * C;
    let dwords = &tile.dwords[stretch.first_span * span_dwords..][..stretch.n_spans * span_dwords];
    let sums: &mut [[[f32; LANES]; 2]; C] =
        sums[tile.first * ROWS..][..C * ROWS].as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0[..1]
            .first_mut()
            .expect("a tile of sums");
    if stretch.first_span == 0 {
        *sums = [[[0.0; LANES]; 2]; C];
    }
    match (span, F::Format::GROUP, F::BITS, F::Format::MINS) {
        (32, 32, 4, false) => spans_of_32::<C, 4, false>(panel, dwords, F::OFFSET, sums),
        (32, 32, 5, false) => spans_of_32::<C, 5, false>(panel, dwords, F::OFFSET, sums),
        (32, 32, 8, false) => spans_of_32::<C, 8, false>(panel, dwords, F::OFFSET, sums),
        (32, 32, 4, true) => spans_of_32::<C, 4, true>(panel, dwords, F::OFFSET, sums),
        (32, 32, 5, true) => spans_of_32::<C, 5, true>(panel, dwords, F::OFFSET, sums),
        (256, 16, 4, false) => spans_of_256::<C, 16, 4, false>(panel, dwords, sums),
        (256, 16, 4, true) => spans_of_256::<C, 16, 4, true>(panel, dwords, sums),
        (256, 16, 6, false) => spans_of_256::<C, 16, 6, false>(panel, dwords, sums),
        (256, 16, 7, false) => spans_of_256::<C, 16, 7, false>(panel, dwords, sums),
        (256, 32, 4, true) => spans_of_256::<C, 32, 4, true>(panel, dwords, sums),
        (256, 32, 5, true) => spans_of_256::<C, 32, 5, true>(panel, dwords, sums),
        (256, 32, 7, false) => spans_of_256::<C, 32, 7, false>(panel, dwords, sums),
        (256, 32, 8, false) => spans_of_256::<C, 32, 8, false>(panel, dwords, sums),
        _ => unreachable!("{} has no panel", F::Format::TYPE),
    }
}

/// Steps of which the sums of pairs fit i16, of a plane of codes of so many bits: see the head of this file.
const fn run(bits: u32) -> usize {
    match bits {
        4 | 8 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}

/// The sums of pairs over some steps: `steps` of weights and, from `first` on, of activations.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs_of_run<const C: usize>(
    steps: &[[[[u8; STEP]; LANES]; 2]],
    span: &[u32],
    first: usize,
) -> [[__m256i; 2]; C] {
    let mut pairs = [[_mm256_setzero_si256(); 2]; C];
    for (step, w) in steps.iter().enumerate() {
        let w = [quads(&w[0]), quads(&w[1])];
        for c in 0..C {
            let x = broadcast(span, (first + step) * C + c);
            if step == 0 {
                pairs[c] = [_mm256_maddubs_epi16(w[0], x), _mm256_maddubs_epi16(w[1], x)];
            } else {
                pairs[c] = [add_products(pairs[c][0], w[0], x), add_products(pairs[c][1], w[1], x)];
            }
        }
    }
    pairs
}

/// Adds the products of spans of 32 weights without integer scales to `sums`, span by span. `dwords` holds whole spans.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "avx2,fma,f16c")]
fn spans_of_32<const C: usize, const BITS: u32, const MINS: bool>(
    panel: &Panel,
    dwords: &[u32],
    offset: u8,
    sums: &mut [[[f32; LANES]; 2]; C],
) {
    const LAYOUT: SpanLayout = SpanLayout { span: 32 };
    const STEPS: usize = 32 / STEP;
    // A correction is −128 times the sum of the activations.
    let shift = _mm_cvtsi32_si128(7 - offset.checked_ilog2().unwrap_or(0).cast_signed());
    let all_steps = panel.codes.chunks_exact(planes(BITS) * STEPS);
    let spans = dwords.chunks_exact(LAYOUT.dwords() * C).zip(all_steps);
    for (((span, steps), d), d_min) in spans.zip(&panel.d).zip(&panel.d_min) {
        let mut dots = [[_mm256_setzero_si256(); 2]; C];
        for (n, steps) in steps.chunks_exact(run(BITS)).enumerate() {
            let pairs = pairs_of_run::<C>(steps, span, n * run(BITS) % STEPS);
            let is_high = BITS == 8 && n == 1;
            let factor = _mm256_set1_epi16(if is_high { 16 } else { 1 });
            for c in 0..C {
                if n == 0 && !MINS {
                    let correction = broadcast(span, LAYOUT.corrections() * C + c);
                    dots[c] = [_mm256_sra_epi32(correction, shift); 2];
                }
                for half in 0..2 {
                    let dot = _mm256_madd_epi16(pairs[c][half], factor);
                    dots[c][half] = _mm256_add_epi32(dots[c][half], dot);
                }
            }
        }
        let d = [floats(&d[0]), floats(&d[1])];
        let d_min = [floats(&d_min[0]), floats(&d_min[1])];
        for c in 0..C {
            let da = _mm256_castsi256_ps(broadcast(span, LAYOUT.scale() * C + c));
            for half in 0..2 {
                let scale = _mm256_mul_ps(d[half], da);
                let mut sum = floats(&sums[c][half]);
                sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[c][half]), sum);
                if MINS {
                    // The conversion is exact: at most 32 · 127 · 128.
                    let of_acts = _mm256_cvtepi32_ps(broadcast(span, LAYOUT.corrections() * C + c));
                    let of_acts = _mm256_mul_ps(of_acts, _mm256_set1_ps(-1.0 / 128.0));
                    sum = _mm256_fnmadd_ps(_mm256_mul_ps(d_min[half], da), of_acts, sum);
                }
                store(&mut sums[c][half], sum);
            }
        }
    }
}

/// Adds the products of spans of 256 weights to `sums`, span by span; `G` weights share an integer scale. `dwords` holds
/// whole spans.
///
/// With the offset a sum is at most 256 · 32 · 255 · 127 (IQ4_XS) in magnitude on the way, and half of it is taken off.
#[inline(never)] // One copy per kind of format, not one per format.
#[target_feature(enable = "avx2,fma,f16c")]
fn spans_of_256<const C: usize, const G: usize, const BITS: u32, const MINS: bool>(
    panel: &Panel,
    dwords: &[u32],
    sums: &mut [[[f32; LANES]; 2]; C],
) {
    const LAYOUT: SpanLayout = SpanLayout { span: 256 };
    let steps_of_group = G / STEP;
    let run = run(BITS).min(steps_of_group);
    for (s, span) in dwords.chunks_exact(LAYOUT.dwords() * C).enumerate() {
        let mut total = [[_mm256_setzero_si256(); 2]; C];
        for g in 0..256 / G {
            let group = s * 256 / G + g;
            let scales = &panel.scales[group];
            let scales = [words(&scales[0]), words(&scales[1])];
            let n_steps = planes(BITS) * steps_of_group;
            let steps = &panel.codes[group * n_steps..][..n_steps];
            for (n, steps) in steps.chunks_exact(run).enumerate() {
                let pairs = pairs_of_run::<C>(steps, span, g * steps_of_group + n * run % steps_of_group);
                let is_high = BITS == 8 && n == 1;
                for half in 0..2 {
                    let scale = if is_high { _mm256_slli_epi16::<4>(scales[half]) } else { scales[half] };
                    for c in 0..C {
                        let dot = _mm256_madd_epi16(pairs[c][half], scale);
                        total[c][half] = _mm256_add_epi32(total[c][half], dot);
                    }
                }
            }
        }
        let mut mins = [[_mm256_setzero_si256(); 2]; C];
        let (pairs_at, n_pairs) = if G == 16 { (LAYOUT.pairs_of_16(), 8) } else { (LAYOUT.pairs_of_32(), 4) };
        for (pair, min) in panel.mins[s * n_pairs..][..n_pairs].iter().enumerate() {
            let min = [words(&min[0]), words(&min[1])];
            for c in 0..C {
                let sums = broadcast(span, (pairs_at + pair) * C + c);
                for half in 0..2 {
                    let product = _mm256_madd_epi16(min[half], sums);
                    mins[c][half] = _mm256_add_epi32(mins[c][half], product);
                }
            }
        }
        let d = [floats(&panel.d[s][0]), floats(&panel.d[s][1])];
        let d_min = [floats(&panel.d_min[s][0]), floats(&panel.d_min[s][1])];
        for c in 0..C {
            let da = _mm256_castsi256_ps(broadcast(span, LAYOUT.scale() * C + c));
            for half in 0..2 {
                let scale = _mm256_mul_ps(d[half], da);
                let mut sum = floats(&sums[c][half]);
                if MINS {
                    let min_scale = _mm256_mul_ps(d_min[half], da);
                    sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(total[c][half]), sum);
                    sum = _mm256_fnmadd_ps(min_scale, _mm256_cvtepi32_ps(mins[c][half]), sum);
                } else {
                    let total = _mm256_add_epi32(total[c][half], mins[c][half]);
                    sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(total), sum);
                }
                store(&mut sums[c][half], sum);
            }
        }
    }
}

/// `sums` and the sums of pairs of products of unsigned and signed bytes. Written out, because the compiler would add the
/// products of several steps first and run out of registers.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(mut sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: AVX2 on registers alone, which the function enables.
    unsafe {
        asm!(
            "vpmaddubsw {t}, {w}, {x}",
            "vpaddw {sums}, {sums}, {t}",
            t = out(ymm_reg) _,
            w = in(ymm_reg) w,
            x = in(ymm_reg) x,
            sums = inout(ymm_reg) sums,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// One dword in each lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(dwords: &[u32], at: usize) -> __m256i {
    debug_assert!(at < dwords.len());
    // SAFETY: every caller reads inside the span that `SpanLayout` describes, which `dwords` is a whole one of.
    _mm256_set1_epi32(unsafe { *dwords.get_unchecked(at) }.cast_signed())
}
