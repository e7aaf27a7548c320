//! Prefetching in a walk that computes, too.

use super::panel::{PanelRows, ROWS};
use crate::quant::stretch::prefetch;

const LINE: usize = 64;

/// Brings the rows that are unpacked next into the second-level cache, a few lines at a time: as many requests at once as
/// a panel has lines would fill the queue of misses, and the loads beside them would wait.
pub(super) struct Ahead<'w> {
    rows: PanelRows<'w>,
    /// Lines of a row: one more than its length, because it need not begin on one.
    n_row_lines: usize,
    row: usize,
    line: usize,
    /// Lines of one [`Ahead::fetch`].
    n_at_once: usize,
}

impl<'w> Ahead<'w> {
    /// All lines of `rows`, spread over `n_calls` calls of [`Ahead::fetch`].
    pub(super) fn new(rows: PanelRows<'w>, n_calls: usize) -> Self {
        let n_row_lines = rows.len().div_ceil(LINE) + 1;
        let n_at_once = (ROWS * n_row_lines).div_ceil(n_calls.max(1));
        Self { rows, n_row_lines, row: 0, line: 0, n_at_once }
    }

    /// Asks for the next lines.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        for _ in 0..self.n_at_once {
            if self.row == ROWS {
                return;
            }
            let start = self.rows.row(self.row).as_ptr();
            prefetch(start.wrapping_add(self.line * LINE));
            self.line += 1;
            if self.line == self.n_row_lines {
                (self.row, self.line) = (self.row + 1, 0);
            }
        }
    }
}
