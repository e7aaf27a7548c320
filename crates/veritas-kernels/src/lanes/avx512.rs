//! The lanes as one zmm register.

use std::arch::x86_64::*;

use veritas_simd::Avx512Token;

use super::{LANES, Simd};

type V = __m512;

impl Simd for Avx512Token {
    type V = V;
    type M = __mmask16;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: `self` proves AVX-512 F; x has 16 elements, and the load needs no alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], at: usize) {
        // SAFETY: SSE is part of the baseline; a prefetch reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().wrapping_add(at).cast()) };
    }

    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512 F; out has 16 elements, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> V {
        // SAFETY: `self` proves AVX-512 F; x has 64 bytes, and the load needs no alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 32]) -> V {
        // SAFETY: `self` proves AVX-512 F; x has 32 bytes, and the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u8; 64]) -> (V, V) {
        // SAFETY: `self` proves AVX-512 F; x has 64 bytes, and the load needs no alignment.
        unsafe {
            let pairs = _mm512_loadu_si512(x.as_ptr().cast());
            let upper = _mm512_set1_epi32(0xFFFF_0000u32.cast_signed());
            let second = _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
            let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
            (second, first)
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        // SAFETY: `self` proves AVX-512 F; x has 16 bytes, and the load needs no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_nibbles(self, x: &[u8; 16]) -> (V, V) {
        // SAFETY: `self` proves AVX-512 F; x has 16 bytes, and the load needs no alignment.
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let eight = _mm512_set1_epi32(8);
            let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
            let high = _mm512_srli_epi32::<4>(bytes);
            (
                _mm512_cvtepi32_ps(_mm512_sub_epi32(low, eight)),
                _mm512_cvtepi32_ps(_mm512_sub_epi32(high, eight)),
            )
        }
    }

    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 32]) {
        // SAFETY: `self` proves AVX-512 F; out has 32 bytes, and the store needs no alignment.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn store_rounded_i8(self, t: V, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX-512 F; out has 16 bytes, and the store needs no alignment. The conversion keeps the
        // low bytes, which hold the integers: the constant's own low bits are zero.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(t))) }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        // SAFETY: `self` proves AVX-512 F and DQ.
        unsafe { _mm512_andnot_ps(_mm512_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn neg(self, a: V) -> V {
        // SAFETY: `self` proves AVX-512 F and DQ.
        unsafe { _mm512_xor_ps(_mm512_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn copysign(self, a: V, sign: V) -> V {
        // SAFETY: `self` proves AVX-512 F and DQ.
        unsafe {
            let sign_bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(sign_bit, a), _mm512_and_ps(sign_bit, sign))
        }
    }

    #[inline(always)]
    fn lt(self, a: V, b: V) -> __mmask16 {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn is_nan(self, a: V) -> __mmask16 {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: V, no: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }

    #[inline(always)]
    fn add_to_exponent(self, p: V, t: V) -> V {
        // SAFETY: `self` proves AVX-512 F.
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(t));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), shifted))
        }
    }

    #[inline(always)]
    fn flush(self, a: V) -> V {
        // SAFETY: `self` proves AVX-512 F and DQ.
        unsafe {
            let subnormal = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.abs(a), _mm512_set1_ps(f32::MIN_POSITIVE));
            _mm512_mask_and_ps(a, subnormal, a, _mm512_set1_ps(-0.0))
        }
    }

    #[inline(always)]
    fn fold_add(self, a: V) -> f32 {
        // SAFETY: `self` proves AVX-512 F and DQ, and all of AVX2.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn fold_max(self, a: V) -> f32 {
        // SAFETY: `self` proves AVX-512 F and DQ, and all of AVX2.
        unsafe {
            let eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}
