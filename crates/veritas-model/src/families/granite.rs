//! Granite: Llama with four multipliers, for embeddings, scores, residuals and logits.

use crate::build::Builder;
use crate::error::Error;
use crate::families::llama;
use crate::plan::{Mixer, Plan};

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let mut plan = llama::build_llama(b)?;
    let residual_scale = b.positive("residual_scale", Some(1.0))?;
    let score_scale = b.opt_f32("attention.scale")?;
    for layer in &mut plan.layers {
        layer.residual_scale = residual_scale;
        if let (Mixer::Attention(attention), Some(scale)) = (&mut layer.mixer, score_scale) {
            attention.scale = scale;
        }
    }
    plan.embedding.scale = b.positive("embedding_scale", Some(1.0))?;
    plan.head.scale = 1.0 / b.positive("logit_scale", Some(1.0))?;
    Ok(plan)
}
