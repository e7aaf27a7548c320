//! F32 rows to block formats, with the smallest squared error that a bounded search finds.
//!
//! # The idea
//! A group of weights that shares a scale is `x ≈ scale · value(code) (− min)`. For a given scale the best codes
//! are the nearest ones; for given codes the best scale is a least-squares solution. Alternating the two ends in
//! a local minimum, so the search starts from many scales and keeps the best end ([`group`]). Formats whose
//! scales are themselves integers times one number of the super-block choose that number the same way: try
//! several, choose each group's integer by the true error, solve for the number, repeat ([`symmetric`],
//! [`affine`]). Every comparison uses the scale as it will be read back, after its rounding to half precision.
//!
//! With importances the error of each weight counts times its importance; without, all weights count the same.
//!
//! # What it does not do
//! It does not reproduce the bytes of llama.cpp's quantiser: the format is defined by its decoder, and a smaller
//! error is better.

mod affine;
mod group;
mod small;
mod symmetric;

use crate::dequantize::check_row;
use crate::limits::MAX_WEIGHT;
use crate::{Error, GgmlType};

/// Converts one row of F32 to `ty`: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS
/// or MXFP4.
///
/// `importance` weighs the squared error of each weight of the row; only ratios matter. `out` takes the whole
/// blocks in file order.
///
/// # Errors
/// [`Error::RowLength`] or [`Error::RowBytes`] if `x.len()` weights of `ty` do not take `out.len()` bytes;
/// [`Error::NotQuantizable`] for other types; [`Error::NotFinite`] and [`Error::TooLarge`] for weights that no
/// block can hold (an F32 row is copied as it is); [`Error::ImportanceLength`] and [`Error::Importance`] for
/// importances that do not fit the row or are negative or not finite.
pub fn quantize_row(
    ty: GgmlType,
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), Error> {
    check_row(ty, x.len(), out.len())?;
    if !is_quantizable(ty) {
        return Err(Error::NotQuantizable { ty });
    }
    check_weights(ty, x)?;
    let weights = error_weights(x.len(), importance)?;
    match ty {
        GgmlType::F16 => {
            for (out, &x) in out.as_chunks_mut().0.iter_mut().zip(x) {
                *out = half::f16::from_f32(x).to_le_bytes();
            }
        }
        GgmlType::BF16 => {
            for (out, &x) in out.as_chunks_mut().0.iter_mut().zip(x) {
                *out = half::bf16::from_f32(x).to_le_bytes();
            }
        }
        GgmlType::Q4_0 => blocks(x, &weights, out, small::q4_0),
        GgmlType::Q4_1 => blocks(x, &weights, out, small::q4_1),
        GgmlType::Q5_0 => blocks(x, &weights, out, small::q5_0),
        GgmlType::Q5_1 => blocks(x, &weights, out, small::q5_1),
        GgmlType::Q8_0 => blocks(x, &weights, out, small::q8_0),
        GgmlType::IQ4_NL => blocks(x, &weights, out, small::iq4_nl),
        GgmlType::MXFP4 => blocks(x, &weights, out, small::mxfp4),
        GgmlType::Q2_K => blocks(x, &weights, out, affine::q2_k),
        GgmlType::Q4_K => blocks(x, &weights, out, affine::q4_k),
        GgmlType::Q5_K => blocks(x, &weights, out, affine::q5_k),
        GgmlType::Q3_K => blocks(x, &weights, out, symmetric::q3_k),
        GgmlType::Q6_K => blocks(x, &weights, out, symmetric::q6_k),
        GgmlType::IQ4_XS => blocks(x, &weights, out, symmetric::iq4_xs),
        // F32, by the check above.
        _ => {
            for (out, x) in out.as_chunks_mut().0.iter_mut().zip(x) {
                *out = x.to_le_bytes();
            }
        }
    }
    Ok(())
}

/// Whether [`quantize_row`] writes this type.
pub fn is_quantizable(ty: GgmlType) -> bool {
    use GgmlType::*;
    matches!(
        ty,
        F32 | F16
            | BF16
            | Q8_0
            | Q4_0
            | Q4_1
            | Q5_0
            | Q5_1
            | Q2_K
            | Q3_K
            | Q4_K
            | Q5_K
            | Q6_K
            | IQ4_NL
            | IQ4_XS
            | MXFP4
    )
}

fn check_weights(ty: GgmlType, x: &[f32]) -> Result<(), Error> {
    let limit = match ty {
        GgmlType::F32 => return Ok(()),
        GgmlType::BF16 => half::bf16::MAX.to_f32(),
        _ => MAX_WEIGHT,
    };
    match x.iter().position(|x| x.is_nan() || x.abs() > limit) {
        None => Ok(()),
        Some(index) if x[index].is_finite() => Err(Error::TooLarge { ty, index, value: x[index], limit }),
        Some(index) => Err(Error::NotFinite { ty, index, value: x[index] }),
    }
}

/// The weight of each squared error, 1 on average.
///
/// A weight without importance still counts a millionth of the average: its value should be as good as the
/// others allow, and a group of such weights must not lose its scale.
fn error_weights(len: usize, importance: Option<&[f32]>) -> Result<Vec<f32>, Error> {
    let Some(importance) = importance else {
        return Ok(vec![1.0; len]);
    };
    if importance.len() != len {
        return Err(Error::ImportanceLength { expected: len, found: importance.len() });
    }
    if let Some(index) = importance.iter().position(|w| !(0.0..f32::INFINITY).contains(w)) {
        return Err(Error::Importance { index, value: importance[index] });
    }
    let mean = importance.iter().map(|&w| f64::from(w)).sum::<f64>() / len.max(1) as f64;
    if mean == 0.0 {
        return Ok(vec![1.0; len]);
    }
    Ok(importance.iter().map(|&w| (f64::from(w) / mean).max(1e-6) as f32).collect())
}

/// Calls `encode` for each block; the caller has checked that the lengths agree.
fn blocks<const N: usize, const B: usize>(
    x: &[f32],
    weights: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; N], &[f32; N], &mut [u8; B]),
) {
    let inputs = x.as_chunks().0.iter().zip(weights.as_chunks().0);
    for ((x, weights), out) in inputs.zip(out.as_chunks_mut().0) {
        encode(x, weights, out);
    }
}

/// The nearest half-precision number.
fn to_f16(value: f32) -> half::f16 {
    half::f16::from_f32(value)
}
