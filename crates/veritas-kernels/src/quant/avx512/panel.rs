//! Thirty-two weight rows over a stretch of K, unpacked to what `vpdpbusd` reads.
//!
//! Lanes are weight rows, so a panel is the transpose of what lies in the file: rows are unpacked to bytes first, then
//! sixteen rows × sixteen dwords are transposed in registers.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use veritas_quant::unpack::{self, Format, GROUP, Unpacked};

use super::vectors::store;
use crate::quant::avx2::Direct;
use crate::quant::panel::STEP;

/// Weight rows of a vector.
pub(super) const LANES: usize = 16;
/// Weight rows of a panel: two vectors, so that each broadcast of activations serves two products.
pub(super) const ROWS: usize = 2 * LANES;
/// Most weights along K in a panel: 32 rows of them are 32 KB, the first-level cache.
pub(super) const LEN: usize = 1024;
/// Weights that a transposition takes from each row.
const TRANSPOSED: usize = 16 * STEP;

/// What is added to signed quants to make them unsigned.
const OFFSET: u8 = 128;

/// Unpacked weights: [`ROWS`] rows × up to [`LEN`] weights.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Per step of four weights: a dword per row. Quants of formats without minimums are 128 too high.
    pub(super) quants: [[[[u8; STEP]; LANES]; 2]; LEN / STEP],
    /// Per group of weights that share an integer scale: the scale of each row.
    pub(super) scales: [[[i32; LANES]; 2]; LEN / GROUP],
    /// Per two such groups: the minimums of each row.
    pub(super) mins: [[[[i16; 2]; LANES]; 2]; LEN / (2 * GROUP)],
    /// Per span: the factor of each row.
    pub(super) d: [[[f32; LANES]; 2]; LEN / 32],
    /// Per span: the factor of each row's minimums.
    pub(super) d_min: [[[f32; LANES]; 2]; LEN / 32],
    /// Sixteen rows on their way to `quants`.
    bytes: [[u8; LEN]; LANES],
}

impl Panel {
    /// A panel of zeros.
    pub(super) fn zeroed() -> Box<Self> {
        // SAFETY: every field is an array of numbers, for which all-zero bytes are a value.
        unsafe { Box::<Self>::new_zeroed().assume_init() }
    }

    /// Sixteen rows of `len` quants go from `bytes` to where the products read them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn transpose_bytes(&mut self, half: usize, len: usize) {
        for at in (0..len).step_by(TRANSPOSED) {
            // Beyond `len` lie bytes of an earlier stretch, which nobody reads.
            let rows: [__m512i; LANES] = std::array::from_fn(|r| load(&self.bytes[r][at..at + TRANSPOSED]));
            for (step, dwords) in transpose(rows).into_iter().enumerate() {
                let out = &mut self.quants[at / STEP + step][half];
                // SAFETY: the array has 64 bytes; the store needs no alignment.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), dwords) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8]) -> __m512i {
    assert!(bytes.len() >= 64);
    // SAFETY: 64 bytes are there; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The dword `j` of the row `i` becomes the dword `i` of the row `j`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // The dwords j, 4 + j, 8 + j and 12 + j of four rows, one in each 128 bits.
    let mut fours = pairs;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut out = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
        let odd = [_mm512_shuffle_i32x4::<0xDD>(a, b), _mm512_shuffle_i32x4::<0xDD>(c, d)];
        out[j] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        out[8 + j] = _mm512_shuffle_i32x4::<0xDD>(even[0], even[1]);
        out[12 + j] = _mm512_shuffle_i32x4::<0xDD>(odd[0], odd[1]);
    }
    out
}

/// A way to fill a panel with the weights of a format.
pub(super) trait Fill {
    /// The format.
    type Format: Format;

    /// Unpacks whole blocks of 32 rows, as many of each, at most [`LEN`] weights.
    ///
    /// # Safety
    /// The machine has AVX-512 (F, BW, VL) and F16C.
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]);
}

/// By the portable definition of the format, block by block.
pub(super) struct Portable<F>(PhantomData<F>);

impl<F: Format> Fill for Portable<F> {
    type Format = F;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]) {
        let offset = if F::MINS { 0 } else { OFFSET };
        let len = rows[0].len() / F::BYTES * F::LEN;
        let mut weights = Unpacked::default();
        let (groups, spans) = (F::LEN / F::GROUP, F::LEN / F::SPAN);
        for half in 0..2 {
            for r in 0..LANES {
                for (b, block) in rows[half * LANES + r].chunks_exact(F::BYTES).enumerate() {
                    F::unpack(block, &mut weights);
                    let bytes = &mut panel.bytes[r][b * F::LEN..][..F::LEN];
                    for (byte, &quant) in bytes.iter_mut().zip(&weights.quants) {
                        *byte = (quant as u8).wrapping_add(offset);
                    }
                    let of_group = |g: usize| g * F::GROUP / GROUP;
                    if F::SCALED {
                        for g in 0..groups {
                            panel.scales[b * groups + g][half][r] = i32::from(weights.scales[of_group(g)]);
                        }
                    }
                    for span in 0..spans {
                        panel.d[b * spans + span][half][r] = weights.d[span];
                    }
                    if F::MINS {
                        for pair in 0..groups / 2 {
                            let mins = [2 * pair, 2 * pair + 1].map(|g| weights.mins[of_group(g)]);
                            panel.mins[b * groups / 2 + pair][half][r] = mins;
                        }
                        panel.d_min[b][half][r] = weights.d_min;
                    }
                }
            }
            panel.transpose_bytes(half, len);
        }
    }
}

/// A format with a vector unpacker.
pub(super) trait Vector: Direct {
    /// The quants of a block as unsigned bytes; in formats without minimums they are 128 too high.
    ///
    /// # Safety
    /// The machine has AVX-512 (F, BW, VL). `block` and `out` have a block's length.
    unsafe fn quants(block: &[u8], out: &mut [u8]);

    /// The scales and the minimums of the groups of a block.
    #[inline(always)]
    fn scales(_block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        ([1; GROUP], [1; GROUP])
    }
}

/// By vectors.
pub(super) struct Vectors<F>(PhantomData<F>);

impl<F: Vector> Fill for Vectors<F> {
    type Format = F;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &[&[u8]; ROWS]) {
        let n_blocks = rows[0].len() / F::BYTES;
        assert!(rows.iter().all(|row| row.len() == n_blocks * F::BYTES) && n_blocks * F::LEN <= LEN);
        for half in 0..2 {
            let rows: &[&[u8]; LANES] = rows[half * LANES..][..LANES].try_into().expect("sixteen rows");
            for (row, bytes) in rows.iter().zip(&mut panel.bytes) {
                for (block, out) in row.chunks_exact(F::BYTES).zip(bytes.chunks_exact_mut(F::LEN)) {
                    // SAFETY: the caller makes sure of the machine; the chunks have a block's lengths.
                    unsafe { F::quants(block, out) };
                }
            }
            panel.transpose_bytes(half, n_blocks * F::LEN);
            for b in 0..n_blocks {
                let at = b * F::BYTES;
                store(&mut panel.d[b][half], halves(rows, at + F::D_AT));
                if F::MINS {
                    let d_min = halves(rows, at + F::D_MIN_AT);
                    // The sign changes where the minimum is added.
                    let sign = if F::MIN_IS_ADDED { i32::MIN } else { 0 };
                    let d_min = _mm512_xor_si512(_mm512_castps_si512(d_min), _mm512_set1_epi32(sign));
                    store(&mut panel.d_min[b][half], _mm512_castsi512_ps(d_min));
                }
                if F::SCALED {
                    let groups = F::LEN / F::GROUP;
                    let scales_out = &mut panel.scales[b * groups..][..groups];
                    let mins_out = &mut panel.mins[b * groups / 2..][..groups / 2];
                    for (r, row) in rows.iter().enumerate() {
                        let (scales, mins) = F::scales(&row[at..at + F::BYTES]);
                        for (out, scale) in scales_out.iter_mut().zip(scales) {
                            out[half][r] = i32::from(scale);
                        }
                        if F::MINS {
                            for (out, pair) in mins_out.iter_mut().zip(mins.as_chunks::<2>().0) {
                                out[half][r] = [i16::from(pair[0]), i16::from(pair[1])];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The f16 at byte `at` of sixteen rows of one length.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(rows: &[&[u8]; LANES], at: usize) -> __m512 {
    assert!(at + 2 <= rows[0].len());
    let mut words = [0u16; LANES];
    for (word, row) in words.iter_mut().zip(rows) {
        debug_assert_eq!(row.len(), rows[0].len());
        // SAFETY: the first row has two bytes there, and the caller's rows are of one length.
        *word = unsafe { row.as_ptr().add(at).cast::<u16>().read_unaligned() };
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = words.map(|word| word as i16);
    _mm512_cvtph_ps(_mm256_setr_epi16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load32(bytes: &[u8]) -> __m256i {
    assert!(bytes.len() >= 32);
    // SAFETY: 32 bytes are there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store32(out: &mut [u8], x: __m256i) {
    assert!(out.len() >= 32);
    // SAFETY: 32 bytes are there; the store needs no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) };
}

/// The codes of 16 bytes: the low nibbles, then the high ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn nibbles16(codes: &[u8]) -> __m256i {
    assert!(codes.len() >= 16);
    // SAFETY: 16 bytes are there; the load needs no alignment.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(codes), codes);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// `codes`, and 16 more where the bit of `fifth` is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn with_fifth(codes: __m256i, fifth: u32) -> __m256i {
    _mm256_mask_add_epi8(codes, fifth, codes, _mm256_set1_epi8(16))
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// A format's quants in one expression over the block, of 32 weights.
macro_rules! quants_of_32 {
    ($format:ident, $block:ident => $quants:expr) => {
        impl Vector for unpack::$format {
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            unsafe fn quants($block: &[u8], out: &mut [u8]) {
                store32(out, $quants);
            }
        }
    };
}

quants_of_32!(Q8_0, block => _mm256_xor_si256(load32(&block[2..]), _mm256_set1_epi8(-128)));
quants_of_32!(Q4_0, block => _mm256_add_epi8(nibbles16(&block[2..]), _mm256_set1_epi8((OFFSET - 8) as i8)));
quants_of_32!(Q4_1, block => nibbles16(&block[4..]));
quants_of_32!(Q5_0, block => _mm256_add_epi8(
    with_fifth(nibbles16(&block[6..]), u32_at(block, 2)),
    _mm256_set1_epi8((OFFSET - 16) as i8)
));
quants_of_32!(Q5_1, block => with_fifth(nibbles16(&block[8..]), u32_at(block, 4)));

/// The six-bit scales and minimums of Q4_K and Q5_K.
#[inline(always)]
fn six_bit(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
    let [a, b, c] = [u32_at(block, 4), u32_at(block, 8), u32_at(block, 12)];
    let (six, four, two) = (0x3F3F_3F3F, 0x0F0F_0F0F, 0x3030_3030);
    let eight = |low: u32, high: u32| {
        let mut out = [0; GROUP];
        for (i, byte) in low.to_le_bytes().into_iter().chain(high.to_le_bytes()).enumerate() {
            out[i] = byte as i8;
        }
        out
    };
    (eight(a & six, c & four | (a >> 2) & two), eight(b & six, (c >> 4) & four | (b >> 2) & two))
}

impl Vector for unpack::Q4_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn quants(block: &[u8], out: &mut [u8]) {
        let four = _mm256_set1_epi8(15);
        for (codes, out) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)) {
            let codes = load32(codes);
            store32(out, _mm256_and_si256(codes, four));
            store32(&mut out[32..], _mm256_and_si256(_mm256_srli_epi16::<4>(codes), four));
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        six_bit(block)
    }
}

impl Vector for unpack::Q5_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn quants(block: &[u8], out: &mut [u8]) {
        let (four, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let mut fifth = load32(&block[16..]);
        for (codes, out) in block[48..].chunks_exact(32).zip(out.chunks_exact_mut(64)) {
            let codes = load32(codes);
            let low = _mm256_and_si256(codes, four);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), four);
            // The bits of the two sub-blocks are the lowest two: to bit 4.
            let bits = _mm256_and_si256(_mm256_slli_epi16::<4>(fifth), sixteen);
            store32(out, _mm256_or_si256(low, bits));
            let bits = _mm256_and_si256(_mm256_slli_epi16::<3>(fifth), sixteen);
            store32(&mut out[32..], _mm256_or_si256(high, bits));
            fifth = _mm256_srli_epi16::<2>(fifth);
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        six_bit(block)
    }
}

impl Vector for unpack::Q6_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn quants(block: &[u8], out: &mut [u8]) {
        let (four, two) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
        let offset = _mm256_set1_epi8((OFFSET - 32) as i8);
        for (half, out) in out.chunks_exact_mut(128).enumerate() {
            let low = [load32(&block[half * 64..]), load32(&block[half * 64 + 32..])];
            let high = load32(&block[128 + half * 32..]);
            let codes = [
                (low[0], _mm256_slli_epi16::<4>(high)),
                (low[1], _mm256_slli_epi16::<2>(high)),
                (_mm256_srli_epi16::<4>(low[0]), high),
                (_mm256_srli_epi16::<4>(low[1]), _mm256_srli_epi16::<2>(high)),
            ];
            for ((low, high), out) in codes.into_iter().zip(out.chunks_exact_mut(32)) {
                let code = _mm256_or_si256(_mm256_and_si256(low, four), _mm256_and_si256(high, two));
                store32(out, _mm256_add_epi8(code, offset));
            }
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        (std::array::from_fn(|g| block[192 + g] as i8), [0; GROUP])
    }
}
