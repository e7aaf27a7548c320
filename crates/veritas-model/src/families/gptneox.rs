//! GPT-NeoX and Pythia: attention and feed-forward side by side, each behind its own layer norm, rotary pairs on a part
//! of each head. A file may ask for the two in sequence instead.

use crate::build::Builder;
use crate::error::Error;
use crate::plan::{Activation, Layer, NormKind, Plan, Residual};
use crate::rope::RopeStyle;

pub(crate) fn build(b: &Builder<'_>) -> Result<Plan, Error> {
    let residual = match b.opt_bool("use_parallel_residual")?.unwrap_or(true) {
        true => Residual::Parallel,
        false => Residual::Sequential,
    };
    let layers = (0..b.sizes.n_layers).map(|i| {
        let ffn = b.plain(i, Activation::GeluErf)?;
        Ok(Layer { residual, ..b.layer(i, NormKind::Layer, b.attention(i)?, ffn)? })
    });
    b.decoder(NormKind::Layer, vec![b.rope(RopeStyle::Neox)?], layers)
}
