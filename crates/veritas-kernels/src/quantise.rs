//! Activations to eight bits: the vector code of [`veritas_quant::activation::quantize_q8`], which defines the bits.

use crate::lanes::{LANES, Simd};
use crate::math::ROUND_F32;

/// Per block of `block` (a multiple of 16): `scale = max|x| / 127`, `q = round(x · (127 / max|x|))`, and the sum of each 16
/// `q`. The lengths are those of `quantize_q8`.
#[inline(always)]
pub(crate) fn quantize_q8<S: Simd>(
    s: S,
    x: &[f32],
    block: usize,
    q: &mut [i8],
    scales: &mut [f32],
    sums: &mut [i16],
) {
    let blocks = x.chunks_exact(block).zip(q.chunks_exact_mut(block));
    for (((x, q), scale), sums) in blocks.zip(scales).zip(sums.chunks_exact_mut(block / LANES)) {
        let (vectors, _) = x.as_chunks::<LANES>();
        let zero = s.splat(0.0);
        let (mut max, mut finite) = (zero, zero);
        for vector in vectors {
            let v = s.load(vector);
            max = s.max(max, s.abs(v));
            // Zero times an infinity or a NaN is a NaN, and stays one.
            finite = s.fma(v, zero, finite);
        }
        let largest = s.fold_max(max);
        let is_finite = !s.fold_add(finite).is_nan();
        let inverse = 127.0 / largest;
        if !is_finite || !inverse.is_finite() {
            q.fill(0);
            sums.fill(0);
            *scale = if is_finite { 0.0 } else { f32::NAN };
            continue;
        }
        *scale = largest / 127.0;
        let (inverse, round) = (s.splat(inverse), s.splat(ROUND_F32));
        for ((vector, q), sum) in vectors.iter().zip(q.as_chunks_mut::<LANES>().0).zip(sums) {
            let t = s.add(s.mul(s.load(vector), inverse), round);
            s.store_rounded_i8(t, q);
            // At most 16 · 127: exact in f32, in any order.
            *sum = s.fold_add(s.sub(t, round)) as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use veritas_quant::activation;

    use crate::{Isa, Kernels};

    type Quantize<'a> = dyn Fn(&mut [i8], &mut [f32], &mut [i16]) + 'a;

    proptest! {
        #[test]
        fn quantised_activations_have_the_bits_of_their_definition(
            mut x in prop::collection::vec(-10.0f32..10.0, 768),
            (place, special) in (0usize..768, any::<f32>()),
            scale in prop::sample::select(vec![1.0f32, 0.0, 1e-38, 1e-40, 1e37]),
        ) {
            x.iter_mut().for_each(|x| *x *= scale);
            x[place] = special;
            for block in [32, 256] {
                let run = |quantize: &Quantize<'_>| {
                    let (mut q, mut scales, mut sums) = (vec![9; 768], vec![9.0; 768 / block], vec![9; 48]);
                    quantize(&mut q, &mut scales, &mut sums);
                    let scales: Vec<u32> =
                        scales.iter().map(|s| if s.is_nan() { f32::NAN } else { *s }.to_bits()).collect();
                    (q, scales, sums)
                };
                let expected = run(&|q, scales, sums| activation::quantize_q8(&x, block, q, scales, sums));
                for isa in Isa::available() {
                    let kernels = Kernels::new(isa).expect("an available level");
                    let ours = run(&|q, scales, sums| kernels.quantize_q8(&x, block, q, scales, sums));
                    prop_assert_eq!(&ours, &expected, "{}", isa);
                }
            }
        }
    }
}
