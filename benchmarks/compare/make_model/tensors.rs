//! The tensors of a decoder in the order of the file, and what their weights are drawn from.

use std::io::Write;

use anyhow::Result;
use veritas_gguf::TensorWriter;
use veritas_quant::{GgmlType, quantize_row};

use crate::random::Random;
use crate::shape::Shape;

/// Standard deviation of the weights of matrices: that which models of this kind are initialised with, and not far from
/// what training leaves.
const MATRIX_DEVIATION: f32 = 0.02;

/// Standard deviation of the weights of norms around 1.
const NORM_DEVIATION: f32 = 0.05;

/// Standard deviation of biases around 0.
const BIAS_DEVIATION: f32 = 0.1;

/// A tensor that is still to be drawn.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) ty: GgmlType,
    /// In ggml's order: the length of a row first.
    pub(crate) dims: Vec<u64>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Normal { mean: f32, deviation: f32 },
    Given(Vec<f32>),
}

/// All tensors of a shape.
pub(crate) fn of(shape: &Shape) -> Vec<Tensor> {
    let (width, hidden) = (shape.n_embedding, shape.n_feed_forward);
    let mut tensors = vec![
        matrix("token_embd.weight".to_owned(), width, shape.n_vocab),
        norm("output_norm.weight".to_owned(), width),
    ];
    if let Some(factors) = shape.rope_factors() {
        let dims = vec![factors.len() as u64];
        let name = "rope_freqs.weight".to_owned();
        tensors.push(Tensor { name, ty: GgmlType::F32, dims, values: Values::Given(factors) });
    }
    for layer in 0..shape.n_layers {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        tensors.push(norm(name("attn_norm.weight"), width));
        let (query, key_value) = (shape.n_query(), shape.n_key_value());
        for (part, rows) in [("attn_q", query), ("attn_k", key_value), ("attn_v", key_value)] {
            tensors.push(matrix(name(&format!("{part}.weight")), width, rows));
            if shape.has_qkv_bias {
                tensors.push(vector(name(&format!("{part}.bias")), rows, 0.0, BIAS_DEVIATION));
            }
        }
        tensors.push(matrix(name("attn_output.weight"), query, width));
        tensors.push(norm(name("ffn_norm.weight"), width));
        tensors.push(matrix(name("ffn_gate.weight"), width, hidden));
        tensors.push(matrix(name("ffn_up.weight"), width, hidden));
        tensors.push(matrix(name("ffn_down.weight"), hidden, width));
    }
    tensors
}

fn matrix(name: String, cols: u32, rows: u32) -> Tensor {
    let values = Values::Normal { mean: 0.0, deviation: MATRIX_DEVIATION };
    Tensor { name, ty: GgmlType::F16, dims: vec![cols.into(), rows.into()], values }
}

fn norm(name: String, len: u32) -> Tensor {
    vector(name, len, 1.0, NORM_DEVIATION)
}

fn vector(name: String, len: u32, mean: f32, deviation: f32) -> Tensor {
    Tensor { name, ty: GgmlType::F32, dims: vec![len.into()], values: Values::Normal { mean, deviation } }
}

impl Tensor {
    /// Draws the weights and writes them, a row at a time.
    pub(crate) fn write<W: Write>(&self, seed: u64, out: &mut TensorWriter<W>) -> Result<()> {
        let row_len = self.dims[0] as usize;
        let n_rows = self.dims.iter().skip(1).product::<u64>();
        let mut random = Random::new(seed, &self.name);
        let mut row = vec![0.0f32; row_len];
        let mut bytes = vec![0u8; row_len * self.ty.block_bytes()];
        for _ in 0..n_rows {
            match &self.values {
                Values::Normal { mean, deviation } => {
                    row.fill_with(|| mean + deviation * random.normal());
                }
                Values::Given(values) => row.copy_from_slice(values),
            }
            quantize_row(self.ty, &row, None, &mut bytes)?;
            out.write(&bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_have_as_many_parameters_as_the_published_models() {
        let parameters = |name| {
            let tensors = of(&Shape::find(name).unwrap());
            let weights = tensors.iter().filter(|tensor| tensor.name != "rope_freqs.weight");
            weights.map(|tensor| tensor.dims.iter().product::<u64>()).sum::<u64>()
        };
        assert_eq!(parameters("qwen2.5-0.5b"), 494_032_768);
        assert_eq!(parameters("llama-3.2-1b"), 1_235_814_400);
    }
}
