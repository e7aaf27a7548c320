//! The oracle against ggml's own numbers, against `dequantize_row`, and at the extremes of its integers.

use proptest::prelude::*;
use veritas_testkit::{Tensors, committed};

use super::*;
use crate::activation::{ActivationFormat, quantize_q8};
use crate::unpack::unpacker;

fn quantised_types() -> impl Iterator<Item = GgmlType> {
    GgmlType::all().filter(|&ty| unpacker(ty).is_some())
}

/// A row of activations in the format that products with `ty` want, and the numbers that it stands for.
struct Quantised {
    block: usize,
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i16>,
}

impl Quantised {
    fn new(ty: GgmlType, x: &[f32]) -> Self {
        let block = ActivationFormat::for_weights(ty).expect("the type has a product").block_len();
        let (mut q, mut scales, mut sums) =
            (vec![0; x.len()], vec![0.0; x.len() / block], vec![0; x.len() / SUM_GROUP]);
        quantize_q8(x, block, &mut q, &mut scales, &mut sums);
        Self { block, q, scales, sums }
    }

    fn row(&self) -> ActivationRow<'_> {
        ActivationRow::Q8 { block: self.block, q: &self.q, scales: &self.scales, sums: &self.sums }
    }

    fn value(&self, k: usize) -> f64 {
        f64::from(self.q[k]) * f64::from(self.scales[k / self.block])
    }
}

/// Name, type and the bytes of each tensor of `quants.gguf`. The tensors stand in the order of `report.json`, each
/// padded to 32 bytes, at the end of the file.
fn fixtures() -> Vec<(String, GgmlType, Vec<u8>)> {
    let report = std::fs::read(committed("quants/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let file = std::fs::read(committed("quants/quants.gguf")).unwrap();
    let sizes = report.as_object().unwrap().iter().map(|(name, entry)| {
        let number = |key: &str| usize::try_from(entry[key].as_u64().unwrap()).unwrap();
        (name.clone(), GgmlType::from_id(number("id") as u32).unwrap(), number("bytes"))
    });
    let sizes: Vec<_> = sizes.collect();
    let mut at = file.len() - sizes.iter().map(|(_, _, bytes)| bytes.next_multiple_of(32)).sum::<usize>();
    let mut tensors = vec![];
    for (name, ty, bytes) in sizes {
        tensors.push((name, ty, file[at..at + bytes].to_vec()));
        at += bytes.next_multiple_of(32);
    }
    tensors
}

#[test]
fn products_with_dequantised_weights_are_those_of_ggml() {
    let expected = Tensors::read(&committed("quants/expected.safetensors"));
    let x = &expected.tensor("activation").f32s;
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 27);
    for (name, ty, bytes) in &fixtures {
        let (dots, weights) =
            (expected.tensor(&format!("dot.{name}")), expected.tensor(&format!("dequant.{name}")));
        for (r, row) in bytes.chunks(bytes.len() / 4).enumerate() {
            let dot = f64::from(dot_row_dequantized(*ty, row, x).unwrap());
            let size: f64 = weights.row(r).iter().zip(x).map(|(w, x)| f64::from((w * x).abs())).sum();
            let error = (dot - dots.f64s[r]).abs();
            assert!(error <= 1e-6 * size && error <= 1e-4 * dots.f64s[r].abs(), "{name} row {r}: {error}");
        }
    }
}

#[test]
fn quantised_products_differ_from_those_of_ggml_by_the_rounding_of_the_activations_alone() {
    let expected = Tensors::read(&committed("quants/expected.safetensors"));
    let x = &expected.tensor("activation").f32s;
    for (name, ty, bytes) in fixtures().iter().filter(|(_, ty, _)| unpacker(*ty).is_some()) {
        let activations = Quantised::new(*ty, x);
        for (r, row) in bytes.chunks(bytes.len() / 4).enumerate() {
            let weights = expected.tensor(&format!("dequant.{name}")).row(r);
            let dot = f64::from(dot_row(*ty, row, &activations.row()));
            let terms = weights.iter().enumerate().map(|(k, w)| f64::from(*w) * activations.value(k));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            assert!((dot - sum).abs() <= 1e-5 * size, "{name} row {r}: {dot} instead of {sum}");
            // Each activation is off by half a step of its scale at most.
            let steps = weights.iter().enumerate().map(|(k, w)| {
                f64::from(w.abs()) * f64::from(activations.scales[k / activations.block]) * 0.5
            });
            let expected = expected.tensor(&format!("dot.{name}")).f64s[r];
            assert!(
                (dot - expected).abs() <= steps.sum::<f64>() * 1.001,
                "{name} row {r}: {dot}, {expected}"
            );
        }
    }
}

/// The largest magnitude of Σ scale · quant · activation that blocks of random bits and of equal bytes reach.
fn largest_sums(unpack: fn(&[u8], &mut Unpacked), block: &[u8], len: usize) -> (i64, i64) {
    let mut weights = Unpacked::default();
    unpack(block, &mut weights);
    let scaled = |k: usize| i64::from(weights.quants[k]) * i64::from(weights.scales[k / SUM_GROUP]);
    let dots = (0..len).map(|k| scaled(k).abs() * 127).sum();
    (dots, (0..len).map(|k| i64::from(weights.mins[k / SUM_GROUP]) * 127).sum())
}

#[test]
fn no_sum_of_integers_comes_near_the_limits_of_i32() {
    for ty in quantised_types() {
        let unpack = unpacker(ty).unwrap();
        for byte in 0..=255 {
            let (dots, mins) = largest_sums(unpack, &vec![byte; ty.block_bytes()], ty.block_len());
            assert!(dots <= 133_169_152 && mins <= 2_048_256, "{ty} {byte:#x}: {dots} {mins}");
        }
    }
}

#[test]
fn equal_extremes_everywhere_give_the_exact_sum() {
    // Q8_0: d = 1, weights −128; activations −127: one block gives 32 · 128 · 127.
    let block: Vec<u8> = [&[0x00, 0x3c][..], &[0x80; 32]].concat();
    let activations = Quantised::new(GgmlType::Q8_0, &[-127.0; 32]);
    assert_eq!(dot_row(GgmlType::Q8_0, &block, &activations.row()), 520_192.0);
    // Q6_K: codes 0 are −32, scales −128, d = 1.
    let mut block = vec![0; 210];
    block[192..208].fill(0x80);
    block[208..].copy_from_slice(&[0x00, 0x3c]);
    let activations = Quantised::new(GgmlType::Q6_K, &[127.0; 256]);
    assert_eq!(dot_row(GgmlType::Q6_K, &block, &activations.row()), 133_169_152.0);
}

#[test]
fn a_row_without_weights_gives_zero() {
    for ty in GgmlType::all() {
        let row = match ActivationFormat::for_weights(ty) {
            Some(ActivationFormat::F32) => ActivationRow::F32(&[]),
            Some(ActivationFormat::Bf16) => ActivationRow::Bf16(&[]),
            Some(format) => ActivationRow::Q8 { block: format.block_len(), q: &[], scales: &[], sums: &[] },
            None => continue,
        };
        assert_eq!(dot_row(ty, &[], &row).to_bits(), 0, "{ty}");
    }
}

#[test]
fn subnormal_numbers_count_as_zeros_in_bf16_products() {
    let row: Vec<u8> = [0x0001u16, 0x3f80].iter().flat_map(|bits| bits.to_le_bytes()).collect();
    assert_eq!(dot_row(GgmlType::BF16, &row, &ActivationRow::Bf16(&[0x7f00, 0x0001])), 0.0);
    assert_eq!(dot_row(GgmlType::BF16, &row, &ActivationRow::Bf16(&[0x7f00, 0x3f80])), 1.0);
}

proptest! {
    #[test]
    fn integers_times_factors_are_the_dequantised_weights(bytes in prop::collection::vec(any::<u8>(), 300)) {
        for ty in quantised_types() {
            let (len, block) = (ty.block_len(), &bytes[..ty.block_bytes()]);
            let mut weights = Unpacked::default();
            unpacker(ty).unwrap()(block, &mut weights);
            let mut expected = vec![0.0; len];
            dequantize_row(ty, block, &mut expected).unwrap();
            for (k, expected) in expected.iter().enumerate() {
                let span = if ty == GgmlType::NVFP4 { k / 16 } else { 0 };
                let scale = f64::from(weights.scales[k / SUM_GROUP]) * f64::from(weights.quants[k]);
                let scaled = f64::from(weights.d[span]) * scale;
                let with_mins = matches!(ty, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K);
                let min = if with_mins { f64::from(weights.d_min) * f64::from(weights.mins[k / SUM_GROUP]) } else { 0.0 };
                let value = scaled - min;
                let same = if expected.is_nan() { value.is_nan() } else {
                    (value as f32 == *expected) || (value - f64::from(*expected)).abs() <= 1.2e-7 * scaled.abs().max(min.abs())
                };
                prop_assert!(same, "{} weight {}: {} instead of {}", ty, k, value, expected);
            }
        }
    }

    #[test]
    fn products_of_random_blocks_are_close_to_those_in_f64(
        bytes in prop::collection::vec(any::<u8>(), 2 * 256), x in prop::collection::vec(-4f32..4.0, 512),
    ) {
        for ty in quantised_types() {
            let len = 2 * ty.block_len();
            let row = &bytes[..2 * ty.block_bytes()];
            let mut weights = vec![0.0; len];
            dequantize_row(ty, row, &mut weights).unwrap();
            let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            if !weights.iter().all(|w| w.is_finite()) || !(1e-30..=1e30).contains(&largest) {
                continue;
            }
            let activations = Quantised::new(ty, &x[..len]);
            let dot = f64::from(dot_row(ty, row, &activations.row()));
            // With minimums the two parts cancel, so the bound is on the size of the parts.
            let size: f64 = (0..len).map(|k| f64::from(largest) * activations.value(k).abs()).sum();
            let sum: f64 = weights.iter().enumerate().map(|(k, w)| f64::from(*w) * activations.value(k)).sum();
            prop_assert!((dot - sum).abs() <= 1e-5 * size, "{}: {} instead of {}", ty, dot, sum);
        }
    }
}
