//! OLMo 2: norms after attention and feed-forward alone, and one norm over all query and key heads together.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, Layer, Mixer, NormKind, Plan, QkNorm, Residual};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let hidden = b.sizes.hidden;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        let (n_query, n_key) = (attention.query.weight.rows, attention.key.weight.rows);
        attention.qk_norm = Some(QkNorm::Whole {
            query: b.rms_norm(&format!("blk.{i}.attn_q_norm"), n_query)?,
            key: b.rms_norm(&format!("blk.{i}.attn_k_norm"), n_key)?,
        });
        Ok(Layer {
            mixer_norm: None,
            mixer: Mixer::Attention(Box::new(attention)),
            mixer_post_norm: Some(b.rms_norm(&format!("blk.{i}.post_attention_norm"), hidden)?),
            ffn_norm: None,
            ffn: b.gated(i, Activation::Silu)?,
            ffn_post_norm: Some(b.rms_norm(&format!("blk.{i}.post_ffw_norm"), hidden)?),
            residual: Residual::Sequential,
            residual_scale: 1.0,
        })
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Neox)?], layers)
}
