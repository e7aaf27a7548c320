//! A panel: some weight rows over a stretch of K, unpacked to integers in the order in which a register tile reads
//! them.
//!
//! The lanes of a vector are weight rows. A step of four weights along K is one dword per row, so that the integer dot
//! instructions, which add four neighbouring bytes, leave each row's sum in its own lane: no sum across lanes is ever
//! needed. A panel is unpacked once and multiplied with all activation rows.

use veritas_quant::unpack::{Format, GROUP, Unpacked};

/// Weights along K in a panel. A multiple of every block, and small enough that the panel (26 KB at sixteen rows) stays
/// in the first-level cache while all activation rows pass by.
pub(super) const PANEL_LEN: usize = 1024;

/// Weights along K that a dword holds.
pub(super) const STEP: usize = 4;

/// Steps in a group of weights.
pub(super) const STEPS: usize = GROUP / STEP;

/// `R` weight rows over up to [`PANEL_LEN`] weights.
#[repr(C, align(64))]
pub(super) struct Panel<const R: usize> {
    /// Per 16 weights, step and row: four quants, each `XOR`ed as [`Panel::fill`] was told.
    pub(super) quants: [[[[u8; STEP]; R]; STEPS]; PANEL_LEN / GROUP],
    /// Per 16 weights and row: the scale, as an i32 or as a pair of equal i16.
    pub(super) scales: [[i32; R]; PANEL_LEN / GROUP],
    /// Per 32 weights and row: the minimums of the two groups of 16.
    pub(super) mins: [[[i16; 2]; R]; PANEL_LEN / (2 * GROUP)],
    /// Per span and row: the factor.
    pub(super) d: [[f32; R]; PANEL_LEN / 32],
    /// Per span and row: the factor of the minimums.
    pub(super) d_min: [[f32; R]; PANEL_LEN / 32],
}

impl<const R: usize> Panel<R> {
    /// A panel of zeros.
    pub(super) fn new() -> Self {
        Self {
            quants: [[[[0; STEP]; R]; STEPS]; PANEL_LEN / GROUP],
            scales: [[0; R]; PANEL_LEN / GROUP],
            mins: [[[0; 2]; R]; PANEL_LEN / (2 * GROUP)],
            d: [[0.0; R]; PANEL_LEN / 32],
            d_min: [[0.0; R]; PANEL_LEN / 32],
        }
    }

    /// Unpacks the blocks of `rows`, each as long: at most [`PANEL_LEN`] weights.
    ///
    /// `XOR` is applied to the bytes of the quants: 0x80 turns signed ones into unsigned ones greater by 128. With
    /// `PAIRS` a scale is stored as a pair of i16.
    #[inline(always)]
    pub(super) fn fill<F: Format, const XOR: u8, const PAIRS: bool>(&mut self, rows: &[&[u8]; R]) {
        const { assert!(F::SPAN >= 32 && PANEL_LEN.is_multiple_of(F::LEN)) };
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
                if F::SCALED {
                    let groups = &mut self.scales[first / GROUP..][..F::LEN / GROUP];
                    for (group, &scale) in groups.iter_mut().zip(&weights.scales) {
                        let scale = i32::from(scale);
                        group[r] = if PAIRS { (scale & 0xFFFF) | (scale << 16) } else { scale };
                    }
                }
                for span in 0..F::LEN / F::SPAN {
                    self.d[first / F::SPAN + span][r] = weights.d[span];
                }
                if F::MINS {
                    let groups = &mut self.mins[first / (2 * GROUP)..][..F::LEN / (2 * GROUP)];
                    for (group, mins) in groups.iter_mut().zip(weights.mins.as_chunks::<2>().0) {
                        group[r] = *mins;
                    }
                    self.d_min[first / F::SPAN][r] = weights.d_min;
                }
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
    pub(super) fn new(
        acts: &'a crate::Activations,
        first: usize,
        at: usize,
        len: usize,
        span: usize,
    ) -> Self {
        let each = |i: usize| first + i;
        Self {
            q: std::array::from_fn(|i| acts.q_row(each(i))[at..][..len].as_chunks().0.as_chunks().0),
            scales: std::array::from_fn(|i| &acts.scale_row(each(i))[at / span..][..len / span]),
            sums: std::array::from_fn(|i| &acts.sum_row(each(i))[at / GROUP..][..len / GROUP]),
        }
    }
}

/// The weight rows `first..first + R` over the blocks `block..block + n_blocks`; beyond the last row it is repeated.
pub(super) fn row_slices<F: Format, const R: usize>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    first: usize,
    block: usize,
    n_blocks: usize,
) -> [&[u8]; R] {
    let row_bytes = cols / F::LEN * F::BYTES;
    std::array::from_fn(|i| {
        let row = &w[(first + i).min(n_rows - 1) * row_bytes..][..row_bytes];
        &row[block * F::BYTES..][..n_blocks * F::BYTES]
    })
}

/// Four activations as a dword.
#[inline(always)]
pub(super) fn quad(q: [i8; STEP]) -> i32 {
    i32::from_le_bytes(q.map(|q| q as u8))
}

/// Two sums as a dword.
#[inline(always)]
pub(super) fn sum_pair(sums: &[i16], at: usize) -> i32 {
    i32::from(sums[at]) & 0xFFFF | i32::from(sums[at + 1]) << 16
}
