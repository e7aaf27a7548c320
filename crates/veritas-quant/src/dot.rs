//! The products of one weight row with one activation row, in the canonical order: the oracle of every kernel.
//!
//! Each output element has one defined order of floating-point operations, and these functions are that
//! definition:
//!
//! - Quantised weights: blocks ascending; inside a span (see `Format::SPAN`) the
//!   sums are integers, hence exact; then `acc = fma(d · da, Σ scale · dot, acc)`, and for formats with minimums
//!   `acc = fma(−(d_min · da), Σ min · sum, acc)`. The conversion of a sum to f32 rounds to nearest even.
//! - F32 and F16 weights: sixteen interleaved chains of fused multiply-adds and a fold by halves.
//! - BF16 weights: the same over pairs, the odd element first, subnormal numbers flushed to zero before and after
//!   each step.
//!
//! Where an infinity or a NaN takes part the result is not a number, with unspecified bits.

use half::{bf16, f16};

use crate::activation::{ActivationRow, SUM_GROUP};
use crate::unpack::{Format, Unpacked, with_format};
use crate::{Error, GgmlType, dequantize_row};

/// Chains of the products with weights that are not quantised.
const LANES: usize = 16;

/// The product of a row of weights of type `ty` with a row of activations, in the canonical order.
///
/// # Panics
/// If `ty` has no product, the activations have another format than
/// [`ActivationFormat::for_weights`](crate::activation::ActivationFormat::for_weights) says, or their number is not
/// the number of weights in `row`.
pub fn dot_row(ty: GgmlType, row: &[u8], activations: &ActivationRow) -> f32 {
    let cols = match *activations {
        ActivationRow::F32(x) => x.len(),
        ActivationRow::Bf16(x) => x.len(),
        ActivationRow::Q8 { q, .. } => q.len(),
    };
    assert_eq!(ty.row_bytes(cols), Some(row.len()), "a row of {cols} weights of type {ty}");
    match (ty, *activations) {
        (GgmlType::F32, ActivationRow::F32(x)) => dot_f32(chunks(row).map(f32::from_le_bytes), x),
        (GgmlType::F16, ActivationRow::F32(x)) => {
            dot_f32(chunks(row).map(|b| f16::from_le_bytes(b).to_f32()), x)
        }
        (GgmlType::BF16, ActivationRow::Bf16(x)) => dot_bf16(row, x),
        (_, ActivationRow::Q8 { .. }) => with_format!(ty, dot_quantised(row, activations))
            .unwrap_or_else(|| panic!("{ty} has no product with quantised activations")),
        _ => panic!("{ty} has no product with activations of this format"),
    }
}

/// The product of the dequantised weights with activations in f32, by sixteen interleaved chains: what a product
/// would be if activations were not quantised.
///
/// # Errors
/// If `row` does not hold `x.len()` weights of type `ty`, or the type cannot be dequantised.
pub fn dot_row_dequantized(ty: GgmlType, row: &[u8], x: &[f32]) -> Result<f32, Error> {
    let mut weights = vec![0.0; x.len()];
    dequantize_row(ty, row, &mut weights)?;
    Ok(dot_f32(weights.into_iter(), x))
}

fn dot_quantised<F: Format>(row: &[u8], activations: &ActivationRow) -> f32 {
    let ActivationRow::Q8 { block: activation_block, q, scales, sums } = *activations else {
        panic!("{} multiplies quantised activations", F::TYPE)
    };
    assert!(activation_block.is_multiple_of(F::SPAN), "a span has one activation scale");
    let mut weights = Unpacked::default();
    let mut acc = 0.0f32;
    for (block, bytes) in row.chunks_exact(F::BYTES).enumerate() {
        F::unpack(bytes, &mut weights);
        for span in 0..F::LEN / F::SPAN {
            let (first, first_activation) = (span * F::SPAN, block * F::LEN + span * F::SPAN);
            let da = scales[first_activation / activation_block];
            let (mut dots, mut mins) = (0i32, 0i32);
            for i in (0..F::SPAN).step_by(SUM_GROUP) {
                let group = (first + i) / SUM_GROUP;
                let products =
                    weights.quants[first + i..][..SUM_GROUP].iter().zip(&q[first_activation + i..]);
                let dot: i32 = products.map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
                dots += i32::from(weights.scales[group]) * dot;
                if F::MINS {
                    mins +=
                        i32::from(weights.mins[group]) * i32::from(sums[(first_activation + i) / SUM_GROUP]);
                }
            }
            acc = (weights.d[span] * da).mul_add(dots as f32, acc);
            if F::MINS {
                acc = (-(weights.d_min * da)).mul_add(mins as f32, acc);
            }
        }
    }
    acc
}

/// Lane l takes the elements k ≡ l (mod 16) in ascending order.
fn dot_f32(weights: impl Iterator<Item = f32>, x: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    for (k, (w, x)) in weights.zip(x).enumerate() {
        acc[k % LANES] = w.mul_add(*x, acc[k % LANES]);
    }
    // The last, incomplete vector is padded with zeros, which turns a sum of −0 into +0.
    let n_padding = x.len().next_multiple_of(LANES) - x.len();
    for lane in &mut acc[LANES - n_padding..] {
        *lane = 0.0f32.mul_add(0.0, *lane);
    }
    fold(acc)
}

/// Lane l takes the pairs p ≡ l (mod 16) in ascending order; of a pair the odd element comes first.
fn dot_bf16(row: &[u8], x: &[u16]) -> f32 {
    let weight = |k: usize| match row.get(2 * k..2 * k + 2) {
        Some(bytes) => flushed(bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
        None => 0.0,
    };
    let activation = |k: usize| x.get(k).map_or(0.0, |&bits| flushed(bf16::from_bits(bits).to_f32()));
    let mut acc = [0.0f32; LANES];
    for pair in 0..x.len().next_multiple_of(2 * LANES) / 2 {
        let lane = &mut acc[pair % LANES];
        for k in [2 * pair + 1, 2 * pair] {
            *lane = flushed(weight(k).mul_add(activation(k), *lane));
        }
    }
    fold(acc)
}

/// A subnormal number becomes the zero of its sign.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Adds the upper half of the lanes to the lower, until one is left.
fn fold(mut acc: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            acc[i] += acc[i + half];
        }
    }
    acc[0]
}

fn chunks<const N: usize>(row: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    row.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests;
