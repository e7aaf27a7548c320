//! The plan of a model: what is computed, in which order, with which tensors.

use std::fmt;

use veritas_quant::GgmlType;

use crate::rope::Rope;

/// A matrix in a file: `rows` rows of `cols` weights, `y = W x` with one output per row.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixRef {
    /// The tensor's name in the file.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// Which file of a split model holds it.
    pub part: usize,
    /// Place of the first row in that file, in bytes.
    pub offset: u64,
    /// Number of rows (outputs).
    pub rows: usize,
    /// Length of a row (inputs).
    pub cols: usize,
}

impl MatrixRef {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.ty.row_bytes(self.cols).expect("the reader checked that rows are whole blocks")
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.row_bytes() as u64 * self.rows as u64
    }

    /// The matrix of `rows` rows from `start` on: a part of a fused matrix, or of a tensor-parallel split.
    ///
    /// # Panics
    /// If the rows are not all there.
    pub fn slice_rows(&self, start: usize, rows: usize) -> Self {
        assert!(start + rows <= self.rows, "rows {start}+{rows} of {}", self.rows);
        Self { offset: self.offset + (start * self.row_bytes()) as u64, rows, ..self.clone() }
    }
}

/// A vector in a file (a bias, a norm's weights, rotary factors): F32, F16 or BF16.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorRef {
    /// The tensor's name in the file.
    pub name: String,
    /// Element type.
    pub ty: GgmlType,
    /// Which file of a split model holds it.
    pub part: usize,
    /// Place of the first element in that file, in bytes.
    pub offset: u64,
    /// Number of elements.
    pub len: usize,
}

impl VectorRef {
    /// The vector of `len` elements from `start` on.
    ///
    /// # Panics
    /// If the elements are not all there.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "elements {start}+{len} of {}", self.len);
        Self { offset: self.offset + (start * self.ty.block_bytes()) as u64, len, ..self.clone() }
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        (self.len * self.ty.block_bytes()) as u64
    }
}

/// `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The weights.
    pub weight: MatrixRef,
    /// The bias, one value per row.
    pub bias: Option<VectorRef>,
}

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps) * w`.
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps) * w + b`.
    Layer,
}

/// A normalisation over the last dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Which one.
    pub kind: NormKind,
    /// Weights.
    pub weight: VectorRef,
    /// Bias, of [`NormKind::Layer`] alone.
    pub bias: Option<VectorRef>,
    /// What is added to the variance.
    pub eps: f32,
}

/// How queries and keys are normalised before the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum QkNorm {
    /// Each head by itself, all with the same `[head_dim]` weights.
    PerHead {
        /// Norm of the queries.
        query: Norm,
        /// Norm of the keys.
        key: Norm,
    },
    /// Each head by itself, each with weights of its own: `[n_heads * head_dim]`.
    PerHeadDistinct {
        /// Norm of the queries.
        query: Norm,
        /// Norm of the keys.
        key: Norm,
    },
    /// All heads together as one vector.
    Whole {
        /// Norm of the queries.
        query: Norm,
        /// Norm of the keys.
        key: Norm,
    },
}

/// Softmax attention with grouped query heads.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Values of a query or key head.
    pub head_dim_k: usize,
    /// Values of a value head.
    pub head_dim_v: usize,
    /// `[n_heads * head_dim_k, hidden]`.
    pub query: Linear,
    /// `[n_kv_heads * head_dim_k, hidden]`.
    pub key: Linear,
    /// `[n_kv_heads * head_dim_v, hidden]`.
    pub value: Linear,
    /// `[hidden, n_heads * head_dim_v]`.
    pub output: Linear,
    /// Normalisation of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Which of [`Plan::ropes`] turns queries and keys; `None` where positions come otherwise or not at all.
    pub rope: Option<usize>,
    /// What scores are multiplied with.
    pub scale: f32,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A position sees itself and `window - 1` positions before it.
    pub window: Option<usize>,
    /// One logit per head that takes part in the softmax and has no value.
    pub sinks: Option<VectorRef>,
}

/// Multi-head latent attention: keys and values are kept as one compressed vector per position.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentAttention {
    /// Query heads.
    pub n_heads: usize,
    /// Rank of the compressed keys and values.
    pub kv_rank: usize,
    /// Rank of the compressed queries, if they are.
    pub query_rank: Option<usize>,
    /// Rotary values per head.
    pub rope_dims: usize,
}

/// The kind of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecurrentKind {
    /// Gated DeltaNet: a linear attention whose state is a matrix per head.
    GatedDeltaNet,
    /// Mamba: a selective state space with a causal convolution.
    Mamba,
}

/// A layer whose memory of the past is a state of fixed size.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Which one.
    pub kind: RecurrentKind,
    /// Bytes of the state of one sequence.
    pub state_bytes: u64,
}

/// What mixes information between positions.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention.
    Attention(Box<Attention>),
    /// Multi-head latent attention.
    Latent(LatentAttention),
    /// A recurrent layer.
    Recurrent(Recurrent),
}

/// The nonlinearity of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
}

/// `down(act(gate(x)) * up(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gated {
    /// The branch that the activation is applied to.
    pub gate: Linear,
    /// The branch that it is multiplied with.
    pub up: Linear,
    /// Back to the hidden width.
    pub down: Linear,
    /// The nonlinearity.
    pub activation: Activation,
}

/// `down(act(up(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// To the inner width.
    pub up: Linear,
    /// Back to the hidden width.
    pub down: Linear,
    /// The nonlinearity.
    pub activation: Activation,
}

/// How a router turns its logits into weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterScore {
    /// Softmax over all experts, then the best are taken.
    Softmax,
    /// A sigmoid for each expert.
    Sigmoid,
}

/// A mixture of experts: a router picks a few of many feed-forward layers for each token.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Experts of the layer.
    pub n_experts: usize,
    /// Experts that a token uses.
    pub n_experts_used: usize,
    /// The router, `[n_experts, hidden]`.
    pub router: MatrixRef,
    /// How its logits become weights.
    pub score: RouterScore,
    /// Whether the weights of the chosen experts are scaled to a sum of one.
    pub renormalise: bool,
    /// Whether an expert that every token uses stands beside them.
    pub has_shared_expert: bool,
}

/// What transforms each position by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// With a gate.
    Gated(Box<Gated>),
    /// Without a gate.
    Plain(Box<Plain>),
    /// A mixture of experts.
    Moe(Box<MoeConfig>),
}

/// How the two halves of a layer meet the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x += mixer(x)`, then `x += ffn(x)`.
    Sequential,
    /// `x += mixer(x) + ffn(x)`, both from the same `x`.
    Parallel,
}

/// One block of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Norm before the mixer.
    pub mixer_norm: Option<Norm>,
    /// The mixer.
    pub mixer: Mixer,
    /// Norm of the mixer's output, before it is added.
    pub mixer_post_norm: Option<Norm>,
    /// Norm before the feed-forward part. With [`Residual::Parallel`], `None` means that it shares the mixer's.
    pub ffn_norm: Option<Norm>,
    /// The feed-forward part.
    pub ffn: FeedForward,
    /// Norm of its output, before it is added.
    pub ffn_post_norm: Option<Norm>,
    /// How both are added.
    pub residual: Residual,
    /// What both outputs are multiplied with before they are added.
    pub residual_scale: f32,
}

/// From token ids to the first hidden state.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// `[n_vocab, hidden]`, one row per token.
    pub tokens: MatrixRef,
    /// `[n_positions, hidden]`, added to it.
    pub positions: Option<MatrixRef>,
    /// What the token's row is multiplied with.
    pub scale: f32,
}

/// From the last hidden state to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Norm of the hidden state.
    pub norm: Norm,
    /// `[n_vocab, hidden]`.
    pub output: Linear,
    /// What logits are multiplied with.
    pub scale: f32,
    /// `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
}

/// What a model computes, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `general.architecture`.
    pub architecture: String,
    /// Tokens of the vocabulary.
    pub n_vocab: usize,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Positions that the model was made for.
    pub n_context: usize,
    /// The embedding.
    pub embedding: Embedding,
    /// The distinct rotary embeddings; attention layers point into this list.
    pub ropes: Vec<Rope>,
    /// The blocks, in order.
    pub layers: Vec<Layer>,
    /// The head.
    pub head: Head,
}

/// Something that a plan asks of an engine beyond dense attention layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A mixture of experts.
    MixtureOfExperts {
        /// Experts of a layer.
        n_experts: usize,
        /// Experts that a token uses.
        n_experts_used: usize,
    },
    /// Multi-head latent attention.
    LatentAttention,
    /// A recurrent layer.
    Recurrent(RecurrentKind),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MixtureOfExperts { n_experts, n_experts_used } => {
                write!(f, "a mixture of experts ({n_experts} experts, {n_experts_used} per token)")
            }
            Self::LatentAttention => f.write_str("multi-head latent attention"),
            Self::Recurrent(RecurrentKind::GatedDeltaNet) => f.write_str("recurrent Gated DeltaNet layers"),
            Self::Recurrent(RecurrentKind::Mamba) => f.write_str("recurrent Mamba layers"),
        }
    }
}

impl Plan {
    /// What the plan asks of an engine beyond dense attention layers, each once, in the order of the layers.
    pub fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        for layer in &self.layers {
            let mixer = match &layer.mixer {
                Mixer::Attention(_) => None,
                Mixer::Latent(_) => Some(Need::LatentAttention),
                Mixer::Recurrent(recurrent) => Some(Need::Recurrent(recurrent.kind)),
            };
            let ffn = match &layer.ffn {
                FeedForward::Moe(moe) => Some(Need::MixtureOfExperts {
                    n_experts: moe.n_experts,
                    n_experts_used: moe.n_experts_used,
                }),
                FeedForward::Gated(_) | FeedForward::Plain(_) => None,
            };
            for need in [mixer, ffn].into_iter().flatten() {
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
        }
        needs
    }
}
