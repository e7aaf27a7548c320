//! GLM-4: four norms a layer, rotary pairs on half of each head, fused gate and up.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, Layer, NormKind, Plan};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let hidden = b.sizes.hidden;
    let layers = (0..b.sizes.n_layers).map(|i| {
        let post_norm = |part: &str| b.rms_norm(&format!("blk.{i}.{part}"), hidden).map(Some);
        let ffn = b.gated(i, Activation::Silu)?;
        Ok(Layer {
            mixer_post_norm: post_norm("post_attention_norm")?,
            ffn_post_norm: post_norm("post_ffw_norm")?,
            ..b.layer(i, NormKind::Rms, b.attention(i)?, ffn)?
        })
    });
    b.decoder(NormKind::Rms, vec![b.rope(RopeStyle::Interleaved)?], layers)
}
