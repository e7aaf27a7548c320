//! Sixteen weight rows over a stretch of K, unpacked to what `sdot` reads.
//!
//! Lanes are weight rows, so a panel is the transpose of what lies in the file. Blocks are unpacked by the portable
//! definition of their format.

use crate::columns::STEP;
use veritas_quant::unpack::{Format, GROUP, Unpacked};

/// Weight rows of a vector.
pub(super) const LANES: usize = 4;
/// Vectors of weight rows in a panel: each four activations serve as many products of a column.
pub(super) const VECTORS: usize = 4;
/// Weight rows of a panel.
pub(super) const ROWS: usize = VECTORS * LANES;
/// Most weights along K in a panel: 16 rows of them are 16 KB, half of a small first-level cache.
pub(super) const LEN: usize = 1024;

/// Unpacked weights: [`ROWS`] rows × up to [`LEN`] weights.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Per step of four weights: a dword per row.
    pub(super) quants: [[[[i8; STEP]; LANES]; VECTORS]; LEN / STEP],
    /// Per group of weights that share an integer scale: the scale of each row.
    pub(super) scales: [[[i32; LANES]; VECTORS]; LEN / GROUP],
    /// Per such group: the minimum of each row.
    pub(super) mins: [[[i32; LANES]; VECTORS]; LEN / GROUP],
    /// Per span: the factor of each row.
    pub(super) d: [[[f32; LANES]; VECTORS]; LEN / 32],
    /// Per span: the factor of each row's minimums.
    pub(super) d_min: [[[f32; LANES]; VECTORS]; LEN / 32],
}

impl Panel {
    /// A panel of zeros.
    pub(super) fn zeroed() -> Box<Self> {
        // SAFETY: every field is an array of numbers, for which all-zero bytes are a value.
        unsafe { Box::<Self>::new_zeroed().assume_init() }
    }

    /// Unpacks whole blocks of 16 rows, as many of each, at most [`LEN`] weights.
    #[inline(always)]
    pub(super) fn fill<F: Format>(&mut self, rows: &[&[u8]; ROWS]) {
        const { assert!(F::LEN == F::SPAN) };
        let mut weights = Unpacked::default();
        let groups = F::LEN / F::GROUP;
        for (r, row) in rows.iter().enumerate() {
            let (vector, lane) = (r / LANES, r % LANES);
            for (b, block) in row.chunks_exact(F::BYTES).enumerate() {
                F::unpack(block, &mut weights);
                let steps = &mut self.quants[b * F::LEN / STEP..][..F::LEN / STEP];
                for (step, quants) in steps.iter_mut().zip(weights.quants.as_chunks().0) {
                    step[vector][lane] = *quants;
                }
                for g in 0..groups {
                    let of_group = g * F::GROUP / GROUP;
                    if F::SCALED {
                        self.scales[b * groups + g][vector][lane] = i32::from(weights.scales[of_group]);
                    }
                    if F::MINS {
                        self.mins[b * groups + g][vector][lane] = i32::from(weights.mins[of_group]);
                    }
                }
                self.d[b][vector][lane] = weights.d[0];
                if F::MINS {
                    self.d_min[b][vector][lane] = weights.d_min;
                }
            }
        }
    }
}
