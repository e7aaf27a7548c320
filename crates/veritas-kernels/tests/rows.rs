//! Row operations: each level against a scalar definition, bit for bit.

use proptest::prelude::*;
use veritas_kernels::{Activation, Isa, Kernels, RopeStyle, math};

fn all_kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().map(|isa| Kernels::new(isa).expect("an available level"))
}

/// The same bits, or both NaN: which NaN comes out is not defined.
fn same(ours: &[f32], expected: &[f32]) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.len(), expected.len());
    for (i, (&a, &b)) in ours.iter().zip(expected).enumerate() {
        prop_assert!(
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            "element {i}: {a:e} {:08x}, expected {b:e} {:08x}",
            a.to_bits(),
            b.to_bits()
        );
    }
    Ok(())
}

/// Numbers as they occur, and those that find the places where hardware differs: zeros of both signs, subnormals,
/// infinities, NaN, numbers at which exponentials overflow.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -10.0f32..10.0,
        2 => -120.0f32..120.0,
        1 => proptest::num::f32::ANY,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-40, -1e-40, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -87.3, 88.72284, 0.625, 1.0, 4.0]),
    ]
}

fn finite_row(n: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-30.0f32..30.0, n)
}

/// The sixteen-lane sum with its fold: the definition.
fn lane_sum(terms: impl Iterator<Item = f32>, mut add: impl FnMut(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (k, term) in terms.enumerate() {
        lanes[k % 16] = add(lanes[k % 16], term);
    }
    for h in [8, 4, 2, 1] {
        for i in 0..h {
            lanes[i] += lanes[i + h];
        }
    }
    lanes[0]
}

fn activation(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Silu => x / (1.0 + math::exp_f32(-x)),
        Activation::GeluTanh => {
            let inner = 0.797_884_6 * 0.044_715f32.mul_add(x * x * x, x);
            0.5 * x * (1.0 + math::tanh_f32(inner))
        }
        Activation::GeluErf => 0.5 * x * (1.0 + math::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluQuick => x / (1.0 + math::exp_f32(x * -1.702)),
        Activation::Relu => relu(x),
        Activation::ReluSquared => relu(x) * relu(x),
        _ => unreachable!("no other activation exists"),
    }
}

fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::GeluErf,
    Activation::GeluQuick,
    Activation::Relu,
    Activation::ReluSquared,
];

proptest! {
    #[test]
    fn activations_equal_their_scalar_definitions(x in prop::collection::vec(number(), 0..70)) {
        for kernels in all_kernels() {
            for f in ACTIVATIONS {
                let expected: Vec<f32> = x.iter().map(|&x| activation(f, x)).collect();
                let mut ours = x.clone();
                kernels.activate(f, &mut ours);
                same(&ours, &expected)?;

                let up: Vec<f32> = x.iter().rev().copied().collect();
                let expected: Vec<f32> = expected.iter().zip(&up).map(|(f, up)| f * up).collect();
                kernels.activate_mul(f, &x, &up, &mut ours);
                same(&ours, &expected)?;
            }
        }
    }

    #[test]
    fn elementwise_operations_equal_their_scalar_definitions(
        pairs in prop::collection::vec((number(), number()), 0..70),
        factor in number(),
        cap in 0.5f32..60.0,
    ) {
        let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        for kernels in all_kernels() {
            let run = |f: &dyn Fn(&mut [f32])| { let mut out = x.clone(); f(&mut out); out };
            let expect = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> { x.iter().zip(&y).map(|(&x, &y)| f(x, y)).collect() };
            same(&run(&|x| kernels.add(x, &y)), &expect(&|x, y| x + y))?;
            same(&run(&|x| kernels.mul(x, &y)), &expect(&|x, y| x * y))?;
            same(&run(&|x| kernels.add_scaled(x, &y, factor)), &expect(&|x, y| y.mul_add(factor, x)))?;
            same(&run(&|x| kernels.scale(x, factor)), &expect(&|x, _| x * factor))?;
            same(&run(&|x| kernels.softcap(x, cap)), &expect(&|x, _| cap * math::tanh_f32(x / cap)))?;
        }
    }

    #[test]
    fn norms_equal_their_scalar_definitions((x, weight, bias) in (1usize..100).prop_flat_map(|n| (finite_row(n), finite_row(n), finite_row(n)))) {
        let n = x.len() as f32;
        let eps = 1e-5;
        let mean_square = lane_sum(x.iter().copied(), |sum, x| x.mul_add(x, sum)) / n;
        let scale = 1.0 / (mean_square + eps).sqrt();
        let rms: Vec<f32> = x.iter().map(|x| x * scale).collect();
        let rms_weighted: Vec<f32> = rms.iter().zip(&weight).map(|(x, w)| x * w).collect();
        let mean = lane_sum(x.iter().copied(), |sum, x| sum + x) / n;
        let variance = lane_sum(x.iter().map(|x| x - mean), |sum, d| d.mul_add(d, sum)) / n;
        let scale = 1.0 / (variance + eps).sqrt();
        let layer: Vec<f32> = x.iter().map(|x| (x - mean) * scale).collect();
        let layer_weighted: Vec<f32> = layer.iter().zip(&weight).zip(&bias).map(|((x, &w), &b)| x.mul_add(w, b)).collect();
        for kernels in all_kernels() {
            let mut out = vec![0.0; x.len()];
            kernels.rms_norm(&x, &[], eps, &mut out);
            same(&out, &rms)?;
            kernels.rms_norm(&x, &weight, eps, &mut out);
            same(&out, &rms_weighted)?;
            kernels.layer_norm(&x, &[], &[], eps, &mut out);
            same(&out, &layer)?;
            kernels.layer_norm(&x, &weight, &bias, eps, &mut out);
            same(&out, &layer_weighted)?;
        }
    }

    #[test]
    fn softmax_equals_its_scalar_definition_and_sums_to_one(x in prop::collection::vec(-80.0f32..80.0, 1..200)) {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = x.iter().map(|x| math::exp_f32(x - max)).collect();
        let sum = lane_sum(exps.iter().copied(), |sum, p| sum + p);
        let expected: Vec<f32> = exps.iter().map(|p| p / sum).collect();
        for kernels in all_kernels() {
            let mut ours = x.clone();
            kernels.softmax(&mut ours);
            same(&ours, &expected)?;
            let total: f64 = ours.iter().map(|&p| f64::from(p)).sum();
            prop_assert!((total - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn rope_rotates_pairs_of_either_style_and_leaves_the_rest(
        angles in prop::collection::vec(-3.0f32..3.0, 0..40),
        seed in finite_row(100),
    ) {
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let n = cos.len();
        for style in [RopeStyle::Interleaved, RopeStyle::Neox] {
            let mut expected = seed.clone();
            for i in 0..n {
                let (at, bt) = if style == RopeStyle::Interleaved { (2 * i, 2 * i + 1) } else { (i, i + n) };
                let (a, b) = (seed[at], seed[bt]);
                expected[at] = a.mul_add(cos[i], -(b * sin[i]));
                expected[bt] = a.mul_add(sin[i], b * cos[i]);
            }
            for kernels in all_kernels() {
                let mut ours = seed.clone();
                kernels.rope(style, &mut ours, &cos, &sin);
                same(&ours, &expected)?;
            }
        }
    }
}

#[test]
fn a_level_that_the_machine_lacks_is_an_error() {
    for isa in Isa::ALL {
        assert_eq!(Kernels::new(isa).is_ok(), isa.is_available(), "{isa}");
        if let Ok(kernels) = Kernels::new(isa) {
            assert_eq!(kernels.isa(), isa);
        }
    }
}

#[test]
fn activations_are_close_to_their_mathematical_definitions() {
    for i in -4000..4000 {
        let x = i as f32 * 0.005;
        let exact = f64::from(x);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!((f64::from(activation(Activation::Silu, x)) - exact * sigmoid(exact)).abs() < 2e-6);
        assert!(
            (f64::from(activation(Activation::GeluQuick, x)) - exact * sigmoid(1.702 * exact)).abs() < 2e-6
        );
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (exact + 0.044715 * exact.powi(3));
        let gelu = 0.5 * exact * (1.0 + inner.tanh());
        assert!((f64::from(activation(Activation::GeluTanh, x)) - gelu).abs() < 3e-6, "{x}");
    }
}
