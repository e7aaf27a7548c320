//! The lanes as two ymm registers.

use std::arch::x86_64::*;

use veritas_simd::Avx2Token;

use super::{LANES, Simd};
use crate::math::ROUND_F32;

/// Lanes 0–7 and 8–15.
type V = (__m256, __m256);

/// Applies an intrinsic to both halves.
macro_rules! halves {
    ($intrinsic:ident, $a:ident) => {
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { ($intrinsic($a.0), $intrinsic($a.1)) }
    };
    ($intrinsic:ident, $a:ident, $b:ident) => {
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { ($intrinsic($a.0, $b.0), $intrinsic($a.1, $b.1)) }
    };
    ($intrinsic:ident, $a:ident, $b:ident, $c:ident) => {
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { ($intrinsic($a.0, $b.0, $c.0), $intrinsic($a.1, $b.1, $c.1)) }
    };
}

impl Simd for Avx2Token {
    type V = V;
    type M = V;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: `self` proves AVX2.
        unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: `self` proves AVX2; x has 16 elements, and the loads need no alignment.
        unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX2; out has 16 elements, and the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> V {
        // SAFETY: `self` proves AVX2; x has 64 bytes, and the loads need no alignment.
        unsafe { (_mm256_loadu_ps(x.as_ptr().cast()), _mm256_loadu_ps(x.as_ptr().add(32).cast())) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 32]) -> V {
        // SAFETY: `self` proves AVX2 and F16C; x has 32 bytes, and the loads need no alignment.
        unsafe {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(16).cast());
            (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u8; 64]) -> (V, V) {
        // SAFETY: `self` proves AVX2; x has 64 bytes, and the loads need no alignment.
        unsafe {
            let a = _mm256_loadu_si256(x.as_ptr().cast());
            let b = _mm256_loadu_si256(x.as_ptr().add(32).cast());
            let upper = _mm256_set1_epi32(0xFFFF_0000u32.cast_signed());
            let second = (_mm256_and_si256(a, upper), _mm256_and_si256(b, upper));
            let first = (_mm256_slli_epi32::<16>(a), _mm256_slli_epi32::<16>(b));
            (
                (_mm256_castsi256_ps(second.0), _mm256_castsi256_ps(second.1)),
                (_mm256_castsi256_ps(first.0), _mm256_castsi256_ps(first.1)),
            )
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        // SAFETY: `self` proves AVX2; x has 16 bytes, and the load needs no alignment.
        unsafe { convert_i8(_mm_loadu_si128(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_nibbles(self, x: &[u8; 16]) -> (V, V) {
        // SAFETY: `self` proves AVX2; x has 16 bytes, and the load needs no alignment.
        unsafe {
            let bytes = _mm_loadu_si128(x.as_ptr().cast());
            let mask = _mm_set1_epi8(15);
            let eight = _mm_set1_epi8(8);
            let low = _mm_and_si128(bytes, mask);
            let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask);
            (convert_i8(_mm_sub_epi8(low, eight)), convert_i8(_mm_sub_epi8(high, eight)))
        }
    }

    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 32]) {
        // SAFETY: `self` proves AVX2 and F16C; out has 32 bytes, and the stores need no alignment.
        unsafe {
            let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.0);
            let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v.1);
            _mm_storeu_si128(out.as_mut_ptr().cast(), low);
            _mm_storeu_si128(out.as_mut_ptr().add(16).cast(), high);
        }
    }

    #[inline(always)]
    fn store_rounded_i8(self, t: V, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX2; out has 16 bytes, and the store needs no alignment.
        unsafe {
            let offset = _mm256_set1_epi32(ROUND_F32.to_bits().cast_signed());
            let low = _mm256_sub_epi32(_mm256_castps_si256(t.0), offset);
            let high = _mm256_sub_epi32(_mm256_castps_si256(t.1), offset);
            // The pack works within 128-bit halves: 0–3, 8–11, 4–7, 12–15; the permutation restores the order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        halves!(_mm256_add_ps, a, b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        halves!(_mm256_sub_ps, a, b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        halves!(_mm256_mul_ps, a, b)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        halves!(_mm256_div_ps, a, b)
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        halves!(_mm256_fmadd_ps, a, b, c)
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        halves!(_mm256_min_ps, a, b)
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        halves!(_mm256_max_ps, a, b)
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        let sign = self.splat(-0.0);
        halves!(_mm256_andnot_ps, sign, a)
    }

    #[inline(always)]
    fn neg(self, a: V) -> V {
        let sign = self.splat(-0.0);
        halves!(_mm256_xor_ps, sign, a)
    }

    #[inline(always)]
    fn copysign(self, a: V, sign: V) -> V {
        let sign_bit = self.splat(-0.0);
        let magnitude = self.abs(a);
        let sign = halves!(_mm256_and_ps, sign_bit, sign);
        halves!(_mm256_or_ps, magnitude, sign)
    }

    #[inline(always)]
    fn lt(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX2.
        unsafe { (_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0), _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)) }
    }

    #[inline(always)]
    fn is_nan(self, a: V) -> V {
        // SAFETY: `self` proves AVX2.
        unsafe { (_mm256_cmp_ps::<_CMP_UNORD_Q>(a.0, a.0), _mm256_cmp_ps::<_CMP_UNORD_Q>(a.1, a.1)) }
    }

    #[inline(always)]
    fn select(self, mask: V, yes: V, no: V) -> V {
        halves!(_mm256_blendv_ps, no, yes, mask)
    }

    #[inline(always)]
    fn add_to_exponent(self, p: V, t: V) -> V {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(t.0));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(t.1));
            let low = _mm256_add_epi32(_mm256_castps_si256(p.0), low);
            let high = _mm256_add_epi32(_mm256_castps_si256(p.1), high);
            (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn flush(self, a: V) -> V {
        let magnitude = self.abs(a);
        let subnormal = self.lt(magnitude, self.splat(f32::MIN_POSITIVE));
        // Where the lane is subnormal, the magnitude is taken away and the sign stays.
        let taken = halves!(_mm256_and_ps, subnormal, magnitude);
        halves!(_mm256_xor_ps, a, taken)
    }

    #[inline(always)]
    fn fold_add(self, a: V) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let eight = _mm256_add_ps(a.0, a.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn fold_max(self, a: V) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let eight = _mm256_max_ps(a.0, a.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// Sixteen i8 as f32.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn convert_i8(x: __m128i) -> V {
    // SAFETY: the caller promises AVX2.
    unsafe {
        let low = _mm256_cvtepi8_epi32(x);
        let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x));
        (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
    }
}
