//! The lanes as an array: the definition.

use half::f16;
use veritas_simd::PortableToken;

use super::{LANES, Simd};

type V = [f32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> V {
    std::array::from_fn(f)
}

impl Simd for PortableToken {
    type V = V;
    type M = [bool; LANES];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        *x
    }

    #[inline(always)]
    fn store(self, v: V, out: &mut [f32; LANES]) {
        *out = v;
    }

    #[inline(always)]
    fn load_bytes(self, x: &[u8; 64]) -> V {
        each(|i| f32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 32]) -> V {
        each(|i| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32_const())
    }

    #[inline(always)]
    fn load_bf16_pairs(self, x: &[u8; 64]) -> (V, V) {
        let bf16 = |at: usize| f32::from_bits(u32::from(u16::from_le_bytes([x[at], x[at + 1]])) << 16);
        (each(|i| bf16(4 * i + 2)), each(|i| bf16(4 * i)))
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        each(|i| f32::from(x[i].cast_signed()))
    }

    #[inline(always)]
    fn load_nibbles(self, x: &[u8; 16]) -> (V, V) {
        (each(|i| f32::from(x[i] & 15) - 8.0), each(|i| f32::from(x[i] >> 4) - 8.0))
    }

    #[inline(always)]
    fn store_f16(self, v: V, out: &mut [u8; 32]) {
        for (bytes, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(v) {
            *bytes = f16::from_f32_const(x).to_le_bytes();
        }
    }

    #[inline(always)]
    fn store_rounded_i8(self, t: V, out: &mut [i8; LANES]) {
        // The integer is in the low bits, and the constant's own low bits are zero.
        *out = std::array::from_fn(|i| t[i].to_bits() as i8);
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        each(|i| a[i].abs())
    }

    #[inline(always)]
    fn neg(self, a: V) -> V {
        each(|i| -a[i])
    }

    #[inline(always)]
    fn copysign(self, a: V, sign: V) -> V {
        each(|i| a[i].copysign(sign[i]))
    }

    #[inline(always)]
    fn lt(self, a: V, b: V) -> [bool; LANES] {
        std::array::from_fn(|i| a[i] < b[i])
    }

    #[inline(always)]
    fn is_nan(self, a: V) -> [bool; LANES] {
        std::array::from_fn(|i| a[i].is_nan())
    }

    #[inline(always)]
    fn select(self, mask: [bool; LANES], yes: V, no: V) -> V {
        each(|i| if mask[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn add_to_exponent(self, p: V, t: V) -> V {
        each(|i| f32::from_bits(p[i].to_bits().wrapping_add(t[i].to_bits() << 23)))
    }

    #[inline(always)]
    fn flush(self, a: V) -> V {
        each(|i| if a[i].abs() < f32::MIN_POSITIVE { 0.0f32.copysign(a[i]) } else { a[i] })
    }

    #[inline(always)]
    fn fold_add(self, mut a: V) -> f32 {
        for h in [8, 4, 2, 1] {
            for i in 0..h {
                a[i] += a[i + h];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn fold_max(self, mut a: V) -> f32 {
        for h in [8, 4, 2, 1] {
            for i in 0..h {
                a[i] = if a[i] > a[i + h] { a[i] } else { a[i + h] };
            }
        }
        a[0]
    }
}
