//! A panel of a format with a grid: some weight rows over a stretch of K, unpacked to integers in the order in which a
//! register tile reads them.
//!
//! The lanes of a vector are weight rows. A step of four weights along K is one dword per row, so that the integer dot
//! instructions, which add four neighbouring bytes, leave each row's sum in its own lane: no sum across lanes is ever
//! needed. A panel is unpacked once and multiplied with all activation rows.

use veritas_quant::unpack::{Format, GROUP, Unpacked};

pub(super) use super::stretch::row_slices;
pub(super) use crate::columns::STEP;

/// Weights along K in a panel. A multiple of every block, and small enough that the panel (20 KB at sixteen rows) stays
/// in the first-level cache while all activation rows pass by.
pub(super) const PANEL_LEN: usize = 1024;

/// Weights in a span of every format with a grid.
pub(super) const SPAN: usize = 256;

/// Steps in a group of weights.
pub(super) const STEPS: usize = GROUP / STEP;

/// `R` weight rows over up to [`PANEL_LEN`] weights.
#[repr(C, align(64))]
pub(super) struct Panel<const R: usize> {
    /// Per 16 weights, step and row: four quants, each `XOR`ed as [`Panel::fill`] was told.
    pub(super) quants: [[[[u8; STEP]; R]; STEPS]; PANEL_LEN / GROUP],
    /// Per 16 weights and row: the scale, as an i32 or as a pair of equal i16.
    pub(super) scales: [[i32; R]; PANEL_LEN / GROUP],
    /// Per span and row: the factor.
    pub(super) d: [[f32; R]; PANEL_LEN / SPAN],
}

impl<const R: usize> Panel<R> {
    /// A panel of zeros.
    pub(super) fn new() -> Self {
        Self {
            quants: [[[[0; STEP]; R]; STEPS]; PANEL_LEN / GROUP],
            scales: [[0; R]; PANEL_LEN / GROUP],
            d: [[0.0; R]; PANEL_LEN / SPAN],
        }
    }

    /// Unpacks the blocks of `rows`, each as long: at most [`PANEL_LEN`] weights.
    ///
    /// `XOR` is applied to the bytes of the quants: 0x80 turns signed ones into unsigned ones greater by 128. With
    /// `PAIRS` a scale is stored as a pair of i16.
    #[inline(always)]
    pub(super) fn fill<F: Format, const XOR: u8, const PAIRS: bool>(&mut self, rows: &[&[u8]; R]) {
        const { assert!(F::SPAN == SPAN && F::LEN == SPAN && F::SCALED && !F::MINS) };
        let mut weights = Unpacked::default();
        for (r, row) in rows.iter().enumerate() {
            for (block, bytes) in row.chunks_exact(F::BYTES).enumerate() {
                F::unpack(bytes, &mut weights);
                let first = block * F::LEN;
                let quants = weights.quants[..F::LEN].as_chunks::<STEP>().0;
                let steps = self.quants[first / GROUP..][..F::LEN / GROUP].as_flattened_mut();
                for (step, quants) in steps.iter_mut().zip(quants) {
                    step[r] = quants.map(|quant| quant as u8 ^ XOR);
                }
                let groups = &mut self.scales[first / GROUP..][..F::LEN / GROUP];
                for (group, &scale) in groups.iter_mut().zip(&weights.scales) {
                    let scale = i32::from(scale);
                    group[r] = if PAIRS { (scale & 0xFFFF) | (scale << 16) } else { scale };
                }
                self.d[block][r] = weights.d[0];
            }
        }
    }
}

/// The activations of one register tile: `C` rows over the stretch of a panel.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a, const C: usize> {
    /// The quantised activations, by group and step.
    pub(super) q: [&'a [[[i8; STEP]; STEPS]]; C],
    /// One scale per span.
    pub(super) scales: [&'a [f32]; C],
    /// The sums of each 16.
    pub(super) sums: [&'a [i16]; C],
}

impl<'a, const C: usize> Columns<'a, C> {
    /// The rows `first..first + C` over the weights `at..at + len`.
    pub(super) fn new(acts: &'a crate::Activations, first: usize, at: usize, len: usize) -> Self {
        let each = |i: usize| first + i;
        Self {
            q: std::array::from_fn(|i| acts.q_row(each(i))[at..][..len].as_chunks().0.as_chunks().0),
            scales: std::array::from_fn(|i| &acts.scale_row(each(i))[at / SPAN..][..len / SPAN]),
            sums: std::array::from_fn(|i| &acts.sum_row(each(i))[at / GROUP..][..len / GROUP]),
        }
    }
}

/// Four activations as a dword.
#[inline(always)]
pub(super) fn quad(q: [i8; STEP]) -> i32 {
    i32::from_le_bytes(q.map(|q| q as u8))
}
