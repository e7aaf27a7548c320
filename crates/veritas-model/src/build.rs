//! What the families share: reading metadata under the architecture's prefix, finding tensors, checking shapes.

use veritas_gguf::TensorInfo;
use veritas_gguf::split::GgufSet;
use veritas_quant::GgmlType;

use crate::error::Error;
use crate::limits::{CONTEXT_MAX, HEAD_DIM_MAX, HEADS_MAX, LAYERS_MAX, WIDTH_MAX};
use crate::plan::{
    Activation, Attention, Embedding, FeedForward, Gated, Head, Layer, Linear, MatrixRef, Mixer, MoeConfig,
    Norm, NormKind, Plain, Plan, QkNorm, Residual, RouterScore, VectorRef,
};
use crate::rope::{Rope, RopeScaling, RopeStyle};

/// The sizes that every decoder has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) hidden: usize,
    pub(crate) n_layers: usize,
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim_k: usize,
    pub(crate) head_dim_v: usize,
    pub(crate) ffn: usize,
    pub(crate) n_context: usize,
    pub(crate) n_vocab: usize,
}

/// Reads one model's metadata and tensors.
pub(crate) struct Builder<'a> {
    files: &'a GgufSet,
    architecture: &'a str,
    pub(crate) sizes: Sizes,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(files: &'a GgufSet, architecture: &'a str) -> Result<Self, Error> {
        let sizes = Sizes {
            hidden: 0,
            n_layers: 0,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim_k: 0,
            head_dim_v: 0,
            ffn: 0,
            n_context: 0,
            n_vocab: 0,
        };
        let mut builder = Self { files, architecture, sizes };
        builder.sizes = builder.read_sizes()?;
        Ok(builder)
    }

    fn read_sizes(&self) -> Result<Sizes, Error> {
        let hidden = self.size("embedding_length", WIDTH_MAX)?;
        let n_layers = self.size("block_count", LAYERS_MAX)?;
        let n_heads = self.size_of_all_layers("attention.head_count", HEADS_MAX, n_layers)?;
        let n_kv_heads = match self.has("attention.head_count_kv") {
            true => self.size_of_all_layers("attention.head_count_kv", HEADS_MAX, n_layers)?,
            false => n_heads,
        };
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(self.value("attention.head_count_kv", n_kv_heads, format!("a divisor of {n_heads}")));
        }
        let head_dim = |name: &str| match self.has(name) {
            true => self.size(name, HEAD_DIM_MAX),
            false if hidden.is_multiple_of(n_heads) && hidden / n_heads <= HEAD_DIM_MAX => {
                Ok(hidden / n_heads)
            }
            false => Err(self.value("attention.head_count", n_heads, format!("a divisor of {hidden}"))),
        };
        let tokens = self.tensor("token_embd.weight")?;
        let n_vocab = self.fits("token_embd.weight", tokens.n_rows(), WIDTH_MAX * 16)?;
        Ok(Sizes {
            hidden,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim_k: head_dim("attention.key_length")?,
            head_dim_v: head_dim("attention.value_length")?,
            ffn: self.size_of_all_layers("feed_forward_length", WIDTH_MAX, n_layers)?,
            n_context: self.size("context_length", CONTEXT_MAX)?,
            n_vocab,
        })
    }

    /// The full name of a key of this architecture.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.metadata().get(&self.key(name)).is_some()
    }

    pub(crate) fn value(&self, name: &str, found: impl ToString, expected: impl Into<String>) -> Error {
        Error::Value { key: self.key(name), found: found.to_string(), expected: expected.into() }
    }

    fn fits(&self, name: &str, found: u64, max: usize) -> Result<usize, Error> {
        match usize::try_from(found) {
            Ok(size) if (1..=max).contains(&size) => Ok(size),
            _ => Err(self.value(name, found, format!("1 to {max}"))),
        }
    }

    /// A count between 1 and `max`.
    pub(crate) fn size(&self, name: &str, max: usize) -> Result<usize, Error> {
        self.fits(name, self.files.metadata().u64(&self.key(name))?, max)
    }

    pub(crate) fn size_or(&self, name: &str, max: usize, default: usize) -> Result<usize, Error> {
        if self.has(name) { self.size(name, max) } else { Ok(default) }
    }

    /// A count that some files give once and some as a list with one value per layer.
    fn size_of_all_layers(&self, name: &str, max: usize, n_layers: usize) -> Result<usize, Error> {
        let values = self.files.metadata().u64s_or_scalar(&self.key(name))?;
        let first = values.first().copied().unwrap_or(0);
        let one_per_layer = values.len() == 1 || values.len() == n_layers;
        if !one_per_layer {
            return Err(self.value(
                name,
                format!("a list of {}", values.len()),
                format!("{n_layers} values"),
            ));
        }
        if values.iter().any(|&value| value != first) {
            return Err(Error::Unsupported {
                what: format!("a different `{}` in each layer", self.key(name)),
            });
        }
        self.fits(name, first, max)
    }

    /// A finite number.
    pub(crate) fn opt_f32(&self, name: &str) -> Result<Option<f32>, Error> {
        let value = self.files.metadata().opt_f32(&self.key(name))?;
        match value {
            Some(value) if !value.is_finite() => Err(self.value(name, value, "finite")),
            value => Ok(value),
        }
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, name: &str, default: Option<f32>) -> Result<f32, Error> {
        match (self.opt_f32(name)?, default) {
            (Some(value), _) if value > 0.0 => Ok(value),
            (Some(value), _) => Err(self.value(name, value, "above zero")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.value(name, "missing", "a number above zero")),
        }
    }

    /// A cap of scores or logits: absent and zero both mean none.
    pub(crate) fn softcap(&self, name: &str) -> Result<Option<f32>, Error> {
        match self.opt_f32(name)? {
            None => Ok(None),
            Some(0.0) => Ok(None),
            Some(cap) if cap > 0.0 => Ok(Some(cap)),
            Some(cap) => Err(self.value(name, cap, "zero or above")),
        }
    }

    /// The sliding window; absent and zero both mean that all positions are seen.
    pub(crate) fn window(&self) -> Result<Option<usize>, Error> {
        match self.files.metadata().opt_u32(&self.key("attention.sliding_window"))? {
            None | Some(0) => Ok(None),
            Some(window) => Ok(Some(window as usize)),
        }
    }

    pub(crate) fn opt_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        Ok(self.files.metadata().opt_bool(&self.key(name))?)
    }

    pub(crate) fn find(&self, name: &str) -> Option<(usize, &'a TensorInfo)> {
        self.files.tensor(name)
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&'a TensorInfo, Error> {
        self.find(name).map(|found| found.1).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }

    /// The matrix `name` with the shape `[rows, cols]`.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<MatrixRef, Error> {
        let (part, info) = self.find(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        let dims_after: u64 = info.dims.iter().skip(2).product();
        if info.row_len() != cols as u64 || info.n_rows() != rows as u64 || dims_after != 1 {
            return Err(shape_error(info, format!("[{cols}, {rows}]")));
        }
        if info.ty.row_bytes(cols).is_none() {
            return Err(shape_error(info, format!("rows of whole {} blocks", info.ty)));
        }
        if !is_weight_type(info.ty) {
            return Err(Error::Type { name: name.to_owned(), found: info.ty, expected: "a weight type" });
        }
        Ok(MatrixRef { name: name.to_owned(), ty: info.ty, part, offset: info.offset, rows, cols })
    }

    /// The vector `name` of `len` elements (of any number of dimensions).
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<VectorRef, Error> {
        let (part, info) = self.find(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
        if info.n_elements() != len as u64 {
            return Err(shape_error(info, format!("[{len}]")));
        }
        if !matches!(info.ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16) {
            return Err(Error::Type { name: name.to_owned(), found: info.ty, expected: "F32, F16 or BF16" });
        }
        Ok(VectorRef { name: name.to_owned(), ty: info.ty, part, offset: info.offset, len })
    }

    pub(crate) fn opt_vector(&self, name: &str, len: usize) -> Result<Option<VectorRef>, Error> {
        self.find(name).map(|_| self.vector(name, len)).transpose()
    }

    /// `{name}.weight` and, where the file has it, `{name}.bias`.
    pub(crate) fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.opt_vector(&format!("{name}.bias"), rows)?,
        })
    }

    /// An RMS norm with the weights `{name}.weight`.
    pub(crate) fn rms_norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        Ok(Norm {
            kind: NormKind::Rms,
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: None,
            eps: self.eps("attention.layer_norm_rms_epsilon")?,
        })
    }

    /// A layer norm with the weights `{name}.weight` and, where the file has it, `{name}.bias`.
    pub(crate) fn layer_norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        Ok(Norm {
            kind: NormKind::Layer,
            weight: self.vector(&format!("{name}.weight"), len)?,
            bias: self.opt_vector(&format!("{name}.bias"), len)?,
            eps: self.eps("attention.layer_norm_epsilon")?,
        })
    }

    fn eps(&self, name: &str) -> Result<f32, Error> {
        match self.opt_f32(name)? {
            Some(eps) if (0.0..=1.0).contains(&eps) => Ok(eps),
            Some(eps) => Err(self.value(name, eps, "0 to 1")),
            None => Err(self.value(name, "missing", "0 to 1")),
        }
    }

    /// The norm `name` of the given kind.
    pub(crate) fn norm(&self, kind: NormKind, name: &str, len: usize) -> Result<Norm, Error> {
        match kind {
            NormKind::Rms => self.rms_norm(name, len),
            NormKind::Layer => self.layer_norm(name, len),
        }
    }

    /// The usual layer: attention, then the feed-forward part, each behind its norm and added to its input.
    pub(crate) fn layer(
        &self,
        i: usize,
        kind: NormKind,
        attention: Attention,
        ffn: FeedForward,
    ) -> Result<Layer, Error> {
        Ok(Layer {
            mixer_norm: Some(self.norm(kind, &format!("blk.{i}.attn_norm"), self.sizes.hidden)?),
            mixer: Mixer::Attention(Box::new(attention)),
            mixer_post_norm: None,
            ffn_norm: Some(self.norm(kind, &format!("blk.{i}.ffn_norm"), self.sizes.hidden)?),
            ffn,
            ffn_post_norm: None,
            residual: Residual::Sequential,
            residual_scale: 1.0,
        })
    }

    /// The plan of a decoder whose embedding is not scaled and whose head is `output_norm` and the output matrix.
    pub(crate) fn decoder(
        &self,
        kind: NormKind,
        ropes: Vec<Rope>,
        layers: impl Iterator<Item = Result<Layer, Error>>,
    ) -> Result<Plan, Error> {
        Ok(Plan {
            architecture: self.architecture.to_owned(),
            n_vocab: self.sizes.n_vocab,
            hidden: self.sizes.hidden,
            n_context: self.sizes.n_context,
            embedding: self.embedding()?,
            ropes,
            layers: layers.collect::<Result<_, _>>()?,
            head: self.head(self.norm(kind, "output_norm", self.sizes.hidden)?)?,
        })
    }

    /// The token embedding, its rows taken as they are.
    fn embedding(&self) -> Result<Embedding, Error> {
        let tokens = self.matrix("token_embd.weight", self.sizes.n_vocab, self.sizes.hidden)?;
        Ok(Embedding { tokens, positions: None, scale: 1.0 })
    }

    /// The head: `norm`, then `output.weight`, or the token embedding where the file has no `output.weight`.
    fn head(&self, norm: Norm) -> Result<Head, Error> {
        let name = if self.find("output.weight").is_some() { "output" } else { "token_embd" };
        let output = Linear {
            weight: self.matrix(&format!("{name}.weight"), self.sizes.n_vocab, self.sizes.hidden)?,
            bias: self.opt_vector("output.bias", self.sizes.n_vocab)?,
        };
        Ok(Head { norm, output, scale: 1.0, softcap: None })
    }

    /// Attention with `attn_q`, `attn_k`, `attn_v` or the fused `attn_qkv`, and `attn_output`, all of `blk.{layer}`;
    /// scores are divided by the square root of the head's size.
    pub(crate) fn attention(&self, layer: usize) -> Result<Attention, Error> {
        let Sizes { hidden, n_heads, n_kv_heads, head_dim_k, head_dim_v, .. } = self.sizes;
        let (n_query, n_key, n_value) =
            (n_heads * head_dim_k, n_kv_heads * head_dim_k, n_kv_heads * head_dim_v);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let [query, key, value] = if self.find(&name("attn_qkv.weight")).is_some() {
            let fused = self.linear(&name("attn_qkv"), n_query + n_key + n_value, hidden)?;
            [(0, n_query), (n_query, n_key), (n_query + n_key, n_value)]
                .map(|(start, rows)| cut(&fused, start, rows))
        } else {
            [
                self.linear(&name("attn_q"), n_query, hidden)?,
                self.linear(&name("attn_k"), n_key, hidden)?,
                self.linear(&name("attn_v"), n_value, hidden)?,
            ]
        };
        Ok(Attention {
            n_heads,
            n_kv_heads,
            head_dim_k,
            head_dim_v,
            query,
            key,
            value,
            output: self.linear(&name("attn_output"), hidden, n_heads * head_dim_v)?,
            qk_norm: None,
            rope: Some(0),
            scale: 1.0 / (head_dim_k as f32).sqrt(),
            softcap: None,
            window: None,
            sinks: None,
        })
    }

    /// `attn_q_norm` and `attn_k_norm` of `blk.{layer}`: one RMS norm for each head.
    pub(crate) fn qk_norm_per_head(&self, layer: usize) -> Result<QkNorm, Error> {
        let len = self.sizes.head_dim_k;
        Ok(QkNorm::PerHead {
            query: self.rms_norm(&format!("blk.{layer}.attn_q_norm"), len)?,
            key: self.rms_norm(&format!("blk.{layer}.attn_k_norm"), len)?,
        })
    }

    /// A gated feed-forward part from `ffn_gate`, `ffn_up` and `ffn_down`, or from an `ffn_up` of twice the width that
    /// holds the gate first.
    pub(crate) fn gated(&self, layer: usize, activation: Activation) -> Result<FeedForward, Error> {
        let Sizes { hidden, ffn, .. } = self.sizes;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (gate, up) = if self.find(&name("ffn_gate.weight")).is_some() {
            (self.linear(&name("ffn_gate"), ffn, hidden)?, self.linear(&name("ffn_up"), ffn, hidden)?)
        } else {
            let fused = self.linear(&name("ffn_up"), 2 * ffn, hidden)?;
            (cut(&fused, 0, ffn), cut(&fused, ffn, ffn))
        };
        let down = self.linear(&name("ffn_down"), hidden, ffn)?;
        Ok(FeedForward::Gated(Box::new(Gated { gate, up, down, activation })))
    }

    /// A feed-forward part without a gate from `ffn_up` and `ffn_down`.
    pub(crate) fn plain(&self, layer: usize, activation: Activation) -> Result<FeedForward, Error> {
        let Sizes { hidden, ffn, .. } = self.sizes;
        Ok(FeedForward::Plain(Box::new(Plain {
            up: self.linear(&format!("blk.{layer}.ffn_up"), ffn, hidden)?,
            down: self.linear(&format!("blk.{layer}.ffn_down"), hidden, ffn)?,
            activation,
        })))
    }

    /// A mixture of experts, if the layer has a router.
    pub(crate) fn moe(
        &self,
        layer: usize,
        score: RouterScore,
        renormalise: bool,
    ) -> Result<Option<FeedForward>, Error> {
        let router = format!("blk.{layer}.ffn_gate_inp.weight");
        if self.find(&router).is_none() {
            return Ok(None);
        }
        let n_experts = self.size("expert_count", WIDTH_MAX)?;
        let n_experts_used = self.size("expert_used_count", n_experts)?;
        Ok(Some(FeedForward::Moe(Box::new(MoeConfig {
            n_experts,
            n_experts_used,
            router: self.matrix(&router, n_experts, self.sizes.hidden)?,
            score,
            renormalise,
            has_shared_expert: self.find(&format!("blk.{layer}.ffn_gate_shexp.weight")).is_some(),
        }))))
    }

    /// The rotary embedding that the metadata describe, with `rope.freq_base` as its base.
    pub(crate) fn rope(&self, style: RopeStyle) -> Result<Rope, Error> {
        let n_dims = self.size_or("rope.dimension_count", self.sizes.head_dim_k, self.sizes.head_dim_k)?;
        if !n_dims.is_multiple_of(2) {
            return Err(self.value("rope.dimension_count", n_dims, "even"));
        }
        let theta = f64::from(self.positive("rope.freq_base", Some(10_000.0))?);
        let (scaling, magnitude) = self.rope_scaling(n_dims)?;
        Ok(Rope { style, n_dims, theta, scaling, magnitude })
    }

    fn rope_scaling(&self, n_dims: usize) -> Result<(RopeScaling, f32), Error> {
        let attention_factor = self.positive("rope.scaling.attn_factor", Some(1.0))?;
        let n_pairs = n_dims / 2;
        if self.find("rope_factors_long.weight").is_some() || self.find("rope_factors_short.weight").is_some()
        {
            let scaling = RopeScaling::LongRope {
                short: self.vector("rope_factors_short.weight", n_pairs)?,
                long: self.vector("rope_factors_long.weight", n_pairs)?,
                original_context: self.size("rope.scaling.original_context_length", CONTEXT_MAX)?,
            };
            return Ok((scaling, attention_factor));
        }
        if let Some(factors) = self.opt_vector("rope_freqs.weight", n_pairs)? {
            return Ok((RopeScaling::Factors(factors), attention_factor));
        }
        let factor = f64::from(self.positive("rope.scaling.factor", Some(1.0))?);
        let kind = match self.has("rope.scaling.type") {
            true => self.files.metadata().str(&self.key("rope.scaling.type"))?,
            // Older files have `rope.scale_linear` alone, and mean linear scaling.
            false if self.has("rope.scale_linear") => "linear-old",
            false => "none",
        };
        let scaling = match kind {
            "none" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor },
            "linear-old" => {
                RopeScaling::Linear { factor: f64::from(self.positive("rope.scale_linear", Some(1.0))?) }
            }
            "yarn" => {
                let scaling = RopeScaling::Yarn {
                    factor,
                    original_context: self.size_or(
                        "rope.scaling.original_context_length",
                        CONTEXT_MAX,
                        self.sizes.n_context,
                    )?,
                    beta_fast: f64::from(self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?),
                    beta_slow: f64::from(self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?),
                    extrapolation: f64::from(self.opt_f32("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0)),
                };
                let magnitude = self.positive("rope.scaling.yarn_attn_factor", Some(attention_factor))?;
                return Ok((scaling, magnitude));
            }
            other => {
                let what =
                    format!("rotary scaling of the kind `{}`", other.chars().take(32).collect::<String>());
                return Err(Error::Unsupported { what });
            }
        };
        Ok((scaling, attention_factor))
    }
}

/// Rows of a fused matrix and the same stretch of its bias.
fn cut(fused: &Linear, start: usize, rows: usize) -> Linear {
    Linear {
        weight: fused.weight.slice_rows(start, rows),
        bias: fused.bias.as_ref().map(|bias| bias.slice(start, rows)),
    }
}

fn shape_error(info: &TensorInfo, expected: String) -> Error {
    Error::Shape { name: info.name.clone(), found: format!("{:?}", info.dims), expected }
}

fn is_weight_type(ty: GgmlType) -> bool {
    use GgmlType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    !matches!(ty, I8 | I16 | I32 | I64 | F64 | Q8_1 | Q8_K)
}
