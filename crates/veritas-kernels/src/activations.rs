//! The right-hand side of a product: activations in the form that the kernels of a weight type read.

use veritas_mem::AlignedBuf;
use veritas_quant::activation::ActivationFormat;

use crate::columns::{ColumnTiles, Row};
use crate::lanes::LANES;
use crate::table::Kernels;
use crate::team::Team;
use crate::tile::DisjointChunks;

/// Activation rows that one task of [`Activations::prepare`] converts.
const ROWS_PER_TASK: usize = 4;

/// From this many quantised rows on they are also put side by side.
const COLUMNS_MIN: usize = 17;

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
    q: AlignedBuf<i8>,
    q_stride: usize,
    scales: AlignedBuf<f32>,
    scale_stride: usize,
    sums: AlignedBuf<i16>,
    sum_stride: usize,
    /// The quantised rows once more, side by side, where the level has a kernel that reads them so.
    columns: ColumnTiles,
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
        self.format = Some(format);
        self.rows = rows;
        self.cols = cols;
        self.columns.clear();
        match format {
            ActivationFormat::F32 => self.prepare_f32(team, x, cols.next_multiple_of(LANES), copy_row),
            ActivationFormat::Bf16 => self.prepare_f32(team, x, cols.next_multiple_of(2 * LANES), bf16_row),
            ActivationFormat::Q8Block32 => self.prepare_q8(kernels, team, x, 32),
            ActivationFormat::Q8Block256 => self.prepare_q8(kernels, team, x, 256),
        }
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

    fn prepare_f32(&mut self, team: &Team, x: &[f32], stride: usize, convert: fn(&[f32], &mut [f32])) {
        self.f32_stride = stride;
        self.f32.resize(self.rows * stride);
        if self.rows * stride == 0 {
            return;
        }
        let cols = self.cols;
        team.chunks_mut(&mut self.f32, ROWS_PER_TASK * stride, |task, chunk| {
            for (i, out) in chunk.chunks_exact_mut(stride).enumerate() {
                let row = task * ROWS_PER_TASK + i;
                convert(&x[row * cols..][..cols], out);
            }
        });
    }

    fn prepare_q8(&mut self, kernels: &Kernels, team: &Team, x: &[f32], block: usize) {
        let (rows, cols) = (self.rows, self.cols);
        assert!(cols.is_multiple_of(block), "{cols} activations in a row are no multiple of {block}");
        // Multiples of 64 bytes each.
        self.q_stride = cols.next_multiple_of(64);
        self.scale_stride = (cols / block).next_multiple_of(16);
        self.sum_stride = (cols / 16).next_multiple_of(32);
        self.q.resize(rows * self.q_stride);
        self.scales.resize(rows * self.scale_stride);
        self.sums.resize(rows * self.sum_stride);
        if rows * cols == 0 {
            return;
        }
        let q = DisjointChunks::new(&mut self.q, self.q_stride);
        let scales = DisjointChunks::new(&mut self.scales, self.scale_stride);
        let sums = DisjointChunks::new(&mut self.sums, self.sum_stride);
        team.run(rows.div_ceil(ROWS_PER_TASK), &|task, _thread| {
            for row in task * ROWS_PER_TASK..rows.min((task + 1) * ROWS_PER_TASK) {
                // SAFETY: each row belongs to one task, which takes each of the row's chunks once.
                let (q, scales, sums) = unsafe { (q.chunk(row), scales.chunk(row), sums.chunk(row)) };
                let (q, q_rest) = q.split_at_mut(cols);
                let (scales, scales_rest) = scales.split_at_mut(cols / block);
                let (sums, sums_rest) = sums.split_at_mut(cols / 16);
                kernels.quantize_q8(&x[row * cols..][..cols], block, q, scales, sums);
                q_rest.fill(0);
                scales_rest.fill(0.0);
                sums_rest.fill(0);
            }
        });
        if kernels.reads_columns() && rows >= COLUMNS_MIN {
            let mut columns = std::mem::take(&mut self.columns);
            let format = self.format.expect("set by `prepare`");
            let row = |i: usize| Row { q: self.q_row(i), scales: self.scale_row(i), sums: self.sum_row(i) };
            columns.pack(team, format, rows, cols, row);
            self.columns = columns;
        }
    }
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
