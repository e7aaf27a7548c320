//! Thirty-two weight rows over a stretch of K, unpacked to what `vpdpbusd` reads.
//!
//! Lanes are weight rows, so a panel is the transpose of what lies in the file: sixteen rows × sixteen dwords at a time,
//! in registers. With few columns, what a weight costs here decides. Codes are therefore transposed while several share a
//! byte, and unpacked afterwards; factors and scales come by vectors, too.

mod blocks256;
mod blocks32;

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use veritas_quant::unpack::{Format, GROUP, Unpacked};

pub(super) use self::blocks32::Blocks32;
pub(super) use self::blocks256::Blocks256;
use super::decode::bytes16;
use crate::columns::STEP;

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

/// The bytes of [`ROWS`] weight rows over a stretch of K, where they lie in the file. Beyond the last row it is repeated.
#[derive(Clone, Copy)]
pub(super) struct PanelRows<'w> {
    data: &'w [u8],
    /// Rows that exist, less one.
    last: usize,
    row_bytes: usize,
    at: usize,
    len: usize,
}

impl<'w> PanelRows<'w> {
    /// The bytes `stretch` of the first `n_rows` rows, at least one and at most [`ROWS`], of `row_bytes` bytes each.
    ///
    /// # Panics
    /// If `data` does not hold them.
    pub(super) fn new(data: &'w [u8], n_rows: usize, row_bytes: usize, stretch: Range<usize>) -> Self {
        let n_rows = n_rows.min(ROWS);
        assert!(stretch.start <= stretch.end && stretch.end <= row_bytes, "a stretch of a row");
        assert!(n_rows > 0 && data.len() / n_rows >= row_bytes, "whole rows");
        Self { data, last: n_rows - 1, row_bytes, at: stretch.start, len: stretch.len() }
    }

    /// Bytes of each row.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A part of each row.
    #[inline(always)]
    fn part(&self, bytes: Range<usize>) -> Self {
        assert!(bytes.start <= bytes.end && bytes.end <= self.len, "a part of the stretch");
        Self { at: self.at + bytes.start, len: bytes.len(), ..*self }
    }

    /// The bytes of a row.
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> &'w [u8] {
        let at = r.min(self.last) * self.row_bytes + self.at;
        // SAFETY: `new` made sure that the rows up to `last` are there with `row_bytes` bytes each, which `at + len` does
        // not exceed.
        unsafe { self.data.get_unchecked(at..at + self.len) }
    }
}

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
                store_quads(&mut self.quants[at / STEP + step][half], dwords);
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

#[inline]
#[target_feature(enable = "avx512f")]
fn store_quads(out: &mut [[u8; STEP]; LANES], x: __m512i) {
    // SAFETY: the array has 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_dwords(out: &mut [i32; LANES], x: __m512i) {
    // SAFETY: the array has 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_words(out: &mut [[i16; 2]; LANES], x: __m512i) {
    // SAFETY: the array has 64 bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) };
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
        let lanes = transpose_lanes([fours[j], fours[4 + j], fours[8 + j], fours[12 + j]]);
        [out[j], out[4 + j], out[8 + j], out[12 + j]] = lanes;
    }
    out
}

/// The lane i of the vector j becomes the lane j of the vector i.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_lanes([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
    let odd = [_mm512_shuffle_i32x4::<0xDD>(a, b), _mm512_shuffle_i32x4::<0xDD>(c, d)];
    [
        _mm512_shuffle_i32x4::<0x88>(even[0], even[1]),
        _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]),
        _mm512_shuffle_i32x4::<0xDD>(even[0], even[1]),
        _mm512_shuffle_i32x4::<0xDD>(odd[0], odd[1]),
    ]
}

/// The sixteen bytes at `at` of sixteen blocks: the vector `j` has the dword `j` of each.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn transpose16(blocks: &PanelRows<'_>, half: usize, at: usize) -> [__m512i; 4] {
    // The lane i of the vector q is of the row 4i + q, so that unpacking gives them in order. Loads that broadcast put
    // them there: shuffles are what a machine has fewer of.
    let mut four = [_mm512_setzero_si512(); 4];
    for q in 0..4 {
        let row = |i: usize| blocks.row(half * LANES + 4 * i + q);
        let mut lanes = _mm512_broadcast_i32x4(bytes16(row(0), at));
        lanes = _mm512_mask_broadcast_i32x4(lanes, 0x00F0, bytes16(row(1), at));
        lanes = _mm512_mask_broadcast_i32x4(lanes, 0x0F00, bytes16(row(2), at));
        four[q] = _mm512_mask_broadcast_i32x4(lanes, 0xF000, bytes16(row(3), at));
    }
    let low = [_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpacklo_epi32(four[2], four[3])];
    let high = [_mm512_unpackhi_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[2], four[3])];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}

/// A way to fill a panel with the weights of a format.
pub(super) trait Fill {
    /// The format.
    type Format: Format;

    /// Unpacks whole blocks of 32 rows, as many of each, at most [`LEN`] weights.
    ///
    /// # Safety
    /// The machine has the AVX-512 level.
    unsafe fn fill(panel: &mut Panel, rows: &PanelRows<'_>);
}

/// By the portable definition of the format, block by block.
pub(super) struct Portable<F>(PhantomData<F>);

impl<F: Format> Fill for Portable<F> {
    type Format = F;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &PanelRows<'_>) {
        let offset = if F::MINS { 0 } else { OFFSET };
        let len = rows.len() / F::BYTES * F::LEN;
        let mut weights = Unpacked::default();
        let (groups, spans) = (F::LEN / F::GROUP, F::LEN / F::SPAN);
        for half in 0..2 {
            for r in 0..LANES {
                for (b, block) in rows.row(half * LANES + r).chunks_exact(F::BYTES).enumerate() {
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
