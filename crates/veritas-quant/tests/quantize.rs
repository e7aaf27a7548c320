//! The quantiser against the decoder: what comes back is close, finite, and exact where the format allows it.

mod support;

use proptest::prelude::*;
use veritas_quant::{Error, GgmlType, dequantize_row, is_quantizable, limits::MAX_WEIGHT, quantize_row};
use veritas_testkit::committed;

/// The block formats with the largest relative error (root of the mean squares) that normally distributed
/// weights may suffer.
const BLOCK_FORMATS: [(GgmlType, f64); 13] = [
    (GgmlType::Q8_0, 0.0055),
    (GgmlType::Q4_0, 0.088),
    (GgmlType::Q4_1, 0.075),
    (GgmlType::Q5_0, 0.045),
    (GgmlType::Q5_1, 0.039),
    (GgmlType::Q2_K, 0.29),
    (GgmlType::Q3_K, 0.17),
    (GgmlType::Q4_K, 0.078),
    (GgmlType::Q5_K, 0.040),
    (GgmlType::Q6_K, 0.021),
    (GgmlType::IQ4_NL, 0.082),
    (GgmlType::IQ4_XS, 0.083),
    (GgmlType::MXFP4, 0.13),
];

fn through(ty: GgmlType, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let mut bytes = vec![0; ty.row_bytes(x.len()).expect("whole blocks")];
    quantize_row(ty, x, importance, &mut bytes).expect("weights that can be quantised");
    let mut y = vec![0.0; x.len()];
    dequantize_row(ty, &bytes, &mut y).expect("the bytes of a row");
    y
}

fn squared_error(x: &[f32], y: &[f32], weights: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .zip(weights)
        .map(|((&x, &y), &w)| f64::from(w) * (f64::from(x) - f64::from(y)).powi(2))
        .sum()
}

/// Normally distributed numbers, the same in every run.
fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f64>() - 6.0) as f32).collect()
}

#[test]
fn normally_distributed_weights_come_back_within_the_error_of_the_format() {
    for scale in [1.0, 0.02, 30.0] {
        let x: Vec<f32> = normal(7, 4096).iter().map(|x| x * scale).collect();
        let energy = squared_error(&x, &vec![0.0; x.len()], &vec![1.0; x.len()]);
        for (ty, bound) in BLOCK_FORMATS {
            let error = (squared_error(&x, &through(ty, &x, None), &vec![1.0; x.len()]) / energy).sqrt();
            assert!(error <= bound, "{ty}: {error:.4} at scale {scale}");
        }
    }
}

#[test]
fn every_type_that_can_be_written_is_tested_here() {
    let plain = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];
    for ty in GgmlType::all() {
        let tested = plain.contains(&ty) || BLOCK_FORMATS.iter().any(|row| row.0 == ty);
        assert_eq!(is_quantizable(ty), tested, "{ty}");
    }
}

#[test]
fn weights_that_ggml_quantised_to_one_scale_a_block_come_back_exactly() {
    // Requantising a file to its own type must not lose anything.
    let tensors = support::tensors(&committed("quants/quants.gguf"));
    for name in ["f16", "bf16", "q8_0", "q4_0", "q5_0", "mxfp4"] {
        let tensor = &tensors[name];
        let mut x = vec![0.0; tensor.bytes.len() / tensor.ty.block_bytes() * tensor.ty.block_len()];
        dequantize_row(tensor.ty, &tensor.bytes, &mut x).expect("a weight type");
        for (i, (y, x)) in through(tensor.ty, &x, None).iter().zip(&x).enumerate() {
            assert_eq!(y, x, "{name}, weight {i}");
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    for (ty, _) in BLOCK_FORMATS {
        assert_eq!(through(ty, &[0.0; 256], None), [0.0; 256], "{ty}");
    }
}

#[test]
fn constants_come_back_within_the_precision_of_a_scale() {
    for (ty, _) in BLOCK_FORMATS {
        for constant in [1.0, -1.0, 0.1, -0.1, 1234.5, -1234.5, 0.03, -0.03] {
            for y in through(ty, &[constant; 256], None) {
                // MXFP4 has only powers of two for scales: 5 lies between its values 4 and 6.
                let bound = if ty == GgmlType::MXFP4 { 0.2 } else { 0.002 };
                assert!(((y - constant) / constant).abs() <= bound, "{ty}: {constant} came back as {y}");
            }
        }
    }
}

#[test]
fn the_largest_and_the_smallest_weights_stay_finite() {
    let alternating = |a: f32| -> Vec<f32> { (0..256).map(|i| if i % 3 == 0 { a } else { -a }).collect() };
    for (ty, bound) in BLOCK_FORMATS {
        for x in [vec![MAX_WEIGHT; 256], vec![-MAX_WEIGHT; 256], alternating(MAX_WEIGHT)] {
            let error = squared_error(&x, &through(ty, &x, None), &[1.0; 256]).sqrt();
            assert!(error <= 2.0 * bound * 16.0 * f64::from(MAX_WEIGHT), "{ty}: {error:e}");
        }
        for tiny in [f32::MIN_POSITIVE, 1e-45, 1e-20, 1e-8, 1e-6] {
            let y = through(ty, &alternating(tiny), None);
            // Half a step of the smallest scale, 2^-24, at most.
            assert!(y.iter().all(|y| y.abs() <= 2.0 * tiny), "{ty}: {tiny:e} came back as {:e}", y[0]);
        }
    }
}

#[test]
fn weights_that_are_no_finite_numbers_are_errors() {
    for (ty, _) in BLOCK_FORMATS.into_iter().chain([(GgmlType::F16, 0.0), (GgmlType::BF16, 0.0)]) {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 256];
            x[200] = value;
            let mut bytes = vec![0; ty.row_bytes(256).expect("whole blocks")];
            match quantize_row(ty, &x, None, &mut bytes) {
                Err(Error::NotFinite { index: 200, .. }) => {}
                other => panic!("{ty} with {value}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_weight_beyond_half_precision_is_an_error_in_block_formats() {
    let error = quantize_row(GgmlType::Q8_0, &[1e5; 32], None, &mut [0; 34]);
    assert_eq!(error, Err(Error::TooLarge { ty: GgmlType::Q8_0, index: 0, value: 1e5, limit: MAX_WEIGHT }));
    assert_eq!(through(GgmlType::F32, &[1e5, f32::INFINITY], None), [1e5, f32::INFINITY]);
    assert!((through(GgmlType::BF16, &[1e5], None)[0] - 1e5).abs() < 500.0);
}

#[test]
fn importances_that_do_not_fit_are_errors() {
    let mut out = [0; 34];
    let short = quantize_row(GgmlType::Q8_0, &[1.0; 32], Some(&[1.0; 31]), &mut out);
    assert_eq!(short, Err(Error::ImportanceLength { expected: 32, found: 31 }));
    for value in [-1.0, f32::NAN, f32::INFINITY] {
        let mut importance = [1.0; 32];
        importance[3] = value;
        let error = quantize_row(GgmlType::Q8_0, &[1.0; 32], Some(&importance), &mut out);
        assert!(matches!(error, Err(Error::Importance { index: 3, .. })), "{error:?}");
    }
}

#[test]
fn types_that_cannot_be_written_say_so() {
    let error = quantize_row(GgmlType::IQ2_XS, &[1.0; 256], None, &mut [0; 74]);
    assert_eq!(error, Err(Error::NotQuantizable { ty: GgmlType::IQ2_XS }));
}

#[test]
fn importances_lower_the_error_of_what_they_weigh() {
    let x = normal(3, 4096);
    let importance: Vec<f32> = normal(5, 4096).iter().map(|w| w.powi(4)).collect();
    for (ty, _) in BLOCK_FORMATS {
        let without = squared_error(&x, &through(ty, &x, None), &importance);
        let with = squared_error(&x, &through(ty, &x, Some(&importance)), &importance);
        // MXFP4 has only its exponent to choose.
        let bound = if ty == GgmlType::MXFP4 { 1.0 } else { 0.97 };
        assert!(with < bound * without, "{ty}: {with} with, {without} without importances");
    }
}

#[test]
fn importances_of_zero_count_as_all_the_same() {
    let x = normal(9, 256);
    assert_eq!(through(GgmlType::Q4_K, &x, Some(&[0.0; 256])), through(GgmlType::Q4_K, &x, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_row_comes_back_worse_than_zeros(
        seed in any::<u64>(),
        exponent in -12i32..15,
        spread in 0u32..20,
        offset in -3f32..3.0,
    ) {
        // Rows with an offset and with outliers: high powers of normal numbers.
        let x: Vec<f32> = normal(seed, 256)
            .iter()
            .map(|x| (offset + x * x.abs().powi(spread as i32 / 4)) * 2f32.powi(exponent))
            .map(|x| x.clamp(-MAX_WEIGHT, MAX_WEIGHT))
            .collect();
        let ones = [1.0; 256];
        let energy = squared_error(&x, &[0.0; 256], &ones);
        for (ty, bound) in BLOCK_FORMATS {
            let y = through(ty, &x, None);
            prop_assert!(y.iter().all(|y| y.is_finite()));
            let error = squared_error(&x, &y, &ones);
            prop_assert!(error <= 1.5 * bound * energy, "{}: {} of {}", ty, error, energy);
        }
    }

    #[test]
    fn half_precision_rows_round_to_nearest(x in prop::collection::vec(-1000f32..1000.0, 1..50)) {
        for (x, y) in x.iter().zip(through(GgmlType::F16, &x, None)) {
            prop_assert_eq!(y, half::f16::from_f32(*x).to_f32());
        }
        for (x, y) in x.iter().zip(through(GgmlType::BF16, &x, None)) {
            prop_assert!((x - y).abs() <= x.abs() / 256.0);
        }
    }
}
