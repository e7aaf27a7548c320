//! Quantised activations side by side: the columns of a prompt as the register tiles of a matrix kernel read them.
//!
//! A tile is a few neighbouring activation rows. Per span of K it holds, one dword after the other: for each step of
//! four activations along K one dword per column, then a scale per column, then the sums that the products need. A
//! kernel walks it once, from the front to the back, and broadcasts each dword.

use veritas_mem::AlignedBuf;
use veritas_quant::activation::ActivationFormat;

use crate::tile::DisjointChunks;

/// Columns of a wide tile: with two vectors of weight rows, as many accumulators as 32 registers leave room for.
pub(crate) const WIDE: usize = 6;
/// Columns of a narrow tile: two of them stand for a rest that would waste most of a wide one.
pub(crate) const NARROW: usize = 4;

/// Activations in a step: a dword.
pub(crate) const STEP: usize = 4;

/// Where the dwords of one column stand in a span, in units of the tile's columns. The dword `i` of the column `c` is
/// at `i · columns + c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanLayout {
    /// Activations in a span: 32 or 256.
    pub(crate) span: usize,
}

impl SpanLayout {
    /// The scale, an f32.
    pub(crate) const fn scale(self) -> usize {
        self.span / STEP
    }

    /// −128 times the sum of each group: of 32 activations in a span of 32, of 16 in a span of 256. An i32.
    pub(crate) const fn corrections(self) -> usize {
        self.scale() + 1
    }

    /// For spans of 256: the sums of 16 activations, as pairs of i16.
    pub(crate) const fn pairs_of_16(self) -> usize {
        self.corrections() + if self.span == 32 { 1 } else { self.span / 16 }
    }

    /// For spans of 256: the sums of 32 activations, as pairs of i16.
    pub(crate) const fn pairs_of_32(self) -> usize {
        self.pairs_of_16() + if self.span == 32 { 0 } else { self.span / 32 }
    }

    /// Dwords of one column in a span.
    pub(crate) const fn dwords(self) -> usize {
        self.pairs_of_32() + if self.span == 32 { 0 } else { self.span / 64 }
    }
}

/// A batch of activation rows in tiles of [`WIDE`] columns and, at the end, up to two of [`NARROW`] ones; the last may
/// be filled up with columns of zeros.
#[derive(Debug, Default)]
pub(crate) struct ColumnTiles {
    dwords: AlignedBuf<u32>,
    layout: Option<SpanLayout>,
    n_spans: usize,
    n_wide: usize,
    n_narrow: usize,
}

/// One tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnTile<'a> {
    /// The first activation row.
    pub(crate) first: usize,
    /// [`WIDE`] or [`NARROW`].
    pub(crate) columns: usize,
    /// All spans, one after the other.
    pub(crate) dwords: &'a [u32],
}

/// One quantised activation row.
pub(crate) struct Row<'a> {
    pub(crate) q: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i16],
}

impl ColumnTiles {
    /// Forgets what was packed.
    pub(crate) fn clear(&mut self) {
        self.layout = None;
    }

    /// Whether rows are packed in spans of this format.
    pub(crate) fn layout(&self) -> Option<SpanLayout> {
        self.layout
    }

    /// Makes room for `n_rows` rows of `cols` activations, and gives what packs them.
    pub(crate) fn begin(&mut self, format: ActivationFormat, n_rows: usize, cols: usize) -> ColumnWriter<'_> {
        let layout = SpanLayout { span: format.block_len() };
        (self.n_wide, self.n_narrow) = cut(n_rows);
        self.n_spans = cols / layout.span;
        self.layout = Some(layout);
        let column_dwords = self.n_spans * layout.dwords();
        self.dwords.resize(self.n_columns() * column_dwords);
        let n_wide = self.n_wide;
        let (wide, narrow) = self.dwords.split_at_mut(n_wide * WIDE * column_dwords);
        ColumnWriter {
            layout,
            n_rows,
            n_wide,
            wide: DisjointChunks::new(wide, (WIDE * column_dwords).max(1)),
            narrow: DisjointChunks::new(narrow, (NARROW * column_dwords).max(1)),
        }
    }

    /// Columns, those that fill up the last tile included.
    pub(crate) fn n_columns(&self) -> usize {
        self.n_wide * WIDE + self.n_narrow * NARROW
    }

    /// Bytes of all tiles.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.dwords[..])
    }

    /// The tiles, in order.
    pub(crate) fn tiles(&self) -> impl ExactSizeIterator<Item = ColumnTile<'_>> {
        let column_dwords = self.layout.map_or(0, |layout| self.n_spans * layout.dwords());
        (0..self.n_wide + self.n_narrow).map(move |tile| {
            let (first, columns) = place(tile, self.n_wide);
            let dwords = &self.dwords[first * column_dwords..][..columns * column_dwords];
            ColumnTile { first, columns, dwords }
        })
    }
}

/// Packs tiles, from several threads.
pub(crate) struct ColumnWriter<'a> {
    layout: SpanLayout,
    n_rows: usize,
    n_wide: usize,
    wide: DisjointChunks<'a, u32>,
    narrow: DisjointChunks<'a, u32>,
}

impl ColumnWriter<'_> {
    /// Packs one tile; `row` gives its rows.
    ///
    /// # Safety
    /// Nobody else touches the tile meanwhile.
    pub(crate) unsafe fn pack<'r>(&self, tile: usize, row: impl Fn(usize) -> Row<'r>) {
        let (first, n) = place(tile, self.n_wide);
        // SAFETY: the caller's promise.
        let dwords = unsafe {
            if tile < self.n_wide { self.wide.chunk(tile) } else { self.narrow.chunk(tile - self.n_wide) }
        };
        pack_tile(self.layout, dwords, n, |c| (first + c < self.n_rows).then(|| row(first + c)));
    }
}

/// Tiles that hold `n_rows` columns.
pub(crate) fn n_tiles(n_rows: usize) -> usize {
    let (n_wide, n_narrow) = cut(n_rows);
    n_wide + n_narrow
}

/// The first row of a tile, and how many it has at most.
pub(crate) fn tile_rows(tile: usize, n_rows: usize) -> (usize, usize) {
    place(tile, cut(n_rows).0)
}

/// How many wide and how many narrow tiles hold `n_rows` columns with the least padding.
fn cut(n_rows: usize) -> (usize, usize) {
    let even = n_rows.next_multiple_of(2).max(NARROW);
    match even % WIDE {
        0 => (even / WIDE, 0),
        NARROW => (even / WIDE, 1),
        // A rest of two: eight columns in two narrow tiles.
        _ => ((even - 2 * NARROW) / WIDE, 2),
    }
}

/// The first column of a tile, and its columns.
fn place(tile: usize, n_wide: usize) -> (usize, usize) {
    if tile < n_wide { (tile * WIDE, WIDE) } else { (n_wide * WIDE + (tile - n_wide) * NARROW, NARROW) }
}

fn pack_tile<'r>(layout: SpanLayout, dwords: &mut [u32], n: usize, row: impl Fn(usize) -> Option<Row<'r>>) {
    for c in 0..n {
        let Some(row) = row(c) else {
            dwords[c..].iter_mut().step_by(n).for_each(|dword| *dword = 0);
            continue;
        };
        for (span, dwords) in dwords.chunks_exact_mut(layout.dwords() * n).enumerate() {
            let quants = row.q[span * layout.span..][..layout.span].as_chunks::<STEP>().0;
            for (quad, dword) in quants.iter().zip(dwords[c..].iter_mut().step_by(n)) {
                *dword = u32::from_le_bytes(quad.map(|q| q as u8));
            }
            let mut set = |at: usize, dword: u32| dwords[at * n + c] = dword;
            set(layout.scale(), row.scales[span].to_bits());
            let sums = &row.sums[span * layout.span / 16..][..layout.span / 16];
            let pairs = sums.as_chunks::<2>().0;
            let sum_32 = |pair: &[i16; 2]| pair[0] + pair[1];
            if layout.span == 32 {
                set(layout.corrections(), (-128 * i32::from(sum_32(&pairs[0]))) as u32);
                continue;
            }
            for (i, &sum) in sums.iter().enumerate() {
                set(layout.corrections() + i, (-128 * i32::from(sum)) as u32);
            }
            for (i, pair) in pairs.iter().enumerate() {
                set(layout.pairs_of_16() + i, dword_of(*pair));
            }
            for (i, pairs) in pairs.as_chunks::<2>().0.iter().enumerate() {
                set(layout.pairs_of_32() + i, dword_of(pairs.each_ref().map(sum_32)));
            }
        }
    }
}

/// Two i16 as a dword, the first in the low half.
fn dword_of(pair: [i16; 2]) -> u32 {
    u32::from(pair[0] as u16) | u32::from(pair[1] as u16) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_fits_with_little_padding() {
        for n in 1..600 {
            let (wide, narrow) = cut(n);
            let columns = wide * WIDE + narrow * NARROW;
            assert!(columns >= n && (n < NARROW - 1 || columns <= n.next_multiple_of(2).max(NARROW)), "{n}");
            let (first, last) = place(wide + narrow - 1, wide);
            assert_eq!(first + last, columns);
        }
    }
}
