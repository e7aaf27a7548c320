//! Quantised products with AVX2.
//!
//! Two ways, the same bits:
//!
//! - **Many activation rows**: panels of 16 weight rows times tiles of up to six columns (`panel`, `prompt`). Lanes are
//!   weight rows.
//! - **Few** (`decode`): the weights are read from the file's layout into registers, four rows at a time; lanes are
//!   weights, and the sums of four rows are added across lanes together. The formats with grids are unpacked through
//!   memory: one row at a time, or with several activation rows eight rows into a panel (`tile`).
//!
//! `vpmaddubsw` multiplies unsigned with signed bytes and adds pairs in i16, which saturates. With few rows, signed weights
//! are therefore split into magnitude and sign, the sign going to the activation: 2 · 128 · 127 = 32 512 fits.
//! (Activations are never −128, so the change of sign is exact.) Unsigned weights of up to 63 go in as they are: 2 · 63 ·
//! 127 = 16 002. The following `vpmaddwd` multiplies by the integer scale or by one, in i32.

mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod panel;
mod prompt;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod tile;
mod unpacked;
mod vectors;

use std::arch::x86_64::*;

use veritas_quant::GgmlType;
use veritas_quant::unpack::{self, Format, GROUP};

use self::panel::{Portable, Vector, Vectors};
use super::stretch::row_slices;
use crate::Activations;
use crate::table::RowsKernel;
use crate::tile::TileWriter;

pub(super) use unpacked::rows as decode_unpacked;

/// The kernel of a type, or `None` where only the portable one exists.
pub(super) fn rows(ty: GgmlType) -> Option<RowsKernel> {
    Some(match ty {
        GgmlType::Q4_0 => direct_rows::<unpack::Q4_0>,
        GgmlType::Q5_0 => direct_rows::<unpack::Q5_0>,
        GgmlType::Q8_0 => direct_rows::<unpack::Q8_0>,
        GgmlType::Q4_K => direct_rows::<unpack::Q4_K>,
        GgmlType::Q5_K => direct_rows::<unpack::Q5_K>,
        GgmlType::Q6_K => direct_rows::<unpack::Q6_K>,
        GgmlType::Q4_1 => direct_rows::<unpack::Q4_1>,
        GgmlType::Q5_1 => direct_rows::<unpack::Q5_1>,
        GgmlType::IQ4_NL => direct_rows::<unpack::IQ4_NL>,
        GgmlType::MXFP4 => direct_rows::<unpack::MXFP4>,
        GgmlType::Q2_K => direct_rows::<unpack::Q2_K>,
        GgmlType::Q3_K => direct_rows::<unpack::Q3_K>,
        GgmlType::IQ4_XS => direct_rows::<unpack::IQ4_XS>,
        GgmlType::IQ2_XXS => unpacked_rows::<unpack::IQ2_XXS>,
        GgmlType::IQ2_XS => unpacked_rows::<unpack::IQ2_XS>,
        GgmlType::IQ2_S => unpacked_rows::<unpack::IQ2_S>,
        GgmlType::IQ3_XXS => unpacked_rows::<unpack::IQ3_XXS>,
        GgmlType::IQ3_S => unpacked_rows::<unpack::IQ3_S>,
        GgmlType::IQ1_S => unpacked_rows::<unpack::IQ1_S>,
        GgmlType::IQ1_M => unpacked_rows::<unpack::IQ1_M>,
        _ => return None,
    })
}

/// A format whose blocks are multiplied straight from the file's layout.
pub(super) trait Direct: Format {
    /// Where the f16 factor stands in a block.
    const D_AT: usize;
    /// Where the f16 factor of the minimums stands; unused in formats without them.
    const D_MIN_AT: usize = 0;
    /// Whether the minimum is added, as in Q4_1 and Q5_1, and not subtracted.
    const MIN_IS_ADDED: bool = false;
    /// What [`Direct::dots`] counts each weight too high by, to be corrected by the sum of the activations.
    const OFFSET: i32 = 0;

    /// Partial sums of `scale · (quant + OFFSET) · activation` over the block: their total is what counts.
    ///
    /// # Safety
    /// The machine must have AVX2.
    unsafe fn dots(block: &[u8], q: &[i8], sums: &[i16]) -> __m256i;

    /// Partial sums of `min · sum`.
    ///
    /// # Safety
    /// The machine must have AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn mins(_block: &[u8], _sums: &[i16]) -> __m256i {
        _mm256_setzero_si256()
    }

    /// The factors of four blocks.
    ///
    /// # Safety
    /// The machine must have AVX2 and F16C.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn factors(blocks: [&[u8]; 4]) -> __m128 {
        halves(blocks, Self::D_AT)
    }
}

/// The rows of a format that is read in registers.
#[target_feature(enable = "avx2,fma,f16c")]
fn direct_rows<F: Vector>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    if acts.columns().is_some() {
        prompt::rows::<Vectors<F>>(w, n_rows, cols, acts, out);
    } else {
        decode::<F>(w, n_rows, cols, acts, out);
    }
}

/// The rows of a format that is unpacked through memory.
#[target_feature(enable = "avx2,fma,f16c")]
fn unpacked_rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    if acts.columns().is_some() {
        prompt::rows::<Portable<F>>(w, n_rows, cols, acts, out);
    } else if acts.rows() > 1 {
        tile::rows::<F>(w, n_rows, cols, acts, out);
    } else {
        unpacked::rows::<F>(w, n_rows, cols, acts, out);
    }
}

/// Weight rows that are read at once.
const DECODE_ROWS: usize = 4;

/// Four weight rows at a time straight from the file's layout, against each activation row.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn decode<F: Direct>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let n_blocks = cols / F::LEN;
    for first in (0..n_rows).step_by(DECODE_ROWS) {
        let rows = row_slices::<F, DECODE_ROWS>(w, n_rows, cols, first, 0, n_blocks);
        let n_valid = DECODE_ROWS.min(n_rows - first);
        for a in 0..acts.rows() {
            let products =
                decode_rows::<F>(&rows, n_blocks, acts.q_row(a), acts.scale_row(a), acts.sum_row(a));
            out.row_mut(a)[first..first + n_valid].copy_from_slice(&products[..n_valid]);
        }
    }
}

/// Four weight rows times one activation row.
#[target_feature(enable = "avx2,fma,f16c")]
fn decode_rows<F: Direct>(
    rows: &[&[u8]; DECODE_ROWS],
    n_blocks: usize,
    q: &[i8],
    scales: &[f32],
    sums: &[i16],
) -> [f32; DECODE_ROWS] {
    let mut acc = _mm_setzero_ps();
    for (block, &scale) in scales[..n_blocks].iter().enumerate() {
        let q = &q[block * F::LEN..][..F::LEN];
        let sums = &sums[block * F::LEN / GROUP..][..F::LEN / GROUP];
        let at = block * F::BYTES;
        let blocks = [
            &rows[0][at..at + F::BYTES],
            &rows[1][at..at + F::BYTES],
            &rows[2][at..at + F::BYTES],
            &rows[3][at..at + F::BYTES],
        ];
        let da = _mm_set1_ps(scale);
        // SAFETY: this function enables AVX2.
        let partial = unsafe {
            [
                F::dots(blocks[0], q, sums),
                F::dots(blocks[1], q, sums),
                F::dots(blocks[2], q, sums),
                F::dots(blocks[3], q, sums),
            ]
        };
        let mut dots = add_across(partial);
        if F::OFFSET != 0 {
            let sum: i32 = sums.iter().map(|&sum| i32::from(sum)).sum();
            dots = _mm_sub_epi32(dots, _mm_set1_epi32(F::OFFSET * sum));
        }
        // SAFETY: this function enables AVX2 and F16C.
        let d = unsafe { F::factors(blocks) };
        acc = _mm_fmadd_ps(_mm_mul_ps(d, da), _mm_cvtepi32_ps(dots), acc);
        if F::MINS {
            // SAFETY: this function enables AVX2.
            let partial = unsafe {
                [
                    F::mins(blocks[0], sums),
                    F::mins(blocks[1], sums),
                    F::mins(blocks[2], sums),
                    F::mins(blocks[3], sums),
                ]
            };
            let scale = _mm_mul_ps(halves(blocks, F::D_MIN_AT), da);
            let mins = _mm_cvtepi32_ps(add_across(partial));
            acc = if F::MIN_IS_ADDED {
                _mm_fmadd_ps(scale, mins, acc)
            } else {
                _mm_fnmadd_ps(scale, mins, acc)
            };
        }
    }
    let mut products = [0.0; DECODE_ROWS];
    // SAFETY: the array has four elements, and the store needs no alignment.
    unsafe { _mm_storeu_ps(products.as_mut_ptr(), acc) };
    products
}

/// The f16 at byte `at` of four blocks, as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(blocks: [&[u8]; 4], at: usize) -> __m128 {
    let half = |block: &[u8]| u64::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let bits = half(blocks[0]) | half(blocks[1]) << 16 | half(blocks[2]) << 32 | half(blocks[3]) << 48;
    _mm_cvtph_ps(_mm_cvtsi64_si128(bits as i64))
}

/// The totals of four vectors of eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_across(v: [__m256i; 4]) -> __m128i {
    let four = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four))
}

/// The total of one vector of eight sums.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes(v: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

/// Sums of neighbouring products of signed weights and activations.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_pairs(w: __m256i, q: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w))
}

/// Sums of four neighbouring products of unsigned weights of at most 127 and activations.
#[inline]
#[target_feature(enable = "avx2")]
fn unsigned_quads(w: __m256i, q: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(w, q), _mm256_set1_epi16(1))
}

/// The 32 bytes from `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes32(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: the slice has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 bytes to `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn store32(out: &mut [u8], at: usize, x: __m256i) {
    let out = &mut out[at..at + 32];
    // SAFETY: the slice has 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) };
}

/// The 16 bytes from `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes16(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: the slice has 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The 32 activations from `at`.
#[inline]
#[target_feature(enable = "avx2")]
fn q32(q: &[i8], at: usize) -> __m256i {
    let q = &q[at..at + 32];
    // SAFETY: the slice has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(q.as_ptr().cast()) }
}

/// Sixteen i16.
#[inline]
#[target_feature(enable = "avx2")]
fn words16(words: &[i16]) -> __m256i {
    let words = &words[..16];
    // SAFETY: the slice has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// The sum of the activations of a block of 32, in one of the lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_of_block(sums: &[i16]) -> __m256i {
    let sum = i32::from(sums[0]) + i32::from(sums[1]);
    _mm256_zextsi128_si256(_mm_cvtsi32_si128(sum))
}

/// The low and the high nibbles of 16 bytes: 32 weights in order.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(bytes: __m128i) -> __m256i {
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}
