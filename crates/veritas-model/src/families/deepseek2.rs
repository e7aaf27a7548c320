//! DeepSeek-V2 and V3: latent attention, and experts in all but the first layers. The plan says so; no backend runs it
//! yet.

use crate::build::Builder;
use crate::error::Error;
use crate::limits::WIDTH_MAX;
use crate::plan::{Activation, LatentAttention, Layer, Mixer, NormKind, Plan, Residual, RouterScore};
use crate::rope::RopeStyle;

/// Value of `expert_gating_func` for a sigmoid router.
const GATING_SIGMOID: usize = 2;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let hidden = b.sizes.hidden;
    let score = match b.size_or("expert_gating_func", 8, 1)? {
        GATING_SIGMOID => RouterScore::Sigmoid,
        _ => RouterScore::Softmax,
    };
    let renormalise = b.opt_bool("expert_weights_norm")?.unwrap_or(false);
    let query_rank = match b.has("attention.q_lora_rank") {
        true => Some(b.size("attention.q_lora_rank", WIDTH_MAX)?),
        false => None,
    };
    let latent = LatentAttention {
        n_heads: b.sizes.n_heads,
        kv_rank: b.size("attention.kv_lora_rank", WIDTH_MAX)?,
        query_rank,
        rope_dims: b.size("rope.dimension_count", b.sizes.head_dim_k)?,
    };
    let layers = (0..b.sizes.n_layers).map(|i| {
        let ffn = match b.moe(i, score, renormalise)? {
            Some(moe) => moe,
            None => b.gated(i, Activation::Silu)?,
        };
        Ok(Layer {
            mixer_norm: Some(b.rms_norm(&format!("blk.{i}.attn_norm"), hidden)?),
            mixer: Mixer::Latent(latent.clone()),
            mixer_post_norm: None,
            ffn_norm: Some(b.rms_norm(&format!("blk.{i}.ffn_norm"), hidden)?),
            ffn,
            ffn_post_norm: None,
            residual: Residual::Sequential,
            residual_scale: 1.0,
        })
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Interleaved)?], layers)
}
