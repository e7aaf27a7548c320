//! Activations as the products want them: which format goes with which weights, and how a row is quantised.
//!
//! A quantised product multiplies integers, so its activations become integers too: one f32 scale per block of
//! 32 or 256, values of −127 to 127. A row is quantised alone, so what it becomes never depends on the other
//! rows of a batch. Weights in F32 and F16 take the activations as they are, weights in BF16 take them rounded
//! to BF16.

use half::bf16;

use crate::GgmlType;

/// Consecutive activations whose quantised values share one entry of the sums.
pub const SUM_GROUP: usize = 16;

/// Added to a value of at most 2²² and taken away again, it rounds to the nearest integer, ties to even: at
/// 1.5 · 2²³ the distance of neighbouring f32 is one.
const ROUNDER: f32 = 12_582_912.0;

/// How the activations of a product are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationFormat {
    /// As computed.
    F32,
    /// Rounded to BF16, ties to even.
    Bf16,
    /// Eight-bit integers with one f32 scale per block of 32.
    Q8Block32,
    /// Eight-bit integers with one f32 scale per block of 256.
    Q8Block256,
}

impl ActivationFormat {
    /// The format that products with weights of type `ty` use, or `None` if there is no product for the type.
    pub fn for_weights(ty: GgmlType) -> Option<Self> {
        use GgmlType::*;
        match ty {
            F32 | F16 => Some(Self::F32),
            BF16 => Some(Self::Bf16),
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL | MXFP4 | NVFP4 | Q1_0 | Q2_0 => Some(Self::Q8Block32),
            Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S
            | IQ1_S | IQ1_M | TQ1_0 | TQ2_0 => Some(Self::Q8Block256),
            Q8_1 | Q8_K | I8 | I16 | I32 | I64 | F64 => None,
        }
    }

    /// Activations that share one scale; 1 for the formats without scales.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 => 1,
            Self::Q8Block32 => 32,
            Self::Q8Block256 => 256,
        }
    }
}

/// One row of activations in one of the formats.
#[derive(Clone, Copy, Debug)]
pub enum ActivationRow<'a> {
    /// For weights in F32 and F16.
    F32(&'a [f32]),
    /// For weights in BF16: the bits of BF16 numbers.
    Bf16(&'a [u16]),
    /// For quantised weights, as [`quantize_q8`] writes it.
    Q8 {
        /// Activations that share one scale: 32 or 256.
        block: usize,
        /// The integers, −127 to 127.
        q: &'a [i8],
        /// One scale per block.
        scales: &'a [f32],
        /// Sums of the integers, one per group of 16.
        sums: &'a [i16],
    },
}

/// Quantises a row of activations to eight bits.
///
/// Per block of `block` values: `scale = max|x| / 127`, `q = x · (127 / max|x|)` rounded to nearest, ties to
/// even, and at most 127 in magnitude; each group of 16 gets the sum of its `q`. A block whose largest magnitude
/// is so small that `127 / max|x|` is infinite becomes zeros with the scale 0. A block that holds an infinity or
/// a NaN becomes zeros with the scale NaN, so that the products say that something went wrong.
///
/// # Panics
/// If `block` is no multiple of 16, or the lengths do not fit: `x.len()` a multiple of `block`, `q` as long as
/// `x`, one scale per block, one sum per 16.
pub fn quantize_q8(x: &[f32], block: usize, q: &mut [i8], scales: &mut [f32], sums: &mut [i16]) {
    assert!(block > 0 && block.is_multiple_of(SUM_GROUP), "a block of {block} is no multiple of {SUM_GROUP}");
    assert!(x.len().is_multiple_of(block), "{} values are no whole number of blocks of {block}", x.len());
    assert_eq!(q.len(), x.len(), "one integer per value");
    assert_eq!(scales.len(), x.len() / block, "one scale per block");
    assert_eq!(sums.len(), x.len() / SUM_GROUP, "one sum per group");
    for ((x, q), scale) in x.chunks_exact(block).zip(q.chunks_exact_mut(block)).zip(scales) {
        *scale = quantize_block(x, q);
    }
    for (q, sum) in q.chunks_exact(SUM_GROUP).zip(sums) {
        *sum = q.iter().map(|&q| i16::from(q)).sum();
    }
}

/// Quantises one block and returns its scale.
#[inline]
fn quantize_block(x: &[f32], q: &mut [i8]) -> f32 {
    // The bits of non-negative floats order like the numbers, with infinity and then the NaNs at the top.
    let largest = x.iter().map(|x| x.to_bits() & 0x7fff_ffff).fold(0, u32::max);
    let largest = f32::from_bits(largest);
    let inverse = 127.0 / largest;
    if !largest.is_finite() || !inverse.is_finite() {
        q.fill(0);
        return if largest.is_finite() { 0.0 } else { f32::NAN };
    }
    for (x, q) in x.iter().zip(q) {
        // The low bits of the sum hold the integer, offset by the bits of the rounder itself.
        let shifted = (x * inverse + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32;
        *q = shifted.clamp(-127, 127) as i8;
    }
    largest / 127.0
}

/// Rounds activations to BF16, ties to even; the numbers are given as their bits.
///
/// # Panics
/// If the lengths differ.
pub fn round_to_bf16(x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len(), "one output per value");
    for (x, out) in x.iter().zip(out) {
        *out = bf16::from_f32(*x).to_bits();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantize(x: &[f32], block: usize) -> (Vec<i8>, Vec<f32>, Vec<i16>) {
        let (mut q, mut scales, mut sums) =
            (vec![99; x.len()], vec![9.0; x.len() / block], vec![9; x.len() / SUM_GROUP]);
        quantize_q8(x, block, &mut q, &mut scales, &mut sums);
        (q, scales, sums)
    }

    #[test]
    fn every_type_has_a_product_except_integers_f64_and_the_internal_formats() {
        for ty in GgmlType::all() {
            let block = ActivationFormat::for_weights(ty).map(ActivationFormat::block_len);
            match ty.block_len() {
                256 if ty != GgmlType::Q8_K => assert_eq!(block, Some(256), "{ty}"),
                32..=128 if ty != GgmlType::Q8_1 => assert_eq!(block, Some(32), "{ty}"),
                _ => assert!(block.is_none_or(|len| len == 1), "{ty}"),
            }
        }
    }

    #[test]
    fn a_block_of_zeros_or_of_almost_nothing_has_the_scale_zero() {
        for value in [0.0, -0.0, 1e-40, f32::from_bits(1)] {
            let (q, scales, sums) = quantize(&[value; 32], 32);
            assert_eq!((q, scales, sums), (vec![0; 32], vec![0.0], vec![0; 2]));
        }
    }

    #[test]
    fn infinities_and_nans_poison_their_block_and_no_other() {
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            let mut x = [1.0; 64];
            x[7] = value;
            let (q, scales, _) = quantize(&x, 32);
            assert!(scales[0].is_nan() && q[..32] == [0; 32]);
            assert!(scales[1] == 1.0 / 127.0 && q[32..] == [127; 32]);
        }
    }

    #[test]
    fn ties_go_to_the_even_integer() {
        let mut x = [0.0; 32];
        x[..8].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -126.5]);
        let (q, scales, sums) = quantize(&x, 32);
        assert_eq!(q[..8], [127, 0, 2, 2, 0, -2, -2, -126]);
        assert_eq!((scales[0], sums[0]), (1.0, 1));
    }

    proptest! {
        #[test]
        fn quantisation_is_the_definition_with_the_rounding_of_the_standard_library(
            x in prop::collection::vec(-1e3f32..1e3, 256), power in -110i32..110, wide in any::<bool>(),
        ) {
            let block = if wide { 256 } else { 32 };
            let x: Vec<f32> = x.iter().map(|x| x * 2f32.powi(power)).collect();
            let (q, scales, sums) = quantize(&x, block);
            for (b, x) in x.chunks(block).enumerate() {
                let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                prop_assert_eq!(scales[b], largest / 127.0);
                for (i, x) in x.iter().enumerate() {
                    let expected = (x * (127.0 / largest)).round_ties_even().clamp(-127.0, 127.0);
                    prop_assert_eq!(f32::from(q[b * block + i]), expected);
                }
            }
            for (group, sum) in q.chunks(SUM_GROUP).zip(sums) {
                prop_assert_eq!(group.iter().map(|&q| i32::from(q)).sum::<i32>(), i32::from(sum));
            }
        }
    }
}
