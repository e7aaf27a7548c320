//! The CPU backend: runs the layers of a plan with the kernels, on weights that lie in the mapped file.

use std::cell::RefCell;
use std::sync::Arc;

use veritas_kernels::{
    Activation, AttentionConfig, AttentionSequence, Kernels, KvLayout, Product, Team, attention, kv_store,
    matmul_each,
};
use veritas_mem::AlignedBuf;
use veritas_model::{Attention, FeedForward, Layer, Linear, Mixer, Norm, Plan, QkNorm, Residual, RopeStyle};

use crate::backend::{Backend, Batch, Stage};
use crate::error::Error;
use crate::files::ModelFiles;
use crate::kv::CacheTypes;
use crate::rope::RopeFrequencies;
use crate::sampler::first_not_finite;
use crate::weights::{Device, LinearWeights, NormWeights, PreparedInputs};

/// The CPU backend.
pub struct CpuBackend {
    plan: Arc<Plan>,
    stage: Stage,
    device: Device,
    ropes: Vec<RopeFrequencies>,
    layers: Vec<LayerWeights>,
    head: HeadWeights,
    /// One arena of pages per layer of the stage.
    cache: Vec<LayerCache>,
    /// The input made from the hidden states, and the one in the middle of a mixer or a feed-forward part.
    inputs: PreparedInputs,
    inner: PreparedInputs,
    buffers: Buffers,
    captured: Option<Vec<Vec<f32>>>,
}

/// What a step computes, kept from one step to the next.
#[derive(Default)]
struct Buffers {
    /// The hidden states.
    x: AlignedBuf<f32>,
    query: AlignedBuf<f32>,
    key: AlignedBuf<f32>,
    value: AlignedBuf<f32>,
    /// What attention gives.
    mixed: AlignedBuf<f32>,
    /// What the last product of a layer gives; the logits.
    output: AlignedBuf<f32>,
    /// What the mixer gives where the feed-forward part runs beside it.
    mixer_output: AlignedBuf<f32>,
    gate: AlignedBuf<f32>,
    up: AlignedBuf<f32>,
}

struct LayerCache {
    layout: KvLayout,
    pages: AlignedBuf<u8>,
}

impl LayerCache {
    /// Zeroises and copies pages, as the batch says.
    fn prepare(&mut self, batch: &Batch) {
        let Self { layout, pages } = self;
        batch.zeroise.iter().for_each(|&page| layout.zero_page(pages, page as usize));
        batch.copies.iter().for_each(|&(from, to)| layout.copy_page(pages, from as usize, to as usize));
    }
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
        Ok(Self {
            plan,
            stage,
            device,
            ropes,
            layers,
            head,
            cache,
            inputs: PreparedInputs::default(),
            inner: PreparedInputs::default(),
            buffers: Buffers::default(),
            captured: None,
        })
    }

    /// Writes the embeddings of the batch's tokens, `[rows, hidden]`.
    fn embed(&self, batch: &Batch, x: &mut [f32]) -> Result<(), Error> {
        let embedding = &self.plan.embedding;
        let hidden = self.plan.hidden;
        let tokens = self.device.files.matrix(&embedding.tokens)?;
        let row_bytes = embedding.tokens.row_bytes();
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
        Ok(())
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

    /// Computes one layer. What it adds to the hidden states `x` is left in `buffers`; `owed` says which of it, of the
    /// layer before.
    fn run_layer(
        &mut self,
        index: usize,
        buffers: &mut Buffers,
        owed: Option<usize>,
        batch: &Batch,
        ropes: &[RopeTable],
    ) -> Result<(), Error> {
        let plan = Arc::clone(&self.plan);
        let layer = &plan.layers[self.stage.layers.start + index];
        let shape = attention_of(layer)?;
        let Self { device, layers, inputs, inner, .. } = self;
        let weights = &layers[index];
        let is_parallel = matches!(layer.residual, Residual::Parallel);
        let shares_input = is_parallel && weights.ffn_norm.is_none();
        let first = weights.projections().chain(weights.widening().filter(|_| shares_input));
        let Buffers { x, query, key, value, mixed, output, mixer_output, gate, up } = buffers;
        let hidden = plan.hidden;
        let before = owed.map(|owed| {
            let layer = &plan.layers[self.stage.layers.start + owed];
            Addends::new(layer, &layers[owed], mixer_output, output)
        });
        prepare_hidden(device, inputs, first, x, hidden, before.as_ref(), weights.mixer_norm.as_ref());
        matmul_each(
            &device.kernels,
            &device.team,
            [
                weights.query.product(device, inputs, query)?,
                weights.key.product(device, inputs, key)?,
                weights.value.product(device, inputs, value)?,
            ],
        )?;
        let rope = shape.rope.map(|rope| (&ropes[rope], plan.ropes[rope].style));
        finish_heads(device, &weights.query, weights.query_norm.as_ref(), shape, rope, query);
        finish_heads(device, &weights.key, weights.key_norm.as_ref(), shape, rope, key);
        weights.value.add_bias(device, value);
        mixed.resize(batch.n_rows() * shape.n_heads * shape.head_dim_v);
        attend(device, &mut self.cache[index], weights, shape, batch, (query, key, value), mixed);
        let width = weights.output.cols();
        inner.prepare(device, [&weights.output], mixed, (batch.n_rows(), width, width), |_, row, out| {
            out.copy_from_slice(row);
        });
        let mixer_output = if is_parallel { mixer_output } else { &mut *output };
        matmul(device, weights.output.product(device, inner, mixer_output)?)?;
        weights.output.add_bias(device, mixer_output);
        if !is_parallel {
            let addend = Addend {
                rows: output,
                post_norm: weights.mixer_post_norm.as_ref(),
                scale: layer.residual_scale,
            };
            let mixed = Addends([Some(addend), None]);
            let norm = weights.ffn_norm.as_ref();
            prepare_hidden(device, inputs, weights.widening(), x, hidden, Some(&mixed), norm);
        } else if !shares_input {
            prepare_hidden(device, inputs, weights.widening(), x, hidden, None, weights.ffn_norm.as_ref());
        }
        feed_forward(device, weights, &layer.ffn, inputs, inner, (gate, up))?;
        matmul(device, weights.down.product(device, inner, output)?)?;
        weights.down.add_bias(device, output);
        Ok(())
    }

    /// Adds what the layer `owed` left in the buffers to the hidden states.
    fn settle(&self, owed: usize, buffers: &mut Buffers) {
        let layer = &self.plan.layers[self.stage.layers.start + owed];
        let Buffers { x, output, mixer_output, .. } = buffers;
        let addends = Addends::new(layer, &self.layers[owed], mixer_output, output);
        let width = self.plan.hidden;
        self.device.team.chunks_mut(x, width, |row, x| {
            with_row(width, |spare| addends.add_to(&self.device.kernels, row, x, spare));
        });
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

    /// Logits of the rows that want them.
    fn logits(&mut self, buffers: &mut Buffers, batch: &Batch, logits: &mut Vec<f32>) -> Result<(), Error> {
        let width = self.plan.hidden;
        let wanted = batch.logit_rows();
        let Buffers { x, query: rows, output, .. } = buffers;
        rows.resize(wanted.len() * width);
        for (row, out) in wanted.iter().zip(rows.chunks_exact_mut(width)) {
            out.copy_from_slice(&x[row * width..(row + 1) * width]);
        }
        let Self { device, inputs, head, .. } = self;
        let head_weights = &head.output;
        let shape = (wanted.len(), width, width);
        inputs.prepare(device, [head_weights], rows, shape, |_, row, out| {
            head.norm.apply(&device.kernels, row, out);
        });
        matmul(device, head_weights.product(device, inputs, output)?)?;
        head_weights.add_bias(device, output);
        let (scale, softcap) = (self.plan.head.scale, self.plan.head.softcap);
        let n_vocab = self.plan.n_vocab;
        if scale != 1.0 || softcap.is_some() {
            self.device.team.chunks_mut(output, n_vocab, |_, row| {
                if scale != 1.0 {
                    self.device.kernels.scale(row, scale);
                }
                if let Some(cap) = softcap {
                    self.device.kernels.softcap(row, cap);
                }
            });
        }
        if let Some(index) = first_not_finite(output) {
            return Err(Error::LogitsNotFinite { token: index % n_vocab });
        }
        logits.clear();
        logits.extend_from_slice(output);
        Ok(())
    }
}

impl Backend for CpuBackend {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn run(&mut self, batch: &Batch, values: &mut Vec<f32>) -> Result<(), Error> {
        self.cache.iter_mut().for_each(|layer| layer.prepare(batch));
        let mut buffers = std::mem::take(&mut self.buffers);
        let result = self.run_in(&mut buffers, batch, values);
        self.buffers = buffers;
        result
    }

    fn capture_hidden(&mut self) {
        self.captured = Some(Vec::new());
    }

    fn take_hidden(&mut self) -> Vec<Vec<f32>> {
        self.captured.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl CpuBackend {
    fn run_in(&mut self, buffers: &mut Buffers, batch: &Batch, values: &mut Vec<f32>) -> Result<(), Error> {
        buffers.x.resize(batch.n_rows() * self.plan.hidden);
        if self.stage.has_embedding() {
            self.embed(batch, &mut buffers.x)?;
        } else if values.len() == buffers.x.len() {
            buffers.x.copy_from_slice(values);
        } else {
            return Err(Error::Internal { what: "a stage is given the hidden states of its batch" });
        }
        let ropes = self.rope_tables(batch);
        let mut captured = self.captured.is_some().then(|| vec![buffers.x.to_vec()]);
        let mut owed = None;
        for index in 0..self.layers.len() {
            self.run_layer(index, buffers, owed, batch, &ropes)?;
            owed = Some(index);
            if let Some(captured) = &mut captured {
                self.settle(index, buffers);
                owed = None;
                let is_last = self.stage.has_head() && index + 1 == self.layers.len();
                let norm = is_last.then_some(&self.head.norm);
                captured.push(self.normed(&buffers.x, norm));
            }
        }
        self.captured = captured;
        if let Some(owed) = owed {
            self.settle(owed, buffers);
        }
        if self.stage.has_head() {
            return self.logits(buffers, batch, values);
        }
        values.clear();
        values.extend_from_slice(&buffers.x);
        Ok(())
    }
}

/// What a layer adds to the hidden states.
struct Addend<'a> {
    /// `[rows, hidden]`.
    rows: &'a [f32],
    post_norm: Option<&'a NormWeights>,
    scale: f32,
}

/// What is added to the hidden states, in this order.
struct Addends<'a>([Option<Addend<'a>>; 2]);

impl<'a> Addends<'a> {
    /// What is left at the end of a layer.
    fn new(layer: &Layer, weights: &'a LayerWeights, mixer_output: &'a [f32], output: &'a [f32]) -> Self {
        let scale = layer.residual_scale;
        let mixer = Addend { rows: mixer_output, post_norm: weights.mixer_post_norm.as_ref(), scale };
        let ffn = Addend { rows: output, post_norm: weights.ffn_post_norm.as_ref(), scale };
        match layer.residual {
            Residual::Sequential => Self([Some(ffn), None]),
            Residual::Parallel => Self([Some(mixer), Some(ffn)]),
        }
    }

    /// Adds them to one row; `spare` is a row of its length.
    fn add_to(&self, kernels: &Kernels, row: usize, x: &mut [f32], spare: &mut [f32]) {
        for Addend { rows, post_norm, scale } in self.0.iter().flatten() {
            let mut y = &rows[row * x.len()..][..x.len()];
            if let Some(norm) = post_norm {
                norm.apply(kernels, y, spare);
                y = spare;
            }
            if *scale == 1.0 {
                kernels.add(x, y);
            } else {
                kernels.add_scaled(x, y, *scale);
            }
        }
    }
}

/// Adds what is owed to the hidden states `x`, and prepares the input of `weights` from them, in one pass.
fn prepare_hidden<'w>(
    device: &Device,
    inputs: &mut PreparedInputs,
    weights: impl IntoIterator<Item = &'w LinearWeights>,
    x: &mut [f32],
    width: usize,
    addends: Option<&Addends<'_>>,
    norm: Option<&NormWeights>,
) {
    let shape = (x.len() / width, width, width);
    inputs.prepare(device, weights, x, shape, |row, x, out| {
        if let Some(addends) = addends {
            addends.add_to(&device.kernels, row, x, out);
        }
        match norm {
            Some(norm) => norm.apply(&device.kernels, x, out),
            None => out.copy_from_slice(x),
        }
    });
}

/// Bias, norm and rotation of the heads of queries or keys.
fn finish_heads(
    device: &Device,
    weights: &LinearWeights,
    norm: Option<&NormWeights>,
    shape: &Attention,
    rope: Option<(&RopeTable, RopeStyle)>,
    rows: &mut [f32],
) {
    let kernels = &device.kernels;
    let unit = match shape.qk_norm {
        Some(QkNorm::Whole { .. }) => weights.rows(),
        _ => shape.head_dim_k,
    };
    device.team.chunks_mut(rows, weights.rows(), |index, row| {
        if !weights.bias().is_empty() {
            kernels.add(row, weights.bias());
        }
        if let Some(norm) = norm {
            with_row(unit, |normed| {
                for (head, values) in row.chunks_exact_mut(unit).enumerate() {
                    norm.stretch(head, unit).apply(kernels, values, normed);
                    values.copy_from_slice(normed);
                }
            });
        }
        if let Some((table, style)) = rope {
            let style = match style {
                RopeStyle::Interleaved => veritas_kernels::RopeStyle::Interleaved,
                RopeStyle::Neox => veritas_kernels::RopeStyle::Neox,
            };
            let range = index * table.n_pairs..(index + 1) * table.n_pairs;
            let (cos, sin) = (&table.cos[range.clone()], &table.sin[range]);
            row.chunks_exact_mut(shape.head_dim_k).for_each(|head| kernels.rope(style, head, cos, sin));
        }
    });
}

/// Stores the keys and values of a step, and attends to all of them.
fn attend(
    device: &Device,
    cache: &mut LayerCache,
    weights: &LayerWeights,
    shape: &Attention,
    batch: &Batch,
    (query, key, value): (&[f32], &[f32], &[f32]),
    mixed: &mut [f32],
) {
    let sequences = attention_sequences(batch);
    let LayerCache { layout, pages } = cache;
    kv_store(&device.kernels, &device.team, layout, pages, &sequences, key, value);
    let config = AttentionConfig {
        n_heads: shape.n_heads,
        scale: shape.scale,
        softcap: shape.softcap,
        window: shape.window,
        causal: true,
        sinks: weights.sinks.as_deref(),
    };
    attention(&device.kernels, &device.team, &config, layout, pages, &sequences, query, mixed);
}

/// The widening products and the activation: `inner` becomes the input of the narrowing one.
fn feed_forward(
    device: &Device,
    weights: &LayerWeights,
    ffn: &FeedForward,
    inputs: &PreparedInputs,
    inner: &mut PreparedInputs,
    (gate, up): (&mut AlignedBuf<f32>, &mut AlignedBuf<f32>),
) -> Result<(), Error> {
    let width = weights.up.rows();
    let (kernels, team) = (&device.kernels, &device.team);
    match ffn {
        FeedForward::Gated(gated) => {
            let gate_weights =
                weights.gate.as_ref().ok_or(Error::Internal { what: "a gated layer has a gate" })?;
            let products =
                [gate_weights.product(device, inputs, gate)?, weights.up.product(device, inputs, up)?];
            matmul_each(kernels, team, products)?;
            gate_weights.add_bias(device, gate);
            weights.up.add_bias(device, up);
            let (up, rows) = (&**up, gate.len() / width);
            inner.prepare(device, [&weights.down], gate, (rows, width, width), |row, gate, out| {
                let up = &up[row * width..][..width];
                kernels.activate_mul(activation(gated.activation), gate, up, out);
            });
        }
        FeedForward::Plain(plain) => {
            matmul(device, weights.up.product(device, inputs, up)?)?;
            weights.up.add_bias(device, up);
            let rows = up.len() / width;
            inner.prepare(device, [&weights.down], up, (rows, width, width), |_, row, out| {
                kernels.activate(activation(plain.activation), row);
                out.copy_from_slice(row);
            });
        }
        FeedForward::Moe(_) => return Err(Error::Unsupported { what: "a mixture of experts".into() }),
    }
    Ok(())
}

fn matmul(device: &Device, product: Product<'_>) -> Result<(), Error> {
    Ok(matmul_each(&device.kernels, &device.team, [product])?)
}

/// Calls `f` with `len` numbers that this thread keeps for such calls.
fn with_row<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static ROW: RefCell<AlignedBuf<f32>> = RefCell::default();
    }
    ROW.with_borrow_mut(|row| {
        row.resize(len);
        f(row)
    })
}

impl LayerWeights {
    fn projections(&self) -> impl Iterator<Item = &LinearWeights> {
        [&self.query, &self.key, &self.value].into_iter()
    }

    /// What widens the hidden states in the feed-forward part.
    fn widening(&self) -> impl Iterator<Item = &LinearWeights> {
        self.gate.iter().chain([&self.up])
    }

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
