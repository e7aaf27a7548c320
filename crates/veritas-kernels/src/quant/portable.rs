//! The products without any instruction set's help: the definition of `veritas_quant::dot_row`, with each block of
//! weights unpacked once for all activation rows.

use veritas_quant::unpack::{Format, GROUP, Unpacked};

use crate::Activations;
use crate::tile::TileWriter;

/// Some weight rows of a format times all activation rows.
pub(super) fn rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    tile: &mut TileWriter<'_>,
) {
    let row_bytes = cols / F::LEN * F::BYTES;
    let mut weights = Unpacked::default();
    for r in 0..n_rows {
        for a in 0..acts.rows() {
            tile.set(a, r, 0.0);
        }
        for (block, bytes) in w[r * row_bytes..][..row_bytes].chunks_exact(F::BYTES).enumerate() {
            F::unpack(bytes, &mut weights);
            for a in 0..acts.rows() {
                let acc = &mut tile.row_mut(a)[r];
                *acc = add_block::<F>(&weights, acts, a, block, *acc);
            }
        }
    }
}

/// Adds the product of one block to `acc`, span by span.
fn add_block<F: Format>(weights: &Unpacked, acts: &Activations, a: usize, block: usize, mut acc: f32) -> f32 {
    let q = &acts.q_row(a)[block * F::LEN..][..F::LEN];
    let sums = &acts.sum_row(a)[block * F::LEN / GROUP..][..F::LEN / GROUP];
    let scales = acts.scale_row(a);
    // Activations per scale: 32, or 256 in formats that have a block of 256 and one factor for it.
    let scale_len = if F::SPAN == 256 { 256 } else { 32 };
    for (span, q) in q.chunks_exact(F::SPAN).enumerate() {
        let first = span * F::SPAN;
        let quants = &weights.quants[first..][..F::SPAN];
        let (mut dots, mut mins) = (0i32, 0i32);
        for (group, (quants, q)) in quants.chunks_exact(GROUP).zip(q.chunks_exact(GROUP)).enumerate() {
            let group = first / GROUP + group;
            let dot: i32 = quants.iter().zip(q).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
            dots += i32::from(weights.scales[group]) * dot;
            if F::MINS {
                mins += i32::from(weights.mins[group]) * i32::from(sums[group]);
            }
        }
        let da = scales[(block * F::LEN + first) / scale_len];
        acc = (weights.d[span] * da).mul_add(dots as f32, acc);
        if F::MINS {
            acc = (-(weights.d_min * da)).mul_add(mins as f32, acc);
        }
    }
    acc
}
