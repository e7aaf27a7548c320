//! What the products with many activation rows have in common on every level: the stretches of K, the weights that are
//! fetched ahead of their turn, and the way of the sums to the outputs.

use std::ops::Range;

use veritas_quant::unpack::Format;

use crate::tile::TileWriter;

/// A part of K, for panels of `ROWS` weight rows.
pub(super) struct Stretch<const ROWS: usize> {
    pub(super) first_span: usize,
    pub(super) n_spans: usize,
    pub(super) at: usize,
    pub(super) len: usize,
}

impl<const ROWS: usize> Stretch<ROWS> {
    /// The weights `range` of each row.
    pub(super) fn new<F: Format>(range: Range<usize>) -> Self {
        let (at, len) = (range.start, range.len());
        Self { first_span: at / F::SPAN, n_spans: len / F::SPAN, at, len }
    }

    /// This stretch of the panel's rows.
    pub(super) fn rows<'w, F: Format>(
        &self,
        w: &'w [u8],
        n_rows: usize,
        cols: usize,
        first: usize,
    ) -> [&'w [u8]; ROWS] {
        row_slices::<F, ROWS>(w, n_rows, cols, first, self.at / F::LEN, self.len / F::LEN)
    }

    /// What is unpacked after the panel at `first`: the next panel, or the next stretch of the first one.
    pub(super) fn next<'w, F: Format>(
        &self,
        w: &'w [u8],
        n_rows: usize,
        cols: usize,
        first: usize,
    ) -> [&'w [u8]; ROWS] {
        if first + ROWS < n_rows {
            return self.rows::<F>(w, n_rows, cols, first + ROWS);
        }
        let at = self.at + self.len;
        let len = self.len.min(cols - at);
        row_slices::<F, ROWS>(w, n_rows, cols, 0, at / F::LEN, len / F::LEN)
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

/// Brings what is unpacked next into the second-level cache, a few lines at a time.
pub(super) struct Ahead<'w, const ROWS: usize> {
    rows: [&'w [u8]; ROWS],
    row: usize,
    byte: usize,
    lines: usize,
}

impl<'w, const ROWS: usize> Ahead<'w, ROWS> {
    const LINE: usize = 64;

    pub(super) fn new(rows: [&'w [u8]; ROWS]) -> Self {
        let lines = ROWS * (rows[0].len().div_ceil(Self::LINE) + 1);
        Self { rows, row: 0, byte: 0, lines }
    }

    /// All lines.
    pub(super) fn n_lines(&self) -> usize {
        self.lines
    }

    #[inline(always)]
    pub(super) fn fetch(&mut self, n: usize) {
        for _ in 0..n {
            let Some(row) = self.rows.get(self.row) else { return };
            prefetch(row.as_ptr().wrapping_add(self.byte));
            self.byte += Self::LINE;
            // One line more than the row's length: it need not begin on one.
            if self.byte >= row.len() + Self::LINE {
                self.byte = 0;
                self.row += 1;
            }
        }
    }
}

/// Asks for a line. It is a hint: it reads nothing and never faults, whatever the address.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: SSE is part of the baseline.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
}

/// Asks for a line. It is a hint: it reads nothing and never faults, whatever the address.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(super) fn prefetch(line: *const u8) {
    // SAFETY: the instruction is part of the baseline, reads nothing and changes no register.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{line}]", line = in(reg) line,
            options(nostack, preserves_flags, readonly));
    }
}

/// The sums of a panel that begins with the weight row `first` become outputs. `sums` is `[columns, ROWS]`, row-major.
pub(super) fn finish<const ROWS: usize>(sums: &[f32], first: usize, n_rows: usize, out: &mut TileWriter<'_>) {
    let n = ROWS.min(n_rows - first);
    for (a, sums) in sums.chunks_exact(ROWS).take(out.n_act_rows()).enumerate() {
        let out = &mut out.row_mut(a)[first..first + n];
        match <&mut [f32; ROWS]>::try_from(&mut *out) {
            // A length that the compiler knows makes it a few stores.
            Ok(out) => out.copy_from_slice(sums),
            Err(_) => out.copy_from_slice(&sums[..n]),
        }
    }
}
