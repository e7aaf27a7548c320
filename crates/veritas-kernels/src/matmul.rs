//! The product of a weight matrix and a batch of activations.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use veritas_quant::GgmlType;
use veritas_quant::activation::ActivationFormat;

use crate::activations::{Activations, few_rows_max};
use crate::error::Error;
use crate::table::{Kernels, RowsKernel};
use crate::team::Team;
use crate::tile::TileOutput;

/// Weight rows of a task are a multiple of this where there are enough rows: every kernel's register tile divides it.
const ROWS_STEP: usize = 16;

/// Tasks per thread at which the rows are cut no finer: enough to even out threads of different speed.
const TASKS_PER_THREAD: usize = 8;

/// Most weight bytes of a task, so that a tile's unpacked rows stay in the second-level cache.
const TASK_BYTES_MAX: usize = 256 << 10;

/// Weight rows of a panel: what [`Pieces::of_panels`] cuts by.
const PANEL_ROWS: usize = 32;

/// Most bytes of the sums of a task's panels: with the activations of a stretch of K they stay in the second-level
/// cache.
const PANEL_SUMS_MAX: usize = 512 << 10;

/// Weight bytes of a piece of a stretch: what the threads may be apart at the end, a microsecond or two of reading.
const PIECE_BYTES: usize = 32 << 10;

/// Weight rows of a piece are a multiple of this: the rows that a kernel for few activation rows reads at once.
const PIECE_ROWS_STEP: usize = 4;

/// A weight matrix as it lies in the file: `rows` outputs of `cols` weights each.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The weights' type.
    pub ty: GgmlType,
    /// The rows one after the other: `rows * ty.row_bytes(cols)` bytes, in any alignment.
    pub data: &'a [u8],
    /// Outputs.
    pub rows: usize,
    /// Weights in a row, inputs.
    pub cols: usize,
}

/// One product of several that run together.
pub struct Product<'a> {
    /// The weights.
    pub w: Matrix<'a>,
    /// The activations.
    pub acts: &'a Activations,
    /// `[activation rows, w.rows]`, row-major.
    pub out: &'a mut [f32],
}

/// `out[r, n] = Σ_k w[n, k] · x[r, k]` for each activation row `r` and weight row `n`, in the canonical order of the
/// weights' type. `out` is `[activation rows, w.rows]`, row-major.
///
/// # Errors
/// [`Error::UnsupportedType`], [`Error::Format`] if the activations were prepared for other weights,
/// [`Error::Shape`] if the sizes do not fit together.
pub fn matmul(
    kernels: &Kernels,
    team: &Team,
    w: &Matrix<'_>,
    acts: &Activations,
    out: &mut [f32],
) -> Result<(), Error> {
    matmul_each(kernels, team, [Product { w: *w, acts, out }])
}

/// Several products at once, so that the threads meet once and not after each of them.
///
/// # Errors
/// As [`matmul`], before anything is computed.
pub fn matmul_each<'a, const N: usize>(
    kernels: &Kernels,
    team: &Team,
    products: [Product<'a>; N],
) -> Result<(), Error> {
    let mut jobs = Vec::with_capacity(N);
    for product in products {
        jobs.push(Job::new(kernels, team, product)?);
    }
    let n_threads = team.n_threads();
    team.run(n_threads, &|_task, thread| {
        for other in 0..n_threads {
            jobs.iter().for_each(|job| job.run_stretch((thread + other) % n_threads));
        }
    });
    Ok(())
}

/// The next piece of a thread's stretch, on a cache line of its own.
#[repr(align(64))]
struct NextPiece(AtomicUsize);

/// A product that was found to be sound.
///
/// Memory gives weights fastest along long stretches. Each thread therefore has one, the same in each product with the
/// matrix, and takes it piece by piece; one that is done takes pieces of the others' stretches.
struct Job<'a> {
    kernel: RowsKernel,
    w: Matrix<'a>,
    row_bytes: usize,
    acts: &'a Activations,
    pieces: Pieces,
    /// One per thread.
    next: Vec<NextPiece>,
    output: TileOutput<'a>,
}

impl<'a> Job<'a> {
    fn new(kernels: &Kernels, team: &Team, Product { w, acts, out }: Product<'a>) -> Result<Self, Error> {
        let unsupported = Error::UnsupportedType { ty: w.ty };
        let format = ActivationFormat::for_weights(w.ty).ok_or(unsupported.clone())?;
        let kernel = kernels.rows_kernel(w.ty).ok_or(unsupported)?;
        if acts.format() != Some(format) {
            let found =
                acts.format().map_or_else(|| "nothing prepared".to_owned(), |found| format!("{found:?}"));
            return Err(Error::Format { ty: w.ty, expected: format!("{format:?}"), found });
        }
        shape("activations in a row", w.cols, acts.cols())?;
        let row_bytes = w.ty.row_bytes(w.cols).ok_or(Error::Shape {
            what: "weights in a row (a multiple of the block)",
            expected: w.ty.block_len(),
            found: w.cols,
        })?;
        shape("bytes of the weights", row_bytes.saturating_mul(w.rows), w.data.len())?;
        shape("outputs", acts.rows().saturating_mul(w.rows), out.len())?;
        let n_threads = team.n_threads();
        let pieces = match acts.columns() {
            _ if out.is_empty() => Pieces::NONE,
            Some(columns) => Pieces::of_panels(w.rows, columns.n_columns(), n_threads),
            None if acts.rows() <= few_rows_max(format) => Pieces::of_stretches(w.rows, row_bytes, n_threads),
            None => Pieces::of_rows(w.rows, row_bytes, n_threads),
        };
        let next = (0..n_threads).map(|thread| NextPiece(AtomicUsize::new(pieces.first(thread, n_threads))));
        let next = next.collect();
        let output = TileOutput::new(out, acts.rows(), w.rows);
        Ok(Self { kernel, row_bytes, acts, pieces, next, output, w })
    }

    /// Takes what is left of the stretch of `thread`.
    fn run_stretch(&self, thread: usize) {
        let end = self.pieces.first(thread + 1, self.next.len());
        loop {
            let piece = self.next[thread].0.fetch_add(1, Ordering::Relaxed);
            if piece >= end {
                return;
            }
            let rows = self.pieces.rows(piece);
            let data = &self.w.data[rows.start * self.row_bytes..rows.end * self.row_bytes];
            // SAFETY: pieces cover disjoint ranges of rows, and each is taken once. The kernel came from a table whose
            // level this machine has.
            unsafe {
                let mut out = self.output.writer(rows.start, rows.len());
                (self.kernel)(data, rows.len(), self.w.cols, self.acts, &mut out);
            }
        }
    }
}

/// Weight rows cut into pieces of about the same size.
#[derive(Clone, Copy, Debug)]
struct Pieces {
    n_rows: usize,
    /// Pieces begin at multiples of this.
    step: usize,
    n: usize,
}

impl Pieces {
    const NONE: Self = Self { n_rows: 0, step: 1, n: 0 };

    /// For panels of all columns: as many as fit with their sums into [`PANEL_SUMS_MAX`], and as many pieces for each
    /// thread.
    fn of_panels(n_rows: usize, n_columns: usize, n_threads: usize) -> Self {
        let panels = n_rows.div_ceil(PANEL_ROWS);
        let most = (PANEL_SUMS_MAX / (PANEL_ROWS * size_of::<f32>() * n_columns.max(1))).max(1);
        let n = panels.div_ceil(most).next_multiple_of(n_threads).min(panels);
        Self { n_rows, step: PANEL_ROWS, n }
    }

    /// For kernels that stream the rows from memory.
    fn of_stretches(n_rows: usize, row_bytes: usize, n_threads: usize) -> Self {
        let step = match n_threads {
            1 => n_rows,
            _ => (PIECE_BYTES / row_bytes.max(1)).next_multiple_of(PIECE_ROWS_STEP).max(PIECE_ROWS_STEP),
        };
        Self { n_rows, step, n: n_rows.div_ceil(step) }
    }

    /// For kernels that walk the rows once per tile of activations.
    fn of_rows(n_rows: usize, row_bytes: usize, n_threads: usize) -> Self {
        let n = n_rows.div_ceil(task_rows(n_rows, row_bytes, n_threads));
        Self { n_rows, step: ROWS_STEP.min(n_rows), n }
    }

    /// The first piece of a thread's stretch.
    fn first(&self, thread: usize, n_threads: usize) -> usize {
        self.n * thread / n_threads
    }

    fn rows(&self, piece: usize) -> Range<usize> {
        let steps = self.n_rows.div_ceil(self.step);
        let start = |piece: usize| (steps * piece / self.n * self.step).min(self.n_rows);
        start(piece)..start(piece + 1)
    }
}

/// Weight rows of one piece.
fn task_rows(rows: usize, row_bytes: usize, n_threads: usize) -> usize {
    if n_threads == 1 {
        // One thread needs no balance, but the tile's bound holds.
        return clamp_to_bytes(rows, row_bytes);
    }
    let even = rows.div_ceil(n_threads * TASKS_PER_THREAD).next_multiple_of(ROWS_STEP);
    clamp_to_bytes(even, row_bytes)
}

fn clamp_to_bytes(rows: usize, row_bytes: usize) -> usize {
    let most = (TASK_BYTES_MAX / row_bytes.max(1)) / ROWS_STEP * ROWS_STEP;
    rows.min(most.max(ROWS_STEP))
}

fn shape(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Shape { what, expected, found }) }
}
