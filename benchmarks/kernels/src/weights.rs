//! Matrices of a type that fill a ring larger than any cache.

use anyhow::{Context, Result};
use veritas_mem::AlignedBuf;
use veritas_quant::{GgmlType, quantize_row};

use crate::Shape;

/// Weights that are quantised; the ring repeats them.
const N_SAMPLES: usize = 1 << 17;

/// The bytes of a ring of matrices of one type, whatever their shape.
pub(crate) struct Ring {
    ty: GgmlType,
    bytes: AlignedBuf<u8>,
}

impl Ring {
    /// At least `n_bytes` of weights: numbers that are normally distributed, nearly.
    ///
    /// # Errors
    /// If weights cannot be quantised to the type.
    pub(crate) fn new(ty: GgmlType, n_bytes: usize) -> Result<Self> {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let samples = (0..N_SAMPLES).map(|_| random.normal() * 0.02).collect::<Vec<_>>();
        let mut blocks = vec![0; ty.row_bytes(N_SAMPLES).context("whole blocks")?];
        quantize_row(ty, &samples, None, &mut blocks)?;
        let mut bytes = AlignedBuf::zeroed(n_bytes.next_multiple_of(blocks.len()));
        bytes.chunks_exact_mut(blocks.len()).for_each(|chunk| chunk.copy_from_slice(&blocks));
        Ok(Self { ty, bytes })
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The matrices of this shape that fit, one after the other; each starts at a multiple of 64 bytes, as in a file whose
    /// tensors are aligned so.
    ///
    /// # Errors
    /// If a row has no whole number of blocks, or not one matrix fits.
    pub(crate) fn matrices(&self, shape: Shape) -> Result<Vec<&[u8]>> {
        let row = self.ty.row_bytes(shape.cols);
        let row =
            row.with_context(|| format!("{} weights are no whole blocks of {}", shape.cols, self.ty))?;
        let n_bytes = row * shape.rows;
        let matrices = self.bytes.chunks_exact(n_bytes.next_multiple_of(64).max(64));
        let matrices = matrices.map(|chunk| &chunk[..n_bytes]).collect::<Vec<_>>();
        anyhow::ensure!(!matrices.is_empty(), "a matrix of {n_bytes} bytes does not fit in the ring");
        Ok(matrices)
    }
}

/// Marsaglia's xorshift generator: enough for weights and activations that only have to look like some.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number of mean 0 and variance 1: the sum of twelve uniform ones, less six.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}
