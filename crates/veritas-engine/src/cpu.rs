//! The CPU backend: runs the layers of a plan with the kernels, on weights that lie in the mapped file.

use std::sync::Arc;

use veritas_kernels::{
    Activation, AttentionConfig, AttentionSequence, Kernels, KvLayout, Team, attention, kv_store,
};
use veritas_mem::AlignedBuf;
use veritas_model::{Attention, FeedForward, Layer, Linear, Mixer, Norm, Plan, QkNorm, Residual, RopeStyle};

use crate::backend::{Backend, Batch, Stage, StageOutput};
use crate::error::Error;
use crate::files::ModelFiles;
use crate::kv::CacheTypes;
use crate::rope::RopeFrequencies;
use crate::weights::{Device, LinearWeights, NormWeights, PreparedInputs};

/// The CPU backend.
pub struct CpuBackend {
    plan: Arc<Plan>,
    stage: Stage,
    device: Device,
    ropes: Vec<RopeFrequencies>,
    layers: Vec<LayerWeights>,
    head: HeadWeights,
    /// One arena per layer of the stage: page `i` of the layer at `i * layout.page_bytes()`.
    cache: Vec<LayerCache>,
    inputs: PreparedInputs,
    captured: Option<Vec<Vec<f32>>>,
}

struct LayerCache {
    layout: KvLayout,
    pages: AlignedBuf<u8>,
}

/// The vectors of a layer, converted to f32 once; matrices stay in the file.
struct LayerWeights {
    mixer_norm: Option<NormWeights>,
    mixer_post_norm: Option<NormWeights>,
    ffn_norm: Option<NormWeights>,
    ffn_post_norm: Option<NormWeights>,
    query: LinearWeights,
    key: LinearWeights,
    value: LinearWeights,
    output: LinearWeights,
    query_norm: Option<NormWeights>,
    key_norm: Option<NormWeights>,
    sinks: Option<Vec<f32>>,
    gate: Option<LinearWeights>,
    up: LinearWeights,
    down: LinearWeights,
}

struct HeadWeights {
    norm: NormWeights,
    output: LinearWeights,
}

/// Cosine and sine for each row of a step, `[rows, n_pairs]` each.
struct RopeTable {
    n_pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl CpuBackend {
    /// Takes the layers of `stage`, and reserves `n_blocks` pages of KV cache for each.
    ///
    /// # Errors
    /// If the plan needs what this backend cannot run, or memory is short.
    pub fn new(
        files: Arc<ModelFiles>,
        plan: Arc<Plan>,
        stage: Stage,
        kernels: Kernels,
        team: Arc<Team>,
        cache_types: CacheTypes,
        n_blocks: usize,
    ) -> Result<Self, Error> {
        if let Some(need) = plan.needs().first() {
            return Err(Error::Unsupported { what: need.to_string() });
        }
        let mut layers = Vec::with_capacity(stage.layers.len());
        let mut cache = Vec::with_capacity(stage.layers.len());
        for layer in &plan.layers[stage.layers.clone()] {
            let attention = attention_of(layer)?;
            layers.push(LayerWeights::new(&files, layer, attention)?);
            let layout = KvLayout {
                n_kv_heads: attention.n_kv_heads,
                head_dim_k: attention.head_dim_k,
                head_dim_v: attention.head_dim_v,
                k_type: cache_types.key,
                v_type: cache_types.value,
            };
            let bytes = layout.page_bytes().saturating_mul(n_blocks);
            let pages = AlignedBuf::try_zeroed(bytes).map_err(|_| Error::CacheMemory { bytes })?;
            cache.push(LayerCache { layout, pages });
        }
        let ropes = plan.ropes.iter().map(|rope| RopeFrequencies::new(rope, &files));
        let ropes = ropes.collect::<Result<_, _>>()?;
        let head = HeadWeights {
            norm: NormWeights::new(&files, &plan.head.norm)?,
            output: LinearWeights::new(&files, &plan.head.output)?,
        };
        let device = Device { files, kernels, team };
        let inputs = PreparedInputs::default();
        Ok(Self { plan, stage, device, ropes, layers, head, cache, inputs, captured: None })
    }

    /// `[rows, hidden]`: the embeddings of the batch's tokens.
    fn embed(&self, batch: &Batch) -> Result<Vec<f32>, Error> {
        let embedding = &self.plan.embedding;
        let hidden = self.plan.hidden;
        let tokens = self.device.files.matrix(&embedding.tokens)?;
        let row_bytes = embedding.tokens.row_bytes();
        let mut x = vec![0.0; batch.n_rows() * hidden];
        let ids = batch.entries.iter().flat_map(|entry| &entry.tokens);
        for (&id, row) in ids.zip(x.chunks_exact_mut(hidden)) {
            let id = id as usize;
            if id >= self.plan.n_vocab {
                return Err(Error::TokenOutOfRange { id, n_vocab: self.plan.n_vocab });
            }
            veritas_quant::dequantize_row(tokens.ty, &tokens.data[id * row_bytes..][..row_bytes], row)?;
            if embedding.scale != 1.0 {
                self.device.kernels.scale(row, embedding.scale);
            }
        }
        if let Some(positions) = &embedding.positions {
            let matrix = self.device.files.matrix(positions)?;
            let row_bytes = positions.row_bytes();
            let mut learned = vec![0.0; hidden];
            let places = batch.entries.iter().flat_map(|entry| entry.start..entry.start + entry.tokens.len());
            for (position, row) in places.zip(x.chunks_exact_mut(hidden)) {
                let data = matrix.data.get(position * row_bytes..(position + 1) * row_bytes);
                let data = data.ok_or(Error::PositionOutOfRange { position, n_positions: positions.rows })?;
                veritas_quant::dequantize_row(matrix.ty, data, &mut learned)?;
                self.device.kernels.add(row, &learned);
            }
        }
        Ok(x)
    }

    fn rope_tables(&self, batch: &Batch) -> Vec<RopeTable> {
        let n_rows = batch.n_rows();
        let table = |frequencies: &RopeFrequencies| {
            let n_pairs = frequencies.n_pairs();
            let mut table =
                RopeTable { n_pairs, cos: vec![0.0; n_rows * n_pairs], sin: vec![0.0; n_rows * n_pairs] };
            let places = batch.entries.iter().flat_map(|entry| {
                (entry.start..entry.start + entry.tokens.len()).map(|position| (position, entry.reach))
            });
            let rows = table.cos.chunks_exact_mut(n_pairs).zip(table.sin.chunks_exact_mut(n_pairs));
            for ((position, reach), (cos, sin)) in places.zip(rows) {
                frequencies.fill(position, reach, cos, sin);
            }
            table
        };
        self.ropes.iter().map(table).collect()
    }

    fn run_layer(
        &mut self,
        index: usize,
        x: &mut [f32],
        batch: &Batch,
        ropes: &[RopeTable],
    ) -> Result<(), Error> {
        let plan = Arc::clone(&self.plan);
        let layer = &plan.layers[self.stage.layers.start + index];
        let input = self.normed(x, self.layers[index].mixer_norm.as_ref());
        let mixed = self.attend(index, attention_of(layer)?, &input, batch, ropes)?;
        let mixed = self.normed_owned(mixed, self.layers[index].mixer_post_norm.as_ref());
        match layer.residual {
            Residual::Sequential => {
                self.add_residual(x, &mixed, layer.residual_scale);
                let input = self.normed(x, self.layers[index].ffn_norm.as_ref());
                let output = self.feed_forward(index, &layer.ffn, &input)?;
                let output = self.normed_owned(output, self.layers[index].ffn_post_norm.as_ref());
                self.add_residual(x, &output, layer.residual_scale);
            }
            Residual::Parallel => {
                let input = match &self.layers[index].ffn_norm {
                    Some(norm) => self.normed(x, Some(norm)),
                    None => input,
                };
                let output = self.feed_forward(index, &layer.ffn, &input)?;
                let output = self.normed_owned(output, self.layers[index].ffn_post_norm.as_ref());
                self.add_residual(x, &mixed, layer.residual_scale);
                self.add_residual(x, &output, layer.residual_scale);
            }
        }
        Ok(())
    }

    fn attend(
        &mut self,
        index: usize,
        shape: &Attention,
        input: &[f32],
        batch: &Batch,
        ropes: &[RopeTable],
    ) -> Result<Vec<f32>, Error> {
        let weights = &self.layers[index];
        self.inputs.renew();
        let mut query = weights.query.apply(&self.device, &mut self.inputs, input)?;
        let mut key = weights.key.apply(&self.device, &mut self.inputs, input)?;
        let value = weights.value.apply(&self.device, &mut self.inputs, input)?;
        let heads = [
            (&mut query, shape.n_heads, &weights.query_norm),
            (&mut key, shape.n_kv_heads, &weights.key_norm),
        ];
        for (rows, n_heads, norm) in heads {
            if let Some(norm) = norm {
                self.norm_heads(rows, n_heads, shape, norm);
            }
            if let Some((rope, style)) = shape.rope.map(|rope| (&ropes[rope], self.plan.ropes[rope].style)) {
                self.turn(rows, n_heads * shape.head_dim_k, shape.head_dim_k, rope, style);
            }
        }
        let sequences = attention_sequences(batch);
        let LayerCache { layout, pages } = &mut self.cache[index];
        kv_store(&self.device.kernels, &self.device.team, layout, pages, &sequences, &key, &value);
        let config = AttentionConfig {
            n_heads: shape.n_heads,
            scale: shape.scale,
            softcap: shape.softcap,
            window: shape.window,
            causal: true,
            sinks: weights.sinks.as_deref(),
        };
        let mut mixed = vec![0.0; batch.n_rows() * shape.n_heads * shape.head_dim_v];
        attention(
            &self.device.kernels,
            &self.device.team,
            &config,
            layout,
            pages,
            &sequences,
            &query,
            &mut mixed,
        );
        self.inputs.renew();
        self.layers[index].output.apply(&self.device, &mut self.inputs, &mixed)
    }

    fn feed_forward(&mut self, index: usize, ffn: &FeedForward, input: &[f32]) -> Result<Vec<f32>, Error> {
        let weights = &self.layers[index];
        self.inputs.renew();
        let mut inner = weights.up.apply(&self.device, &mut self.inputs, input)?;
        match ffn {
            FeedForward::Gated(gated) => {
                let gate =
                    weights.gate.as_ref().ok_or(Error::Internal { what: "a gated layer has a gate" })?;
                let gated_by = gate.apply(&self.device, &mut self.inputs, input)?;
                let width = gate.rows();
                let mut product = vec![0.0; inner.len()];
                self.device.team.chunks_mut(&mut product, width, |row, out| {
                    let range = row * width..(row + 1) * width;
                    let (gate, up) = (&gated_by[range.clone()], &inner[range]);
                    self.device.kernels.activate_mul(activation(gated.activation), gate, up, out);
                });
                inner = product;
            }
            FeedForward::Plain(plain) => {
                let width = weights.up.rows();
                self.device.team.chunks_mut(&mut inner, width, |_, row| {
                    self.device.kernels.activate(activation(plain.activation), row);
                });
            }
            FeedForward::Moe(_) => return Err(Error::Unsupported { what: "a mixture of experts".into() }),
        }
        self.inputs.renew();
        weights.down.apply(&self.device, &mut self.inputs, &inner)
    }

    fn normed(&self, x: &[f32], norm: Option<&NormWeights>) -> Vec<f32> {
        let Some(norm) = norm else { return x.to_vec() };
        let mut out = vec![0.0; x.len()];
        let width = self.plan.hidden;
        self.device.team.chunks_mut(&mut out, width, |row, out| {
            norm.apply(&self.device.kernels, &x[row * width..(row + 1) * width], out);
        });
        out
    }

    fn normed_owned(&self, x: Vec<f32>, norm: Option<&NormWeights>) -> Vec<f32> {
        if norm.is_some() { self.normed(&x, norm) } else { x }
    }

    fn norm_heads(&self, rows: &mut [f32], n_heads: usize, shape: &Attention, norm: &NormWeights) {
        let width = n_heads * shape.head_dim_k;
        let is_whole = matches!(shape.qk_norm, Some(QkNorm::Whole { .. }));
        let unit = if is_whole { width } else { shape.head_dim_k };
        self.device.team.chunks_mut(rows, width, |_, row| {
            let mut normed = vec![0.0; unit];
            for (head, values) in row.chunks_exact_mut(unit).enumerate() {
                norm.stretch(head, unit).apply(&self.device.kernels, values, &mut normed);
                values.copy_from_slice(&normed);
            }
        });
    }

    fn turn(&self, rows: &mut [f32], width: usize, head_dim: usize, table: &RopeTable, style: RopeStyle) {
        let style = match style {
            RopeStyle::Interleaved => veritas_kernels::RopeStyle::Interleaved,
            RopeStyle::Neox => veritas_kernels::RopeStyle::Neox,
        };
        self.device.team.chunks_mut(rows, width, |row, values| {
            let range = row * table.n_pairs..(row + 1) * table.n_pairs;
            let (cos, sin) = (&table.cos[range.clone()], &table.sin[range]);
            values
                .chunks_exact_mut(head_dim)
                .for_each(|head| self.device.kernels.rope(style, head, cos, sin));
        });
    }

    fn add_residual(&self, x: &mut [f32], y: &[f32], scale: f32) {
        let width = self.plan.hidden;
        self.device.team.chunks_mut(x, width, |row, x| {
            let y = &y[row * width..(row + 1) * width];
            if scale == 1.0 {
                self.device.kernels.add(x, y);
            } else {
                self.device.kernels.add_scaled(x, y, scale);
            }
        });
    }

    /// Logits of the rows that want them.
    fn logits(&mut self, x: &[f32], batch: &Batch) -> Result<Vec<f32>, Error> {
        let width = self.plan.hidden;
        let wanted = batch.logit_rows();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = Vec::with_capacity(wanted.len() * width);
        wanted.iter().for_each(|row| rows.extend_from_slice(&x[row * width..(row + 1) * width]));
        let rows = self.normed(&rows, Some(&self.head.norm));
        self.inputs.renew();
        let mut logits = self.head.output.apply(&self.device, &mut self.inputs, &rows)?;
        let (scale, softcap) = (self.plan.head.scale, self.plan.head.softcap);
        self.device.team.chunks_mut(&mut logits, self.plan.n_vocab, |_, row| {
            if scale != 1.0 {
                self.device.kernels.scale(row, scale);
            }
            if let Some(cap) = softcap {
                self.device.kernels.softcap(row, cap);
            }
        });
        match logits.iter().position(|logit| !logit.is_finite()) {
            Some(index) => Err(Error::LogitsNotFinite { token: index % self.plan.n_vocab }),
            None => Ok(logits),
        }
    }
}

impl Backend for CpuBackend {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn run(&mut self, batch: &Batch, hidden: Vec<f32>) -> Result<StageOutput, Error> {
        let mut x = if self.stage.has_embedding() { self.embed(batch)? } else { hidden };
        let ropes = self.rope_tables(batch);
        let mut captured = self.captured.is_some().then(|| vec![x.clone()]);
        for index in 0..self.layers.len() {
            self.run_layer(index, &mut x, batch, &ropes)?;
            if let Some(captured) = &mut captured {
                let is_last = self.stage.has_head() && index + 1 == self.layers.len();
                let norm = is_last.then_some(&self.head.norm);
                captured.push(self.normed(&x, norm));
            }
        }
        self.captured = captured;
        if self.stage.has_head() {
            return Ok(StageOutput::Logits(self.logits(&x, batch)?));
        }
        Ok(StageOutput::Hidden(x))
    }

    fn capture_hidden(&mut self) {
        self.captured = Some(Vec::new());
    }

    fn take_hidden(&mut self) -> Vec<Vec<f32>> {
        self.captured.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl LayerWeights {
    fn new(files: &ModelFiles, layer: &Layer, attention: &Attention) -> Result<Self, Error> {
        let norm = |norm: &Option<Norm>| norm.as_ref().map(|norm| NormWeights::new(files, norm)).transpose();
        let linear = |linear: &Linear| LinearWeights::new(files, linear);
        let (query_norm, key_norm) = match &attention.qk_norm {
            Some(
                QkNorm::PerHead { query, key }
                | QkNorm::PerHeadDistinct { query, key }
                | QkNorm::Whole { query, key },
            ) => (Some(NormWeights::new(files, query)?), Some(NormWeights::new(files, key)?)),
            None => (None, None),
        };
        let (gate, up, down) = match &layer.ffn {
            FeedForward::Gated(gated) => {
                (Some(linear(&gated.gate)?), linear(&gated.up)?, linear(&gated.down)?)
            }
            FeedForward::Plain(plain) => (None, linear(&plain.up)?, linear(&plain.down)?),
            FeedForward::Moe(_) => return Err(Error::Unsupported { what: "a mixture of experts".into() }),
        };
        Ok(Self {
            mixer_norm: norm(&layer.mixer_norm)?,
            mixer_post_norm: norm(&layer.mixer_post_norm)?,
            ffn_norm: norm(&layer.ffn_norm)?,
            ffn_post_norm: norm(&layer.ffn_post_norm)?,
            query: linear(&attention.query)?,
            key: linear(&attention.key)?,
            value: linear(&attention.value)?,
            output: linear(&attention.output)?,
            query_norm,
            key_norm,
            sinks: attention.sinks.as_ref().map(|sinks| files.vector(sinks)).transpose()?,
            gate,
            up,
            down,
        })
    }
}

fn attention_of(layer: &Layer) -> Result<&Attention, Error> {
    match &layer.mixer {
        Mixer::Attention(attention) => Ok(attention),
        Mixer::Latent(_) => Err(Error::Unsupported { what: "multi-head latent attention".into() }),
        Mixer::Recurrent(_) => Err(Error::Unsupported { what: "recurrent layers".into() }),
    }
}

fn attention_sequences(batch: &Batch) -> Vec<AttentionSequence<'_>> {
    let mut first_row = 0;
    let sequences = batch.entries.iter().map(|entry| {
        let n_rows = entry.tokens.len();
        let first = first_row;
        first_row += n_rows;
        AttentionSequence {
            block_table: &entry.block_table,
            first_row: first,
            n_rows,
            first_position: entry.start,
        }
    });
    sequences.collect()
}

fn activation(activation: veritas_model::Activation) -> Activation {
    match activation {
        veritas_model::Activation::Silu => Activation::Silu,
        veritas_model::Activation::GeluTanh => Activation::GeluTanh,
        veritas_model::Activation::GeluErf => Activation::GeluErf,
    }
}
