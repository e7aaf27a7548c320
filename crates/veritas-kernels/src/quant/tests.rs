//! Every kernel of every level against the oracle, bit for bit.
//!
//! `VERITAS_TEST_CASES` sets the number of random cases per type (16 unless told): emulated machines are slow.

use std::io::Write;
use std::sync::Once;

use half::f16;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use veritas_quant::activation::{ActivationFormat, ActivationRow, quantize_q8};
use veritas_quant::unpack::unpacker;
use veritas_quant::{GgmlType, dot_row};

use crate::{Activations, Isa, Kernels, Matrix, Team, matmul};

fn quantised_types() -> impl Iterator<Item = GgmlType> {
    GgmlType::all().filter(|&ty| unpacker(ty).is_some())
}

/// The kernels of a level, or `None` after saying, once, that the machine lacks it.
fn kernels(isa: Isa) -> Option<Kernels> {
    static SAID: Once = Once::new();
    let kernels = Kernels::new(isa).ok();
    if kernels.is_none() {
        // Written past the test harness, which would keep the line of a passing test to itself.
        let line =
            format!("SKIPPED: this machine has no {isa}; that level's quantised products were not tested\n");
        SAID.call_once(|| drop(std::io::stderr().write_all(line.as_bytes())));
    }
    kernels
}

/// A product to be tried.
#[derive(Clone, Debug)]
struct Case {
    n_rows: usize,
    n_acts: usize,
    cols: usize,
    weights: Vec<u8>,
    activations: Vec<f32>,
}

/// Makes the floating-point fields of a block moderate, and leaves all other bits as they are.
fn tame(ty: GgmlType, block: &mut [u8]) {
    let at: &[usize] = match ty {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => &[0, 2],
        GgmlType::Q2_K => &[80, 82],
        GgmlType::Q3_K => &[108],
        GgmlType::Q6_K => &[208],
        GgmlType::TQ1_0 => &[52],
        GgmlType::TQ2_0 => &[64],
        GgmlType::MXFP4 => {
            block[0] = 100 + block[0] % 56;
            return;
        }
        GgmlType::IQ1_M => {
            // The upper nibble of the last word is the upper nibble of the factor.
            block[55] &= 0xBF;
            return;
        }
        GgmlType::NVFP4 => return,
        _ => &[0],
    };
    for &at in at {
        let d = f16::from_le_bytes([block[at], block[at + 1]]);
        if !d.is_finite() {
            block[at..at + 2].copy_from_slice(&f16::from_f32(-0.37).to_le_bytes());
        }
    }
}

fn cases(ty: GgmlType) -> impl Strategy<Value = Case> {
    let n_blocks = 2400 / ty.block_len();
    // One activation row, and few, have kernels of their own.
    let n_acts = prop_oneof![2 => Just(1usize), 2 => 2usize..6, 1 => 6usize..18, 1 => 18usize..40];
    let n_rows = prop_oneof![3 => 1usize..24, 1 => 24usize..80];
    let shape = (n_rows, n_acts, prop_oneof![1..=3usize, 1..=n_blocks]);
    shape.prop_flat_map(move |(n_rows, n_acts, n_blocks)| {
        let cols = n_blocks * ty.block_len();
        let cols = cols.next_multiple_of(ActivationFormat::for_weights(ty).expect("a product").block_len());
        let n_bytes = n_rows * ty.row_bytes(cols).expect("whole blocks");
        let weights = prop_oneof![
            3 => prop::collection::vec(any::<u8>(), n_bytes),
            // Equal bytes reach the extremes of quants and scales.
            1 => prop_oneof![Just(0u8), Just(0x80), Just(0x7f), Just(0xff), any::<u8>()]
                .prop_map(move |byte| vec![byte; n_bytes]),
        ];
        let n = n_acts * cols;
        let activations = prop_oneof![
            3 => prop::collection::vec(-5f32..5.0, n),
            1 => prop_oneof![Just(1f32), Just(-1.0)].prop_map(move |x| vec![x; n]),
            1 => prop::collection::vec(prop_oneof![Just(3f32), Just(-3.0), Just(0.0)], n),
        ];
        // The smallest make the products of the factors subnormal.
        let size = prop::sample::select(vec![1f32, 1.0, 1e-30, 1e-35]);
        (weights, activations, size).prop_map(move |(mut weights, mut activations, size)| {
            activations.iter_mut().for_each(|x| *x *= size);
            weights.chunks_exact_mut(ty.block_bytes()).for_each(|block| tame(ty, block));
            Case { n_rows, n_acts, cols, weights, activations }
        })
    })
}

/// The product by the oracle, `[n_acts, n_rows]`.
fn expected(ty: GgmlType, case: &Case) -> Vec<f32> {
    let block = ActivationFormat::for_weights(ty).expect("a product").block_len();
    let cols = case.cols;
    let (mut q, mut scales, mut sums) = (vec![0; cols], vec![0.0; cols / block], vec![0; cols / 16]);
    let mut out = vec![];
    for x in case.activations.chunks_exact(cols) {
        quantize_q8(x, block, &mut q, &mut scales, &mut sums);
        let row = ActivationRow::Q8 { block, q: &q, scales: &scales, sums: &sums };
        out.extend(case.weights.chunks_exact(case.weights.len() / case.n_rows).map(|w| dot_row(ty, w, &row)));
    }
    out
}

fn product(kernels: &Kernels, team: &Team, ty: GgmlType, case: &Case) -> Vec<f32> {
    let format = ActivationFormat::for_weights(ty).expect("a product");
    let mut acts = Activations::new();
    acts.prepare(kernels, team, format, &case.activations, case.n_acts, case.cols);
    let matrix = Matrix { ty, data: &case.weights, rows: case.n_rows, cols: case.cols };
    let mut out = vec![f32::NAN; case.n_acts * case.n_rows];
    matmul(kernels, team, &matrix, &acts, &mut out).expect("the shapes agree");
    out
}

/// NaNs are equal: their bits are not defined.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

fn check_level(isa: Isa, ty: GgmlType) {
    let Some(kernels) = kernels(isa) else { return };
    let n_cases = std::env::var("VERITAS_TEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16);
    let config =
        Config { cases: n_cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let teams = [Team::new(1), Team::new(3)];
    let result = TestRunner::new(config).run(&cases(ty), |case| {
        let expected = bits(&expected(ty, &case));
        for team in &teams {
            prop_assert_eq!(&bits(&product(&kernels, team, ty, &case)), &expected, "{} on {}", ty, isa);
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{ty} on {isa}: {failure}"));
}

/// Weights and activations whose integers are as large as they get, through every path of a kernel.
fn check_extremes(isa: Isa) {
    let Some(kernels) = kernels(isa) else { return };
    let team = Team::new(1);
    for ty in quantised_types() {
        for byte in [0x00, 0x7f, 0x80, 0x88, 0xff] {
            for sign in [1.0, -1.0] {
                for n_acts in [1, 2, 9, 18] {
                    let cols = 5 * ty.block_len().max(32);
                    let mut weights = vec![byte; 9 * ty.row_bytes(cols).expect("whole blocks")];
                    weights.chunks_exact_mut(ty.block_bytes()).for_each(|block| tame(ty, block));
                    let case =
                        Case { n_rows: 9, n_acts, cols, weights, activations: vec![sign; n_acts * cols] };
                    let product = product(&kernels, &team, ty, &case);
                    assert_eq!(
                        bits(&product),
                        bits(&expected(ty, &case)),
                        "{ty} on {isa}: {byte:#x} {sign} {n_acts}"
                    );
                }
            }
        }
    }
}

/// Every remainder of rows, blocks and activation rows that a kernel may treat apart.
fn check_remainders(isa: Isa) {
    let Some(kernels) = kernels(isa) else { return };
    let team = Team::new(1);
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    for ty in quantised_types() {
        let block = ActivationFormat::for_weights(ty).expect("a product").block_len().max(ty.block_len());
        for n_rows in 1..=5 {
            for n_blocks in 1..=9 {
                for n_acts in [1, 2, 3, 4, 5, 8, 16, 17] {
                    let cols = n_blocks * block;
                    let n_bytes = n_rows * ty.row_bytes(cols).expect("whole blocks");
                    let mut weights: Vec<u8> = (0..n_bytes).map(|_| random() as u8).collect();
                    weights.chunks_exact_mut(ty.block_bytes()).for_each(|block| tame(ty, block));
                    let activations = (0..n_acts * cols).map(|_| random() as f32 * 1e-9 - 2.0).collect();
                    let case = Case { n_rows, n_acts, cols, weights, activations };
                    assert_eq!(
                        bits(&product(&kernels, &team, ty, &case)),
                        bits(&expected(ty, &case)),
                        "{ty} on {isa}: {n_rows} rows of {n_blocks} blocks, {n_acts} activation rows"
                    );
                }
            }
        }
    }
}

macro_rules! levels {
    ($($level:ident: $isa:expr),*) => {
        $(mod $level {
            use super::*;

            #[test]
            fn extremes_of_all_integers_do_not_saturate() {
                check_extremes($isa);
            }

            #[test]
            fn no_remainder_of_rows_blocks_or_activation_rows_is_lost() {
                check_remainders($isa);
            }

            types!($isa; q4_0 Q4_0, q4_1 Q4_1, q5_0 Q5_0, q5_1 Q5_1, q8_0 Q8_0, iq4_nl IQ4_NL, mxfp4 MXFP4,
                q2_k Q2_K, q3_k Q3_K, q4_k Q4_K, q5_k Q5_K, q6_k Q6_K, iq4_xs IQ4_XS, iq2_xxs IQ2_XXS,
                iq2_xs IQ2_XS, iq2_s IQ2_S, iq3_xxs IQ3_XXS, iq3_s IQ3_S, iq1_s IQ1_S, iq1_m IQ1_M,
                tq1_0 TQ1_0, tq2_0 TQ2_0, nvfp4 NVFP4, q1_0 Q1_0, q2_0 Q2_0);
        })*
    };
}

macro_rules! types {
    ($isa:expr; $($name:ident $ty:ident),*) => {
        $(#[test]
        fn $name() {
            check_level($isa, GgmlType::$ty);
        })*
    };
}

levels!(portable: Isa::Portable, avx2: Isa::Avx2, avx512: Isa::Avx512);

#[cfg(target_arch = "aarch64")]
levels!(neon: Isa::Neon);

#[test]
fn every_quantised_type_has_a_kernel_on_every_level() {
    for ty in GgmlType::all() {
        let quantised = unpacker(ty).is_some();
        assert_eq!(super::portable_rows(ty).is_some(), quantised, "{ty}");
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(super::avx2_rows(ty).is_some(), quantised, "{ty}");
            assert_eq!(super::avx512_rows(ty).is_some(), quantised, "{ty}");
        }
        #[cfg(target_arch = "aarch64")]
        assert_eq!(super::neon_rows(ty).is_some(), quantised, "{ty}");
    }
}
