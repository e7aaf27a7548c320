//! Matrices and norms as the CPU backend holds them: matrices by reference into the file, vectors as f32.

use std::sync::Arc;

use veritas_kernels::{Activations, Kernels, Product, Team};
use veritas_mem::AlignedBuf;
use veritas_model::{Linear, MatrixRef, Norm, NormKind};
use veritas_quant::activation::ActivationFormat;

use crate::error::Error;
use crate::files::ModelFiles;

/// What computes: the weights' files, the kernels, the threads.
pub(crate) struct Device {
    pub(crate) files: Arc<ModelFiles>,
    pub(crate) kernels: Kernels,
    pub(crate) team: Arc<Team>,
}

/// `y = W x + b` with the weights in the file.
pub(crate) struct LinearWeights {
    matrix: MatrixRef,
    format: ActivationFormat,
    bias: Option<Vec<f32>>,
}

impl LinearWeights {
    pub(crate) fn new(files: &ModelFiles, linear: &Linear) -> Result<Self, Error> {
        let matrix = linear.weight.clone();
        let format = ActivationFormat::for_weights(matrix.ty).ok_or_else(|| Error::Unsupported {
            what: format!("weights of the type {} (tensor `{}`)", matrix.ty, matrix.name),
        })?;
        files.matrix(&matrix)?;
        let bias = linear.bias.as_ref().map(|bias| files.vector(bias)).transpose()?;
        Ok(Self { matrix, format, bias })
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Inputs.
    pub(crate) fn cols(&self) -> usize {
        self.matrix.cols
    }

    /// The product with an input that has been prepared, whose result `out` takes, `[input rows, outputs]`; the bias
    /// is still to be added.
    pub(crate) fn product<'a>(
        &self,
        device: &'a Device,
        inputs: &'a PreparedInputs,
        out: &'a mut AlignedBuf<f32>,
    ) -> Result<Product<'a>, Error> {
        let acts = inputs.get(self.format)?;
        out.resize(acts.rows() * self.matrix.rows);
        Ok(Product { w: device.files.matrix(&self.matrix)?, acts, out })
    }

    /// Adds the bias to each row.
    pub(crate) fn add_bias(&self, device: &Device, rows: &mut [f32]) {
        if let Some(bias) = &self.bias {
            device.team.chunks_mut(rows, bias.len(), |_, row| device.kernels.add(row, bias));
        }
    }

    /// The bias, or an empty slice.
    pub(crate) fn bias(&self) -> &[f32] {
        self.bias.as_deref().unwrap_or_default()
    }
}

/// One input of several matrices, in the formats that their weights want.
#[derive(Default)]
pub(crate) struct PreparedInputs {
    by_format: Vec<(ActivationFormat, Activations)>,
}

impl PreparedInputs {
    /// Computes an input row by row, in the formats of `weights`: see [`Activations::prepare_with`].
    pub(crate) fn prepare<'w>(
        &mut self,
        device: &Device,
        weights: impl IntoIterator<Item = &'w LinearWeights>,
        x: &mut [f32],
        shape: (usize, usize, usize),
        fill: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let mut wanted: Vec<ActivationFormat> = Vec::with_capacity(2);
        for weights in weights {
            if !wanted.contains(&weights.format) {
                wanted.push(weights.format);
            }
            if self.by_format.iter().all(|(format, _)| *format != weights.format) {
                self.by_format.push((weights.format, Activations::new()));
            }
        }
        let sets = self.by_format.iter_mut().filter(|(format, _)| wanted.contains(format));
        let mut sets: Vec<_> = sets.map(|(format, set)| (*format, set)).collect();
        Activations::prepare_with(&device.kernels, &device.team, &mut sets, x, shape, fill);
    }

    fn get(&self, format: ActivationFormat) -> Result<&Activations, Error> {
        let set = self.by_format.iter().find(|(prepared, _)| *prepared == format);
        set.map(|(_, set)| set).ok_or(Error::Internal { what: "an input is prepared for its weights" })
    }
}

/// A norm with its vectors as f32.
pub(crate) struct NormWeights {
    kind: NormKind,
    eps: f32,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// The part of a norm's vectors that one head uses.
pub(crate) struct NormStretch<'a> {
    kind: NormKind,
    eps: f32,
    weight: &'a [f32],
    bias: &'a [f32],
}

impl NormWeights {
    pub(crate) fn new(files: &ModelFiles, norm: &Norm) -> Result<Self, Error> {
        let bias = norm.bias.as_ref().map(|bias| files.vector(bias)).transpose()?.unwrap_or_default();
        Ok(Self { kind: norm.kind, eps: norm.eps, weight: files.vector(&norm.weight)?, bias })
    }

    /// Normalises one row.
    pub(crate) fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        self.stretch(0, self.weight.len()).apply(kernels, x, out);
    }

    /// The vectors of the head `index` of `len` values; all heads share them if they are of one head's length.
    pub(crate) fn stretch(&self, index: usize, len: usize) -> NormStretch<'_> {
        let start = if self.weight.len() == len { 0 } else { index * len };
        let bias = if self.bias.is_empty() { &[][..] } else { &self.bias[start..start + len] };
        NormStretch { kind: self.kind, eps: self.eps, weight: &self.weight[start..start + len], bias }
    }
}

impl NormStretch<'_> {
    pub(crate) fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Rms => kernels.rms_norm(x, self.weight, self.eps, out),
            NormKind::Layer => kernels.layer_norm(x, self.weight, self.bias, self.eps, out),
        }
    }
}
