//! Products of float weights: each level, number of threads and batch against the portable dot product, bit for bit.

use proptest::prelude::*;
use veritas_kernels::{ActivationFormat, Activations, Error, Isa, Kernels, Matrix, Team, matmul};
use veritas_quant::GgmlType;

/// The canonical order of F32 and F16 weights, one number at a time.
fn dot_f32(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for k in 0..w.len().next_multiple_of(16) {
        let (w, x) = (w.get(k).copied().unwrap_or(0.0), x.get(k).copied().unwrap_or(0.0));
        lanes[k % 16] = w.mul_add(x, lanes[k % 16]);
    }
    fold(lanes)
}

/// The canonical order of BF16 weights: `w` and `x` are bf16 numbers.
fn dot_bf16(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let at = |row: &[f32], k: usize| flush(row.get(k).copied().unwrap_or(0.0));
    for pair in 0..w.len().div_ceil(2).next_multiple_of(16) {
        let lane = &mut lanes[pair % 16];
        *lane = flush(at(w, 2 * pair + 1).mul_add(at(x, 2 * pair + 1), *lane));
        *lane = flush(at(w, 2 * pair).mul_add(at(x, 2 * pair), *lane));
    }
    fold(lanes)
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn fold(mut lanes: [f32; 16]) -> f32 {
    for h in [8, 4, 2, 1] {
        for i in 0..h {
            lanes[i] += lanes[i + h];
        }
    }
    lanes[0]
}

/// The bytes of a weight and the number that they are.
fn encode(ty: GgmlType, x: f32) -> (Vec<u8>, f32) {
    match ty {
        GgmlType::F32 => (x.to_le_bytes().to_vec(), x),
        GgmlType::F16 => (half::f16::from_f32(x).to_le_bytes().to_vec(), half::f16::from_f32(x).to_f32()),
        GgmlType::BF16 => (half::bf16::from_f32(x).to_le_bytes().to_vec(), half::bf16::from_f32(x).to_f32()),
        _ => unreachable!("a float type"),
    }
}

fn check(
    ty: GgmlType,
    rows: usize,
    cols: usize,
    n_acts: usize,
    weights: &[f32],
    x: &[f32],
) -> Result<(), TestCaseError> {
    let (bytes, weights): (Vec<_>, Vec<_>) = weights.iter().map(|&w| encode(ty, w)).unzip();
    let data: Vec<u8> = bytes.concat();
    let mut expected = Vec::new();
    for x in x.chunks(cols) {
        for w in weights.chunks(cols) {
            expected.push(if ty == GgmlType::BF16 {
                let x: Vec<f32> = x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
                dot_bf16(w, &x)
            } else {
                dot_f32(w, x)
            });
        }
    }
    let format = ActivationFormat::for_weights(ty).expect("float weights have products");
    let matrix = Matrix { ty, data: &data, rows, cols };
    for isa in Isa::available() {
        let kernels = Kernels::new(isa).expect("an available level");
        for n_threads in [1, 2, 5] {
            let team = Team::new(n_threads);
            let mut acts = Activations::new();
            acts.prepare(&kernels, &team, format, x, n_acts, cols);
            let mut out = vec![f32::NAN; rows * n_acts];
            matmul(&kernels, &team, &matrix, &acts, &mut out).expect("the shapes fit");
            for (i, (a, b)) in out.iter().zip(&expected).enumerate() {
                prop_assert_eq!(
                    a.to_bits(),
                    b.to_bits(),
                    "{} {} threads, output {}: {} {}",
                    isa,
                    n_threads,
                    i,
                    a,
                    b
                );
            }
        }
    }
    Ok(())
}

proptest! {
    // Fewer where `PROPTEST_CASES` asks for fewer: emulated machines are slow.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(40)))]

    #[test]
    fn products_of_every_shape_equal_the_canonical_order(
        (rows, cols, n_acts, seed) in (1usize..40, 1usize..150, 1usize..9, any::<u64>()),
        small in any::<bool>(),
    ) {
        let mut state = seed;
        // With `small`, the products reach the subnormal range, which BF16 flushes and the others keep.
        let size = if small { 1e-19 } else { 1.0 };
        let mut numbers = |n: usize| -> Vec<f32> {
            (0..n).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / 8_388_608.0 - 1.0) * size
            }).collect()
        };
        let (weights, x) = (numbers(rows * cols), numbers(n_acts * cols));
        for ty in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
            check(ty, rows, cols, n_acts, &weights, &x)?;
        }
    }
}

#[test]
fn a_product_that_does_not_fit_is_an_error_that_says_what() {
    let kernels = Kernels::new(Isa::detect()).unwrap();
    let team = Team::new(1);
    let mut acts = Activations::new();
    let matrix = Matrix { ty: GgmlType::F32, data: &[0; 4 * 6], rows: 2, cols: 3 };
    let mut out = [0.0; 2];
    assert!(matches!(matmul(&kernels, &team, &matrix, &acts, &mut out), Err(Error::Format { .. })));
    acts.prepare(&kernels, &team, ActivationFormat::F32, &[1.0; 4], 1, 4);
    assert!(matches!(
        matmul(&kernels, &team, &matrix, &acts, &mut out),
        Err(Error::Shape { expected: 3, found: 4, .. })
    ));
    acts.prepare(&kernels, &team, ActivationFormat::F32, &[1.0; 3], 1, 3);
    let short = Matrix { data: &[0; 23], ..matrix };
    assert!(matches!(
        matmul(&kernels, &team, &short, &acts, &mut out),
        Err(Error::Shape { expected: 24, found: 23, .. })
    ));
    let integers = Matrix { ty: GgmlType::I32, ..matrix };
    assert!(matches!(
        matmul(&kernels, &team, &integers, &acts, &mut out),
        Err(Error::UnsupportedType { .. })
    ));
    assert_eq!(matmul(&kernels, &team, &matrix, &acts, &mut out), Ok(()));
}

#[test]
fn an_empty_batch_gives_an_empty_output() {
    let kernels = Kernels::new(Isa::detect()).unwrap();
    let team = Team::new(2);
    let mut acts = Activations::new();
    acts.prepare(&kernels, &team, ActivationFormat::F32, &[], 0, 3);
    let matrix = Matrix { ty: GgmlType::F32, data: &[0; 4 * 6], rows: 2, cols: 3 };
    assert_eq!(matmul(&kernels, &team, &matrix, &acts, &mut []), Ok(()));
}
