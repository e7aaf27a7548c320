//! Writing to disjoint parts of one output from several threads.

use std::marker::PhantomData;

/// A writer of one tile of a product's output: all activation rows × one range of weight rows.
///
/// The output is `[activation rows, weight rows]`, row-major, so that a tile is a strip of columns. Writers of
/// disjoint ranges may be used by different threads at once; every write is checked against the tile.
pub(crate) struct TileWriter<'a> {
    /// The output's element `[0, first weight row of the tile]`.
    start: *mut f32,
    n_act_rows: usize,
    n_rows: usize,
    stride: usize,
    output: PhantomData<&'a mut [f32]>,
}

impl TileWriter<'_> {
    /// Weight rows of the tile.
    #[inline(always)]
    #[allow(dead_code)] // Kernels know it from their own arguments; their tests ask.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Activation rows of the output.
    #[inline(always)]
    pub(crate) fn n_act_rows(&self) -> usize {
        self.n_act_rows
    }

    /// Writes the element of activation row `act_row` and weight row `row`, counted from the tile's first.
    ///
    /// # Panics
    /// If either is outside the tile.
    #[inline(always)]
    pub(crate) fn set(&mut self, act_row: usize, row: usize, value: f32) {
        self.row_mut(act_row)[row] = value;
    }

    /// The tile's part of the output of one activation row: `n_rows` elements.
    ///
    /// # Panics
    /// If `act_row` is outside the output.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, act_row: usize) -> &mut [f32] {
        assert!(act_row < self.n_act_rows, "activation row {act_row} of {}", self.n_act_rows);
        // SAFETY: `TileOutput::writer` made sure that act_row * stride + n_rows, counted from start, is inside the
        // output for every act_row < n_act_rows, and its caller that no other writer covers these columns. The
        // slice borrows self exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(act_row * self.stride), self.n_rows) }
    }
}

/// An output `[n_act_rows, n_rows]` that is about to be written by tiles.
pub(crate) struct TileOutput<'a> {
    start: *mut f32,
    n_act_rows: usize,
    n_rows: usize,
    output: PhantomData<&'a mut [f32]>,
}

// SAFETY: a TileOutput only hands out writers through the unsafe method below, whose contract is that the ranges of
// simultaneous writers are disjoint; f32 has no thread affinity.
unsafe impl Sync for TileOutput<'_> {}

impl<'a> TileOutput<'a> {
    /// Takes the output.
    ///
    /// # Panics
    /// If `out` has not `n_act_rows * n_rows` elements.
    pub(crate) fn new(out: &'a mut [f32], n_act_rows: usize, n_rows: usize) -> Self {
        assert_eq!(Some(out.len()), n_act_rows.checked_mul(n_rows), "the output's length");
        Self { start: out.as_mut_ptr(), n_act_rows, n_rows, output: PhantomData }
    }

    /// The writer of the columns `first_row..first_row + n_rows`.
    ///
    /// # Safety
    /// No other writer that is alive at the same time covers any of these columns.
    ///
    /// # Panics
    /// If the range is not inside the output.
    pub(crate) unsafe fn writer(&self, first_row: usize, n_rows: usize) -> TileWriter<'_> {
        assert!(first_row <= self.n_rows && n_rows <= self.n_rows - first_row, "a tile inside the output");
        TileWriter {
            // In bounds: first_row <= n_rows, the length of the output's first row (or of an empty output).
            start: self.start.wrapping_add(first_row),
            n_act_rows: self.n_act_rows,
            n_rows,
            stride: self.n_rows,
            output: PhantomData,
        }
    }
}

/// A slice cut into chunks of equal length (the last may be shorter) that several threads take by number.
pub(crate) struct DisjointChunks<'a, T> {
    start: *mut T,
    len: usize,
    chunk_len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: chunks are handed out through the unsafe method below alone, each to one holder at a time; T is Send.
unsafe impl<T: Send> Sync for DisjointChunks<'_, T> {}

impl<'a, T> DisjointChunks<'a, T> {
    /// Cuts the slice.
    ///
    /// # Panics
    /// If `chunk_len` is 0.
    pub(crate) fn new(slice: &'a mut [T], chunk_len: usize) -> Self {
        assert!(chunk_len > 0, "a chunk has at least one element");
        Self { start: slice.as_mut_ptr(), len: slice.len(), chunk_len, slice: PhantomData }
    }

    /// How many chunks there are.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.chunk_len)
    }

    /// The chunk with this number.
    ///
    /// # Safety
    /// No other borrow of the same chunk is alive.
    ///
    /// # Panics
    /// If there is no such chunk.
    #[allow(clippy::mut_from_ref)] // The exclusive access is what the contract grants.
    pub(crate) unsafe fn chunk(&self, index: usize) -> &mut [T] {
        assert!(index < self.count(), "chunk {index} of {}", self.count());
        let first = index * self.chunk_len;
        let len = self.chunk_len.min(self.len - first);
        // SAFETY: first + len <= self.len, the slice is borrowed exclusively for 'a by self, and the caller holds no
        // other borrow of this chunk; different chunks do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_write_their_own_columns_and_nothing_else() {
        let mut out = vec![0.0; 3 * 5];
        let output = TileOutput::new(&mut out, 3, 5);
        // SAFETY: the ranges 0..2 and 2..5 are disjoint.
        let (mut left, mut right) = unsafe { (output.writer(0, 2), output.writer(2, 3)) };
        for row in 0..left.n_act_rows() {
            left.set(row, 1, 1.0);
            right.row_mut(row).fill(2.0);
        }
        assert_eq!(out, [0.0, 1.0, 2.0, 2.0, 2.0].repeat(3));
    }

    #[test]
    #[should_panic(expected = "activation row 3 of 3")]
    fn a_write_outside_the_tile_panics() {
        let mut out = vec![0.0; 3 * 5];
        let output = TileOutput::new(&mut out, 3, 5);
        // SAFETY: it is the only writer.
        unsafe { output.writer(4, 1) }.set(3, 0, 1.0);
    }
}
