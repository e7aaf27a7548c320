//! Rows of every weight format as F32: what the bits of a format mean.
//!
//! The results are those of ggml bit for bit. In all formats the product of scale, sub-scale and value has
//! fewer than 24 significant bits, so it is exact in any order; only the final subtraction of a minimum
//! rounds, and there is one way to round it.

mod iq;
mod k;
mod small;
mod ternary;

pub(crate) use small::half_power_of_two;

use crate::{Error, GgmlType};

/// Converts one row of `ty` to F32.
///
/// `bytes` holds whole blocks in file order; `out` takes one value a weight.
///
/// # Errors
/// [`Error::RowLength`] or [`Error::RowBytes`] if `out.len()` weights of `ty` do not take `bytes.len()` bytes;
/// [`Error::NotDequantizable`] for integer types and for the activation formats Q8_1 and Q8_K.
pub fn dequantize_row(ty: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
    check_row(ty, out.len(), bytes.len())?;
    match ty {
        GgmlType::F32 => blocks(bytes, out, |b: &[u8; 4], y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b)),
        // The narrowing is the only rounding of this function besides the minimums of the block types.
        GgmlType::F64 => {
            blocks(bytes, out, |b: &[u8; 8], y: &mut [f32; 1]| y[0] = f64::from_le_bytes(*b) as f32);
        }
        GgmlType::F16 => blocks(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = f16(*b)),
        GgmlType::BF16 => blocks(bytes, out, |b: &[u8; 2], y: &mut [f32; 1]| {
            y[0] = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }),
        GgmlType::Q4_0 => blocks(bytes, out, small::q4_0),
        GgmlType::Q4_1 => blocks(bytes, out, small::q4_1),
        GgmlType::Q5_0 => blocks(bytes, out, small::q5_0),
        GgmlType::Q5_1 => blocks(bytes, out, small::q5_1),
        GgmlType::Q8_0 => blocks(bytes, out, small::q8_0),
        GgmlType::IQ4_NL => blocks(bytes, out, small::iq4_nl),
        GgmlType::MXFP4 => blocks(bytes, out, small::mxfp4),
        GgmlType::NVFP4 => blocks(bytes, out, small::nvfp4),
        GgmlType::Q1_0 => blocks(bytes, out, small::q1_0),
        GgmlType::Q2_0 => blocks(bytes, out, small::q2_0),
        GgmlType::Q2_K => blocks(bytes, out, k::q2_k),
        GgmlType::Q3_K => blocks(bytes, out, k::q3_k),
        GgmlType::Q4_K => blocks(bytes, out, k::q4_k),
        GgmlType::Q5_K => blocks(bytes, out, k::q5_k),
        GgmlType::Q6_K => blocks(bytes, out, k::q6_k),
        GgmlType::IQ4_XS => blocks(bytes, out, iq::iq4_xs),
        GgmlType::IQ2_XXS => blocks(bytes, out, iq::iq2_xxs),
        GgmlType::IQ2_XS => blocks(bytes, out, iq::iq2_xs),
        GgmlType::IQ2_S => blocks(bytes, out, iq::iq2_s),
        GgmlType::IQ3_XXS => blocks(bytes, out, iq::iq3_xxs),
        GgmlType::IQ3_S => blocks(bytes, out, iq::iq3_s),
        GgmlType::IQ1_S => blocks(bytes, out, iq::iq1_s),
        GgmlType::IQ1_M => blocks(bytes, out, iq::iq1_m),
        GgmlType::TQ1_0 => blocks(bytes, out, ternary::tq1_0),
        GgmlType::TQ2_0 => blocks(bytes, out, ternary::tq2_0),
        GgmlType::Q8_1 | GgmlType::Q8_K | GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64 => {
            return Err(Error::NotDequantizable { ty });
        }
    }
    Ok(())
}

/// Checks that a row of `weights` weights of `ty` takes `found` bytes.
pub(crate) fn check_row(ty: GgmlType, weights: usize, found: usize) -> Result<(), Error> {
    let Some(expected) = ty.row_bytes(weights) else {
        return Err(Error::RowLength { ty, block_len: ty.block_len(), found: weights });
    };
    if expected != found {
        return Err(Error::RowBytes { ty, weights, expected, found });
    }
    Ok(())
}

/// Calls `decode` for each block; the caller has checked that the lengths agree.
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, y);
    }
}

/// A half-precision number, little-endian, as F32: exact.
fn f16(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}

/// The half-precision number that begins at `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16([block[at], block[at + 1]])
}

/// The 16-bit number that begins at `at`.
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The 32-bit number that begins at `at`.
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_not_whole_blocks_is_an_error() {
        let error = dequantize_row(GgmlType::Q4_0, &[0; 18], &mut [0.0; 31]);
        assert_eq!(error, Err(Error::RowLength { ty: GgmlType::Q4_0, block_len: 32, found: 31 }));
    }

    #[test]
    fn a_row_with_missing_bytes_is_an_error() {
        let error = dequantize_row(GgmlType::Q4_0, &[0; 17], &mut [0.0; 32]);
        assert_eq!(error, Err(Error::RowBytes { ty: GgmlType::Q4_0, weights: 32, expected: 18, found: 17 }));
    }

    #[test]
    fn every_type_either_converts_or_says_that_it_cannot() {
        for ty in GgmlType::all() {
            let (bytes, mut out) = (vec![0x3a; ty.block_bytes()], vec![0.0; ty.block_len()]);
            match dequantize_row(ty, &bytes, &mut out) {
                Ok(()) => assert!(out.iter().all(|y| y.is_finite()), "{ty}"),
                Err(error) => assert_eq!(error, Error::NotDequantizable { ty }),
            }
        }
    }

    #[test]
    fn the_empty_row_is_a_row() {
        assert_eq!(dequantize_row(GgmlType::Q6_K, &[], &mut []), Ok(()));
    }
}
