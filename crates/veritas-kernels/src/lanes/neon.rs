//! The lanes as four registers of Advanced SIMD.

use std::arch::aarch64::*;

use veritas_simd::NeonToken;

use super::{LANES, Simd};

/// Lanes 0–3, 4–7, 8–11 and 12–15.
type V = [float32x4_t; 4];

/// Truth values as all ones or all zeros.
type M = [uint32x4_t; 4];

/// Applies an intrinsic to each quarter.
macro_rules! quarters {
    ($intrinsic:ident($($arg:ident),+)) => {
        // SAFETY: `self` proves that the machine has Advanced SIMD.
        unsafe {
            [
                $intrinsic($($arg[0]),+),
                $intrinsic($($arg[1]),+),
                $intrinsic($($arg[2]),+),
                $intrinsic($($arg[3]),+),
            ]
        }
    };
}

impl Simd for NeonToken {
    type V = V;
    type M = M;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: `self` proves Advanced SIMD.
        [unsafe { vdupq_n_f32(x) }; 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        let x = x.as_ptr();
        // SAFETY: `self` proves Advanced SIMD; x has 16 elements.
        unsafe { [vld1q_f32(x), vld1q_f32(x.add(4)), vld1q_f32(x.add(8)), vld1q_f32(x.add(12))] }
    }

    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        for (quarter, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: `self` proves Advanced SIMD; out has 4 elements.
            unsafe { vst1q_f32(out.as_mut_ptr(), quarter) };
        }
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> V {
        let x = x.as_ptr();
        // SAFETY: `self` proves Advanced SIMD; x has 64 bytes, and loads of bytes need no alignment.
        let bytes = unsafe { [vld1q_u8(x), vld1q_u8(x.add(16)), vld1q_u8(x.add(32)), vld1q_u8(x.add(48))] };
        quarters!(vreinterpretq_f32_u8(bytes))
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 32]) -> V {
        let x = x.as_ptr();
        // SAFETY: `self` proves Advanced SIMD; x has 32 bytes, and loads of bytes need no alignment.
        let bytes = unsafe { [vld1_u8(x), vld1_u8(x.add(8)), vld1_u8(x.add(16)), vld1_u8(x.add(24))] };
        let halves = quarters!(vreinterpret_f16_u8(bytes));
        quarters!(vcvt_f32_f16(halves))
    }

    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u8; 64]) -> (V, V) {
        let pairs = self.load_bytes(x);
        let bits = quarters!(vreinterpretq_u32_f32(pairs));
        // SAFETY: `self` proves Advanced SIMD.
        let second = bits.map(|bits| unsafe { vandq_u32(bits, vdupq_n_u32(0xFFFF_0000)) });
        // SAFETY: `self` proves Advanced SIMD.
        let first = bits.map(|bits| unsafe { vshlq_n_u32::<16>(bits) });
        (quarters!(vreinterpretq_f32_u32(second)), quarters!(vreinterpretq_f32_u32(first)))
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        // SAFETY: `self` proves Advanced SIMD; x has 16 bytes.
        unsafe { convert_i8(vreinterpretq_s8_u8(vld1q_u8(x.as_ptr()))) }
    }

    #[inline(always)]
    fn load_nibbles(self, x: &[u8; 16]) -> (V, V) {
        // SAFETY: `self` proves Advanced SIMD; x has 16 bytes.
        unsafe {
            let bytes = vld1q_u8(x.as_ptr());
            let eight = vdupq_n_u8(8);
            let low = vsubq_u8(vandq_u8(bytes, vdupq_n_u8(15)), eight);
            let high = vsubq_u8(vshrq_n_u8::<4>(bytes), eight);
            (convert_i8(vreinterpretq_s8_u8(low)), convert_i8(vreinterpretq_s8_u8(high)))
        }
    }

    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 32]) {
        let halves = quarters!(vcvt_f16_f32(v));
        let bytes = quarters!(vreinterpret_u8_f16(halves));
        for (bytes, out) in bytes.into_iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: `self` proves Advanced SIMD; out has 8 bytes.
            unsafe { vst1_u8(out.as_mut_ptr(), bytes) };
        }
    }

    #[inline(always)]
    fn store_rounded_i8(self, t: V, out: &mut [i8; LANES]) {
        let bits = quarters!(vreinterpretq_u32_f32(t));
        // The integer is in the low bits, and the constant's own low bits are zero.
        // SAFETY: `self` proves Advanced SIMD; out has 16 bytes.
        unsafe {
            let low = vcombine_u16(vmovn_u32(bits[0]), vmovn_u32(bits[1]));
            let high = vcombine_u16(vmovn_u32(bits[2]), vmovn_u32(bits[3]));
            let bytes = vcombine_u8(vmovn_u16(low), vmovn_u16(high));
            vst1q_s8(out.as_mut_ptr(), vreinterpretq_s8_u8(bytes));
        }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        quarters!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        quarters!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        quarters!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        quarters!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        quarters!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // The instruction has another opinion of NaNs and zeros.
        self.select(self.lt(a, b), a, b)
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        self.select(self.lt(b, a), a, b)
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        quarters!(vabsq_f32(a))
    }

    #[inline(always)]
    fn neg(self, a: V) -> V {
        quarters!(vnegq_f32(a))
    }

    #[inline(always)]
    fn copysign(self, a: V, sign: V) -> V {
        // SAFETY: `self` proves Advanced SIMD.
        let sign_bit = [unsafe { vdupq_n_u32(1 << 31) }; 4];
        quarters!(vbslq_f32(sign_bit, sign, a))
    }

    #[inline(always)]
    fn lt(self, a: V, b: V) -> M {
        quarters!(vcltq_f32(a, b))
    }

    #[inline(always)]
    fn is_nan(self, a: V) -> M {
        let is_number = quarters!(vceqq_f32(a, a));
        quarters!(vmvnq_u32(is_number))
    }

    #[inline(always)]
    fn select(self, mask: M, yes: V, no: V) -> V {
        quarters!(vbslq_f32(mask, yes, no))
    }

    #[inline(always)]
    fn add_to_exponent(self, p: V, t: V) -> V {
        let (p, t) = (quarters!(vreinterpretq_u32_f32(p)), quarters!(vreinterpretq_u32_f32(t)));
        // SAFETY: `self` proves Advanced SIMD.
        let t = t.map(|t| unsafe { vshlq_n_u32::<23>(t) });
        let sum = quarters!(vaddq_u32(p, t));
        quarters!(vreinterpretq_f32_u32(sum))
    }

    #[inline(always)]
    fn flush(self, a: V) -> V {
        let magnitude = self.abs(a);
        let is_small = self.lt(magnitude, self.splat(f32::MIN_POSITIVE));
        self.select(is_small, self.copysign(self.splat(0.0), a), a)
    }

    #[inline(always)]
    fn fold_add(self, a: V) -> f32 {
        // SAFETY: `self` proves Advanced SIMD.
        unsafe {
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn fold_max(self, a: V) -> f32 {
        let max = |a: f32, b: f32| if a > b { a } else { b };
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        for h in [8, 4, 2, 1] {
            for i in 0..h {
                lanes[i] = max(lanes[i], lanes[i + h]);
            }
        }
        lanes[0]
    }
}

/// Sixteen i8 as f32.
///
/// # Safety
/// The machine must have Advanced SIMD.
#[inline(always)]
unsafe fn convert_i8(x: int8x16_t) -> V {
    // SAFETY: the caller promises Advanced SIMD.
    unsafe {
        let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
            vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
            vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))),
        ]
    }
}
