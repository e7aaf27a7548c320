//! Sixteen weight rows over a stretch of K, unpacked to what `vpmaddubsw` reads.
//!
//! Lanes are weight rows, so a panel is the transpose of what lies in the file: rows are unpacked to unsigned codes
//! first, then eight rows × eight dwords are transposed in registers. Codes of eight bits become two planes of nibbles.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use veritas_quant::unpack::{Format, GROUP, Unpacked};

use super::vectors::store;
use super::{Direct, bytes32};
use crate::columns::STEP;

/// Weight rows of a vector.
pub(super) const LANES: usize = 8;
/// Weight rows of a panel: two vectors, so that each broadcast of activations serves two products.
pub(super) const ROWS: usize = 2 * LANES;
/// Most codes along K in a panel, those of two planes counted twice: 16 rows of them are 16 KB, half of the first-level
/// cache.
pub(super) const LEN: usize = 1024;

/// Codes that a transposition takes from each row: a plane of them is what the products read in one go.
pub(super) const TRANSPOSED: usize = 8 * STEP;

/// Unpacked weights: [`ROWS`] rows × up to [`LEN`] codes.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Per step of four weights: a dword of codes per row. Each 32 codes of eight bits are 32 low nibbles, then 32 high ones.
    pub(super) codes: [[[[u8; STEP]; LANES]; 2]; LEN / STEP],
    /// Per group of weights that share an integer scale: the scale of each row, twice.
    pub(super) scales: [[[[i16; 2]; LANES]; 2]; LEN / GROUP],
    /// Per two such groups: the minimums of each row; in formats without them −offset · scale.
    pub(super) mins: [[[[i16; 2]; LANES]; 2]; LEN / (2 * GROUP)],
    /// Per span: the factor of each row.
    pub(super) d: [[[f32; LANES]; 2]; LEN / 32],
    /// Per span: the factor of each row's minimums.
    pub(super) d_min: [[[f32; LANES]; 2]; LEN / 32],
    /// Eight rows on their way to `codes`.
    bytes: [[u8; LEN]; LANES],
}

impl Panel {
    /// A panel of zeros.
    pub(super) fn zeroed() -> Box<Self> {
        // SAFETY: every field is an array of numbers, for which all-zero bytes are a value.
        unsafe { Box::<Self>::new_zeroed().assume_init() }
    }

    /// Eight rows of `len` codes go from `bytes` to where the products read them.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose_bytes<const PLANES: usize>(&mut self, half: usize, len: usize) {
        let low = _mm256_set1_epi8(15);
        for at in (0..len).step_by(TRANSPOSED) {
            let mut rows = [_mm256_setzero_si256(); LANES];
            for (row, bytes) in rows.iter_mut().zip(&self.bytes) {
                *row = bytes32(bytes, at);
            }
            let steps = &mut self.codes[at / STEP * PLANES..][..PLANES * TRANSPOSED / STEP];
            for (step, dwords) in transpose(rows).into_iter().enumerate() {
                if PLANES == 1 {
                    put(&mut steps[step][half], dwords);
                } else {
                    put(&mut steps[step][half], _mm256_and_si256(dwords, low));
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(dwords), low);
                    put(&mut steps[TRANSPOSED / STEP + step][half], high);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn put(out: &mut [[u8; STEP]; LANES], x: __m256i) {
    // SAFETY: the array has 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) };
}

/// The dword `j` of the row `i` becomes the dword `i` of the row `j`.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let mut pairs = rows;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // The dwords j and 4 + j of four rows, one in each 128 bits.
    let mut fours = pairs;
    for i in (0..8).step_by(4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut out = fours;
    for j in 0..4 {
        out[j] = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
        out[4 + j] = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
    }
    out
}

/// A way to fill a panel with the weights of a format.
pub(super) trait Fill {
    /// The format.
    type Format: Format;
    /// Bits of a code.
    const BITS: u32;
    /// What a code is greater by than the quant: a power of two, and 0 in formats with minimums.
    const OFFSET: u8;

    /// Unpacks whole blocks of 16 rows, as many of each, at most [`LEN`] codes.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C.
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]);
}

/// Planes of codes of so many bits.
pub(super) const fn planes(bits: u32) -> usize {
    if bits == 8 { 2 } else { 1 }
}

/// A format whose codes are unpacked by vectors.
pub(super) trait Vector: Direct {
    /// Bits of a code: 4, 5, 6 or 8.
    const BITS: u32;
    /// What [`Vector::codes`] counts each quant too high by, which makes it unsigned; 0 in formats with minimums.
    const CODE_OFFSET: u8;

    /// The codes of a block, in the order of the weights.
    ///
    /// # Safety
    /// The machine has AVX2. `block` and `out` have a block's length.
    unsafe fn codes(block: &[u8], out: &mut [u8]);

    /// The scales and the minimums of the groups of a block.
    #[inline(always)]
    fn scales(_block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        ([1; GROUP], [0; GROUP])
    }
}

/// By vectors.
pub(super) struct Vectors<F>(PhantomData<F>);

impl<F: Vector> Fill for Vectors<F> {
    type Format = F;
    const BITS: u32 = F::BITS;
    const OFFSET: u8 = F::CODE_OFFSET;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]) {
        let n_blocks = rows[0].len() / F::BYTES;
        assert!(rows.iter().all(|row| row.len() == n_blocks * F::BYTES));
        assert!(n_blocks * F::LEN * planes(F::BITS) <= LEN);
        for (half, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
            for (row, bytes) in rows.iter().zip(&mut panel.bytes) {
                for (block, out) in row.chunks_exact(F::BYTES).zip(bytes.chunks_exact_mut(F::LEN)) {
                    // SAFETY: the caller makes sure of the machine; the chunks have a block's lengths.
                    unsafe { F::codes(block, out) };
                }
            }
            match planes(F::BITS) {
                1 => panel.transpose_bytes::<1>(half, n_blocks * F::LEN),
                _ => panel.transpose_bytes::<2>(half, n_blocks * F::LEN),
            }
            for b in 0..n_blocks {
                let blocks = |r: usize| &rows[r][b * F::BYTES..][..F::BYTES];
                // SAFETY: the caller makes sure of the machine.
                let [low, high] = unsafe {
                    [
                        F::factors([blocks(0), blocks(1), blocks(2), blocks(3)]),
                        F::factors([blocks(4), blocks(5), blocks(6), blocks(7)]),
                    ]
                };
                store(&mut panel.d[b][half], _mm256_set_m128(high, low));
                if F::MINS {
                    let low = super::halves([blocks(0), blocks(1), blocks(2), blocks(3)], F::D_MIN_AT);
                    let high = super::halves([blocks(4), blocks(5), blocks(6), blocks(7)], F::D_MIN_AT);
                    // The sign changes where the minimum is added.
                    let sign = _mm256_set1_ps(if F::MIN_IS_ADDED { -0.0 } else { 0.0 });
                    store(&mut panel.d_min[b][half], _mm256_xor_ps(_mm256_set_m128(high, low), sign));
                }
                if F::SCALED {
                    for r in 0..LANES {
                        let (scales, mins) = F::scales(blocks(r));
                        panel.set_scales::<F>(b, half, r, i16::from(F::CODE_OFFSET), |g| {
                            (i16::from(scales[g]), i16::from(mins[g]))
                        });
                    }
                }
            }
        }
    }
}

impl Panel {
    /// Sets the scales and the minimums of a block of a row, which `of_group` gives by the group.
    #[inline(always)]
    fn set_scales<F: Format>(
        &mut self,
        block: usize,
        half: usize,
        row: usize,
        offset: i16,
        of_group: impl Fn(usize) -> (i16, i16),
    ) {
        let n = F::LEN / F::GROUP;
        let min = |(scale, min): (i16, i16)| if F::MINS { min } else { -offset * scale };
        let scales = &mut self.scales[block * n..][..n];
        for (g, scales) in scales.iter_mut().enumerate() {
            scales[half][row] = [of_group(g).0; 2];
        }
        let mins = &mut self.mins[block * n / 2..][..n / 2];
        for (pair, mins) in mins.iter_mut().enumerate() {
            mins[half][row] = [min(of_group(2 * pair)), min(of_group(2 * pair + 1))];
        }
    }
}

/// By the portable definition of a format with a grid, block by block.
pub(super) struct Portable<F>(PhantomData<F>);

impl<F: Format> Fill for Portable<F> {
    type Format = F;
    /// The greatest quant of these formats is 62 in magnitude.
    const BITS: u32 = 7;
    const OFFSET: u8 = 64;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]) {
        const { assert!(F::SPAN == 256 && F::SCALED && !F::MINS) };
        let len = rows[0].len() / F::BYTES * F::LEN;
        let mut weights = Unpacked::default();
        for (half, rows) in rows.as_chunks::<LANES>().0.iter().enumerate() {
            for (r, row) in rows.iter().enumerate() {
                for (b, block) in row.chunks_exact(F::BYTES).enumerate() {
                    F::unpack(block, &mut weights);
                    let bytes = &mut panel.bytes[r][b * F::LEN..][..F::LEN];
                    for (byte, &quant) in bytes.iter_mut().zip(&weights.quants) {
                        *byte = (quant as u8).wrapping_add(Self::OFFSET);
                    }
                    panel.d[b][half][r] = weights.d[0];
                    panel.set_scales::<F>(b, half, r, i16::from(Self::OFFSET), |g| {
                        (weights.scales[g * F::GROUP / GROUP], 0)
                    });
                }
            }
            panel.transpose_bytes::<1>(half, len);
        }
    }
}
