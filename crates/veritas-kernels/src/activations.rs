//! The right-hand side of a product: activations in the form that the kernels of a weight type read.

use std::cell::RefCell;

use veritas_mem::AlignedBuf;
use veritas_quant::activation::ActivationFormat;

use crate::columns::{self, ColumnTiles, ColumnWriter, Row};
use crate::lanes::LANES;
use crate::table::Kernels;
use crate::team::Team;
use crate::tile::DisjointChunks;

/// Activation rows that one task converts where they are not put side by side.
const ROWS_PER_TASK: usize = 4;

/// Most activation rows of a batch that is read straight against the file's layout of the weights, and is therefore also
/// kept in the order that some kernels for it want. With more, unpacking the weights pays, and the rows are put side by
/// side where the level has a kernel that reads them so. Measured with AVX-512: docs/kernels.md.
pub(crate) const fn few_rows_max(format: ActivationFormat) -> usize {
    match format {
        ActivationFormat::Q8Block256 => 3,
        ActivationFormat::F32 | ActivationFormat::Bf16 | ActivationFormat::Q8Block32 => 4,
    }
}

/// A batch of activation rows, converted once and used by every product of the same format. The buffers are kept from
/// one [`Activations::prepare`] to the next.
///
/// Rows start on cache lines, and what lies between a row's end and the next row's start is zero.
#[derive(Debug, Default)]
pub struct Activations {
    format: Option<ActivationFormat>,
    rows: usize,
    cols: usize,
    /// f32 rows of `f32_stride`: the activations (`F32`), or each 32 of them as 16 odd, then 16 even ones (`Bf16`).
    f32: AlignedBuf<f32>,
    f32_stride: usize,
    /// Rows of BF16 numbers as pairs, the first in the low half, where the level multiplies them so.
    pairs: AlignedBuf<u32>,
    pair_stride: usize,
    q: AlignedBuf<i8>,
    q_stride: usize,
    scales: AlignedBuf<f32>,
    scale_stride: usize,
    sums: AlignedBuf<i16>,
    sum_stride: usize,
    /// The quantised rows once more, side by side, where the level has a kernel that reads them so.
    columns: ColumnTiles,
    /// `q` with the middle two of each four strips of 32 exchanged, and the sums of each 32: for batches of at most
    /// [`few_rows_max`] rows in `Q8Block256`.
    q_paired: AlignedBuf<i8>,
    sums_paired: AlignedBuf<i16>,
}

impl Activations {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Converts `x`, which is `[rows, cols]`, row-major. A row's result depends on that row alone.
    ///
    /// # Panics
    /// If `x` has another length, or `cols` is no multiple of the format's block.
    pub fn prepare(
        &mut self,
        kernels: &Kernels,
        team: &Team,
        format: ActivationFormat,
        x: &[f32],
        rows: usize,
        cols: usize,
    ) {
        assert_eq!(Some(x.len()), rows.checked_mul(cols), "the activations' length");
        prepare_rows(kernels, team, &mut [(format, self)], (rows, cols), &|row, out| {
            out.copy_from_slice(&x[row * cols..][..cols]);
        });
    }

    /// Computes rows and converts them while they are in the cache, each set to its format. `x` is `[rows, width]`,
    /// row-major; `fill(row, x's row, out)` may change the row of `x` and writes the `cols` activations to `out`.
    ///
    /// # Panics
    /// If `x` has another length, or `cols` is no multiple of a format's block.
    pub fn prepare_with(
        kernels: &Kernels,
        team: &Team,
        sets: &mut [(ActivationFormat, &mut Activations)],
        x: &mut [f32],
        (rows, width, cols): (usize, usize, usize),
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        assert_eq!(
            Some(x.len()),
            rows.checked_mul(width),
            "the length of what the activations are made from"
        );
        let x = DisjointChunks::new(x, width.max(1));
        prepare_rows(kernels, team, sets, (rows, cols), &|row, out| {
            // SAFETY: `prepare_rows` calls this once for each row.
            fill(row, unsafe { x.chunk(row) }, out);
        });
    }

    /// Rows that were prepared.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Activations in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The format of the last [`Activations::prepare`], or `None` before the first.
    pub fn format(&self) -> Option<ActivationFormat> {
        self.format
    }

    /// One row as f32, padded with zeros: to a multiple of 16 (`F32`: in order), of 32 (`Bf16`: rounded to bf16,
    /// subnormals flushed, each 32 as the 16 of odd index, then the 16 of even index).
    pub(crate) fn f32_row(&self, row: usize) -> &[f32] {
        &self.f32[row * self.f32_stride..][..self.f32_stride]
    }

    /// One row of `Bf16` as pairs, padded with zeros to a multiple of 16 pairs. Empty where the level reads `f32_row`.
    pub(crate) fn pair_row(&self, row: usize) -> &[u32] {
        &self.pairs[row * self.pair_stride..][..self.pair_stride]
    }

    /// The quantised activations of one row: `cols` of them; the row starts on a cache line.
    pub(crate) fn q_row(&self, row: usize) -> &[i8] {
        &self.q[row * self.q_stride..][..self.cols]
    }

    /// One scale per block of 32 or 256.
    pub(crate) fn scale_row(&self, row: usize) -> &[f32] {
        let block = if self.format == Some(ActivationFormat::Q8Block256) { 256 } else { 32 };
        &self.scales[row * self.scale_stride..][..self.cols / block]
    }

    /// The sum of each 16 quantised activations.
    pub(crate) fn sum_row(&self, row: usize) -> &[i16] {
        &self.sums[row * self.sum_stride..][..self.cols / 16]
    }

    /// The rows side by side, if they are many and the level has a kernel for it.
    pub(crate) fn columns(&self) -> Option<&ColumnTiles> {
        self.columns.layout().is_some().then_some(&self.columns)
    }

    /// As [`Activations::q_row`], with the zeros up to a multiple of four blocks.
    pub(crate) fn q_row_padded(&self, row: usize) -> &[i8] {
        &self.q[row * self.q_stride..][..self.q_stride]
    }

    /// As [`Activations::scale_row`], with the zeros up to a multiple of 16.
    pub(crate) fn scale_row_padded(&self, row: usize) -> &[f32] {
        &self.scales[row * self.scale_stride..][..self.scale_stride]
    }

    /// As [`Activations::sum_row`], with the zeros up to a multiple of 64.
    pub(crate) fn sum_row_padded(&self, row: usize) -> &[i16] {
        &self.sums[row * self.sum_stride..][..self.sum_stride]
    }

    /// The quantised activations of one row as pairs of strips: of each 128 the strips 0, 2, 1 and 3, which is how the low
    /// and the high nibbles of 64 bytes of Q4_K lie. Only for `Q8Block256` and at most [`few_rows_max`] rows.
    pub(crate) fn q_row_paired(&self, row: usize) -> &[i8] {
        &self.q_paired[row * self.q_stride..][..self.q_stride]
    }

    /// The sum of each 32 quantised activations, with zeros up to a multiple of 32. As [`Activations::q_row_paired`].
    pub(crate) fn sum_row_paired(&self, row: usize) -> &[i16] {
        &self.sums_paired[row * self.sum_stride / 2..][..self.sum_stride / 2]
    }

    /// Makes room for rows, and gives what writes them.
    fn begin(
        &mut self,
        kernels: &Kernels,
        format: ActivationFormat,
        rows: usize,
        cols: usize,
    ) -> RowWriter<'_> {
        let block = format.block_len();
        assert!(cols.is_multiple_of(block), "{cols} activations in a row are no multiple of {block}");
        (self.format, self.rows, self.cols) = (Some(format), rows, cols);
        self.columns.clear();
        let (f32_stride, pair_stride, q_cols) = match format {
            ActivationFormat::F32 => (cols.next_multiple_of(LANES), 0, 0),
            ActivationFormat::Bf16 if kernels.reads_pairs() => (0, cols.next_multiple_of(2 * LANES) / 2, 0),
            ActivationFormat::Bf16 => (cols.next_multiple_of(2 * LANES), 0, 0),
            ActivationFormat::Q8Block32 | ActivationFormat::Q8Block256 => (0, 0, cols),
        };
        (self.f32_stride, self.pair_stride) = (f32_stride, pair_stride);
        // Multiples of 64 bytes each, and of what a kernel reads at once: four blocks.
        self.q_stride = q_cols.next_multiple_of(4 * block.max(16));
        self.scale_stride = (q_cols / block).next_multiple_of(16);
        self.sum_stride = (q_cols / 16).next_multiple_of(64);
        self.f32.resize(rows * self.f32_stride);
        self.pairs.resize(rows * self.pair_stride);
        self.q.resize(rows * self.q_stride);
        self.scales.resize(rows * self.scale_stride);
        self.sums.resize(rows * self.sum_stride);
        let are_few = rows <= few_rows_max(format);
        let n_paired = if format == ActivationFormat::Q8Block256 && are_few { rows } else { 0 };
        self.q_paired.resize(n_paired * self.q_stride);
        self.sums_paired.resize(n_paired * self.sum_stride / 2);
        let side_by_side = q_cols > 0 && !are_few && kernels.reads_columns();
        RowWriter {
            format,
            cols,
            f32: DisjointChunks::new(&mut self.f32, self.f32_stride.max(1)),
            pairs: (pair_stride > 0).then(|| DisjointChunks::new(&mut self.pairs, pair_stride)),
            q: DisjointChunks::new(&mut self.q, self.q_stride.max(1)),
            scales: DisjointChunks::new(&mut self.scales, self.scale_stride.max(1)),
            sums: DisjointChunks::new(&mut self.sums, self.sum_stride.max(1)),
            paired: (n_paired > 0).then(|| Paired {
                q: DisjointChunks::new(&mut self.q_paired, self.q_stride),
                sums: DisjointChunks::new(&mut self.sums_paired, self.sum_stride / 2),
            }),
            columns: side_by_side.then(|| self.columns.begin(format, rows, cols)),
        }
    }
}

/// Writes the rows of one set, from several threads.
struct RowWriter<'a> {
    format: ActivationFormat,
    cols: usize,
    f32: DisjointChunks<'a, f32>,
    pairs: Option<DisjointChunks<'a, u32>>,
    q: DisjointChunks<'a, i8>,
    scales: DisjointChunks<'a, f32>,
    sums: DisjointChunks<'a, i16>,
    paired: Option<Paired<'a>>,
    columns: Option<ColumnWriter<'a>>,
}

/// The rows once more in pairs of strips.
struct Paired<'a> {
    q: DisjointChunks<'a, i8>,
    sums: DisjointChunks<'a, i16>,
}

impl RowWriter<'_> {
    /// Converts the activations of one row.
    ///
    /// # Safety
    /// Nobody else writes or reads the row meanwhile.
    unsafe fn write(&self, kernels: &Kernels, row: usize, x: &[f32]) {
        if let Some(pairs) = &self.pairs {
            // SAFETY: the caller's promise.
            return pair_row(x, unsafe { pairs.chunk(row) });
        }
        if let ActivationFormat::F32 | ActivationFormat::Bf16 = self.format {
            // SAFETY: the caller's promise.
            let out = unsafe { self.f32.chunk(row) };
            if self.format == ActivationFormat::F32 {
                copy_row(x, out)
            } else {
                bf16_row(x, out)
            }
            return;
        }
        let block = self.format.block_len();
        // SAFETY: the caller's promise, for each of the row's parts.
        let (q, scales, sums) = unsafe { (self.q.chunk(row), self.scales.chunk(row), self.sums.chunk(row)) };
        let (q, q_rest) = q.split_at_mut(self.cols);
        let (scales, scales_rest) = scales.split_at_mut(self.cols / block);
        let (sums, sums_rest) = sums.split_at_mut(self.cols / 16);
        kernels.quantize_q8(x, block, q, scales, sums);
        q_rest.fill(0);
        scales_rest.fill(0.0);
        sums_rest.fill(0);
        if let Some(paired) = &self.paired {
            // SAFETY: the caller's promise.
            let (q_paired, sums_paired) = unsafe { (paired.q.chunk(row), paired.sums.chunk(row)) };
            pair_strips(q, sums, q_paired, sums_paired);
        }
    }

    /// Puts the rows of a tile side by side, if this set wants it.
    ///
    /// # Safety
    /// The rows of the tile are written, and nobody else touches them or the tile.
    unsafe fn pack(&self, tile: usize) {
        let Some(columns) = &self.columns else { return };
        let block = self.format.block_len();
        // SAFETY: the caller's promise.
        unsafe {
            columns.pack(tile, |row| Row {
                q: &self.q.chunk(row)[..self.cols],
                scales: &self.scales.chunk(row)[..self.cols / block],
                sums: &self.sums.chunk(row)[..self.cols / 16],
            });
        }
    }
}

/// Calls `fill(row, out)` once for each row and converts what it wrote, on all threads.
fn prepare_rows(
    kernels: &Kernels,
    team: &Team,
    sets: &mut [(ActivationFormat, &mut Activations)],
    (rows, cols): (usize, usize),
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    thread_local! {
        static ROW: RefCell<AlignedBuf<f32>> = RefCell::default();
    }
    let writers: Vec<_> =
        sets.iter_mut().map(|(format, set)| set.begin(kernels, *format, rows, cols)).collect();
    if rows * cols == 0 {
        return;
    }
    let is_packed = writers.iter().any(|writer| writer.columns.is_some());
    let n_tasks = if is_packed { columns::n_tiles(rows) } else { rows.div_ceil(ROWS_PER_TASK) };
    team.run(n_tasks, &|task, _thread| {
        let (first, n) =
            if is_packed { columns::tile_rows(task, rows) } else { (task * ROWS_PER_TASK, ROWS_PER_TASK) };
        ROW.with_borrow_mut(|x| {
            x.resize(cols);
            for row in first..rows.min(first + n) {
                fill(row, x);
                // SAFETY: each row belongs to one task.
                writers.iter().for_each(|writer| unsafe { writer.write(kernels, row, x) });
            }
        });
        // SAFETY: the task has written the rows of its tile, which is nobody else's.
        writers.iter().for_each(|writer| unsafe { writer.pack(task) });
    });
}

/// A row of `Q8Block256` as [`Activations::q_row_paired`] and [`Activations::sum_row_paired`] give it.
fn pair_strips(q: &[i8], sums: &[i16], q_paired: &mut [i8], sums_paired: &mut [i16]) {
    for (strips, paired) in q.as_chunks::<128>().0.iter().zip(q_paired.as_chunks_mut::<128>().0) {
        for (strip, from) in [0, 2, 1, 3].into_iter().enumerate() {
            paired[32 * strip..][..32].copy_from_slice(&strips[32 * from..][..32]);
        }
    }
    q_paired[q.len()..].fill(0);
    let (pairs, rest) = sums_paired.split_at_mut(sums.len() / 2);
    for (pair, sums) in pairs.iter_mut().zip(sums.as_chunks::<2>().0) {
        // At most 32 · 127.
        *pair = sums[0] + sums[1];
    }
    rest.fill(0);
}

fn copy_row(x: &[f32], out: &mut [f32]) {
    let (copied, rest) = out.split_at_mut(x.len());
    copied.copy_from_slice(x);
    rest.fill(0.0);
}

fn bf16_row(x: &[f32], out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(2 * LANES).zip(x.chunks(2 * LANES)) {
        let (odd, even) = out.split_at_mut(LANES);
        for i in 0..LANES {
            even[i] = x.get(2 * i).map_or(0.0, |&x| round_to_bf16(x));
            odd[i] = x.get(2 * i + 1).map_or(0.0, |&x| round_to_bf16(x));
        }
    }
}

fn pair_row(x: &[f32], out: &mut [u32]) {
    let upper = |x: f32| round_to_bf16(x).to_bits() >> 16;
    let (pairs, rest) = x.as_chunks::<2>();
    let (whole, padding) = out.split_at_mut(pairs.len());
    for (out, [first, second]) in whole.iter_mut().zip(pairs) {
        *out = upper(*first) | upper(*second) << 16;
    }
    padding.fill(0);
    if let ([last], [out, ..]) = (rest, padding) {
        *out = upper(*last);
    }
}

/// `x` rounded to bf16 (to nearest even), a subnormal result flushed to a zero of its sign. A NaN stays one.
fn round_to_bf16(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    let bits = x.to_bits();
    let rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    let rounded = f32::from_bits(rounded & 0xFFFF_0000);
    if rounded.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(rounded) } else { rounded }
}
