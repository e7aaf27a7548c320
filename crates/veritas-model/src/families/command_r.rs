//! Command R: attention and feed-forward side by side behind one layer norm without bias, scaled logits; Command R+ has
//! a layer norm on each query and key head besides.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, Layer, Mixer, NormKind, Plan, QkNorm, Residual};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let hidden = b.sizes.hidden;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        if b.find(&format!("blk.{i}.attn_q_norm.weight")).is_some() {
            let (n_query, n_key) = (attention.query.weight.rows, attention.key.weight.rows);
            attention.qk_norm = Some(QkNorm::PerHeadDistinct {
                query: b.layer_norm(&format!("blk.{i}.attn_q_norm"), n_query)?,
                key: b.layer_norm(&format!("blk.{i}.attn_k_norm"), n_key)?,
            });
        }
        Ok(Layer {
            mixer_norm: Some(b.layer_norm(&format!("blk.{i}.attn_norm"), hidden)?),
            mixer: Mixer::Attention(Box::new(attention)),
            mixer_post_norm: None,
            ffn_norm: None,
            ffn: b.gated(i, Activation::Silu)?,
            ffn_post_norm: None,
            residual: Residual::Parallel,
            residual_scale: 1.0,
        })
    });
    let mut plan = b.decoder(NormKind::Layer, vec![b.rope(RopeStyle::Interleaved)?], layers)?;
    plan.head.scale = b.positive("logit_scale", Some(1.0))?;
    Ok(plan)
}
