//! Sixteen f32 lanes, the unit in which every operation of this crate is written.
//!
//! The body of an operation is generic over [`Simd`] and `#[inline(always)]`; `table.rs` instantiates it once per level
//! inside a function that enables the level's instructions. The lanes are sixteen everywhere ([f32; 16], four vectors of
//! Advanced SIMD, two ymm, one zmm), so that each output has one order of IEEE operations and the levels agree bit for
//! bit. Where hardware differs from IEEE or from itself, the definition is fixed here:
//!
//! - `min(a, b)` is `if a < b { a } else { b }` and `max(a, b)` is `if a > b { a } else { b }`: with a NaN among them,
//!   or two zeros, the result is `b`. That is what x86 does.
//! - `fma` rounds once.
//! - Subnormal numbers are kept, except by `flush`, which makes signed zeros of them.
//! - Which NaN comes out is not defined; that it is one, is.
//!
//! A value of a level's token is a proof that the machine has the level (`veritas-simd`), and the methods take one:
//! that is why they are safe to call.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

/// Lanes of a vector, on every level.
pub(crate) const LANES: usize = 16;

/// The operations on sixteen f32 lanes of one instruction-set level.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type V: Copy;
    /// Sixteen truth values.
    type M: Copy;

    /// Whether there are registers for sixteen accumulators besides their operands.
    const MANY_REGISTERS: bool;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, out: &mut [f32; LANES]);
    /// Sixteen little-endian f32 from bytes.
    fn load_bytes(self, x: &[u8; 64]) -> Self::V;
    /// Sixteen little-endian f16 from bytes, converted exactly.
    fn load_f16(self, x: &[u8; 32]) -> Self::V;
    /// Sixteen pairs of bf16: (the second of each pair, the first of each pair), converted exactly.
    fn load_bf16_pairs(self, x: &[u8; 64]) -> (Self::V, Self::V);
    /// Sixteen i8, converted exactly.
    fn load_i8(self, x: &[u8; 16]) -> Self::V;
    /// Sixteen bytes: (low nibbles, high nibbles) minus 8, converted exactly.
    fn load_nibbles(self, x: &[u8; 16]) -> (Self::V, Self::V);
    /// Rounds to f16, to nearest even, and stores little-endian.
    fn store_f16(self, v: Self::V, out: &mut [u8; 32]);

    /// For lanes `1.5 · 2^23 + n` with n from −128 to 127: the integers `n`.
    fn store_rounded_i8(self, t: Self::V, out: &mut [i8; LANES]);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    fn neg(self, a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign bit of `sign`.
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// `a < b`; false with a NaN.
    fn lt(self, a: Self::V, b: Self::V) -> Self::M;
    fn is_nan(self, a: Self::V) -> Self::M;
    /// `yes` where the mask is true, else `no`.
    fn select(self, mask: Self::M, yes: Self::V, no: Self::V) -> Self::V;
    /// The f32 whose bits are `bits(p) + (bits(t) << 23)`, wrapping: adds an integer `n` to the exponent of `p` if
    /// `t = 1.5 · 2^23 + n`.
    fn add_to_exponent(self, p: Self::V, t: Self::V) -> Self::V;
    /// Subnormal lanes become zeros of the same sign.
    fn flush(self, a: Self::V) -> Self::V;
    /// The canonical fold: for h in 8, 4, 2, 1: `a[i] + a[i + h]` for `i < h`.
    fn fold_add(self, a: Self::V) -> f32;
    /// The same fold with `max`.
    fn fold_max(self, a: Self::V) -> f32;

    /// Asks for the cache line of `bytes[at]`, which is about to be read; a hint that does nothing on some levels.
    #[inline(always)]
    fn prefetch(self, _bytes: &[u8], _at: usize) {}

    /// Up to sixteen numbers; the lanes beyond are `fill`.
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> Self::V {
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// The first `out.len()` lanes, at most sixteen.
    #[inline(always)]
    fn store_part(self, v: Self::V, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }
}
