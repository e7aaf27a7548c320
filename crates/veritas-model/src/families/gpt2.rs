//! GPT-2: learned positions, layer norms, a fused matrix for query, key and value, a plain feed-forward part with GELU.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, NormKind, Plan};

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let layers = (0..b.sizes.n_layers).map(|i| {
        let mut attention = b.attention(i)?;
        attention.rope = None;
        b.layer(i, NormKind::Layer, attention, b.plain(i, Activation::GeluTanh)?)
    });
    let mut plan = b.decoder(NormKind::Layer, Vec::new(), layers)?;
    plan.embedding.positions = Some(b.matrix("position_embd.weight", b.sizes.n_context, b.sizes.hidden)?);
    Ok(plan)
}
