//! Matrices and norms as the CPU backend holds them: matrices by reference into the file, vectors as f32.

use std::sync::Arc;

use veritas_kernels::{Activations, Kernels, Team, matmul};
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

    /// `[input rows, outputs]` of the input `x`, which `inputs` remembers in the formats that it was quantised to.
    pub(crate) fn apply(
        &self,
        device: &Device,
        inputs: &mut PreparedInputs,
        x: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let Device { files, kernels, team } = device;
        let input = inputs.prepared(device, self.format, x, self.matrix.cols)?;
        let mut out = vec![0.0; input.rows() * self.matrix.rows];
        matmul(kernels, team, &files.matrix(&self.matrix)?, input, &mut out)?;
        if let Some(bias) = &self.bias {
            team.chunks_mut(&mut out, self.matrix.rows, |_, row| kernels.add(row, bias));
        }
        Ok(out)
    }
}

/// One input of several matrices, quantised for each kind of weights at most once.
#[derive(Default)]
pub(crate) struct PreparedInputs {
    by_format: Vec<Prepared>,
}

struct Prepared {
    format: ActivationFormat,
    activations: Activations,
    is_current: bool,
}

impl PreparedInputs {
    /// Forgets what was prepared: the input is another one now.
    pub(crate) fn renew(&mut self) {
        self.by_format.iter_mut().for_each(|prepared| prepared.is_current = false);
    }

    fn prepared(
        &mut self,
        device: &Device,
        format: ActivationFormat,
        x: &[f32],
        cols: usize,
    ) -> Result<&Activations, Error> {
        let index =
            self.by_format.iter().position(|prepared| prepared.format == format).unwrap_or_else(|| {
                self.by_format.push(Prepared { format, activations: Activations::new(), is_current: false });
                self.by_format.len() - 1
            });
        let prepared = &mut self.by_format[index];
        if !prepared.is_current {
            prepared.activations.prepare(&device.kernels, &device.team, format, x, x.len() / cols, cols);
            prepared.is_current = true;
        }
        Ok(&prepared.activations)
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
