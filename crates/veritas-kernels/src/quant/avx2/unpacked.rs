//! One activation row against the formats with grids: each block is unpacked to memory.

use std::arch::x86_64::*;

use veritas_quant::unpack::{Format, Unpacked};

use super::{add_lanes, q32, signed_pairs};
use crate::Activations;
use crate::tile::TileWriter;

/// Weight rows one after the other, against each activation row.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::quant) fn rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = cols / F::LEN * F::BYTES;
    for a in 0..acts.rows() {
        let (q, scales) = (acts.q_row(a), acts.scale_row(a));
        for r in 0..n_rows {
            out.set(a, r, product::<F>(&w[r * row_bytes..][..row_bytes], q, scales));
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn product<F: Format>(row: &[u8], q: &[i8], scales: &[f32]) -> f32 {
    const { assert!(F::SPAN == 256 && F::SCALED && !F::MINS) };
    let mut weights = Unpacked::default();
    let mut acc = 0.0f32;
    for (block, (bytes, da)) in row.chunks_exact(F::BYTES).zip(scales).enumerate() {
        F::unpack(bytes, &mut weights);
        let q = &q[block * F::LEN..][..F::LEN];
        let mut partial = _mm256_setzero_si256();
        for sub in 0..F::LEN / 32 {
            let pairs = signed_pairs(q32(&weights.quants, 32 * sub), q32(q, 32 * sub));
            let scale = |group: usize| _mm_set1_epi16(weights.scales[group]);
            let scales = _mm256_set_m128i(scale(2 * sub + 1), scale(2 * sub));
            partial = _mm256_add_epi32(partial, _mm256_madd_epi16(pairs, scales));
        }
        acc = (weights.d[0] * da).mul_add(add_lanes(partial) as f32, acc);
    }
    acc
}
