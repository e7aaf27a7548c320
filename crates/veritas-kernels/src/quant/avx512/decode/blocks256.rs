//! Blocks of 256 weights with integer scales: one row × four blocks at a time.

use std::arch::x86_64::*;

use veritas_quant::unpack::Format;

use super::blocks32::{even_lanes, odd_lanes};
use super::{
    AHEAD, COLUMNS, add_lanes, add_pairs, add_within_lanes, bytes16, floats, floats4, prefetch, q64, words32,
};
use crate::Activations;
use crate::tile::TileWriter;

/// Blocks of a step.
const BLOCKS: usize = 4;

/// What the headers of up to four blocks say.
///
/// Where 32 weights share a scale, the first vector of `scales` and of `mins` has eight words per block, lane by lane;
/// where 16 do, both have sixteen words for each of two blocks.
#[derive(Clone, Copy)]
pub(in crate::quant::avx512) struct Headers {
    /// The factors, one per block.
    pub(super) d: __m128,
    /// The factors of the minimums.
    pub(super) d_min: __m128,
    pub(super) scales: [__m512i; 2],
    /// The minimums; in formats without them −offset · scale, where the codes are too high by the offset.
    pub(super) mins: [__m512i; 2],
}

impl Headers {
    // SAFETY: all-zero bits are a value of a vector.
    const ZERO: Self = unsafe { std::mem::zeroed() };
}

/// A format of blocks of 256 that is read four blocks at a time.
pub(in crate::quant::avx512) trait Block256: Format {
    /// Whether the codes come in the order of [`Activations::q_row_paired`], or ascending.
    const PAIRED: bool;

    /// The headers of `N` blocks; what belongs to further blocks is unspecified.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn headers<const N: usize>(blocks: &[u8]) -> Headers;

    /// The unsigned codes of a block, at most 63 unless the format has a [`Block256::dot`] of its own.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn codes(block: &[u8]) -> [__m512i; 4];

    /// The scale of each pair of codes, in the codes' order, of the block `PLACE` of the headers.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn scales<const PLACE: usize>(headers: &Headers) -> [__m512i; 4];

    /// Partial sums of scale · code · activation over the 256 activations from `at`.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn dot(codes: &[__m512i; 4], scales: &[__m512i; 4], q: &[i8], at: usize) -> __m512i {
        let mut dot = _mm512_setzero_si512();
        for v in 0..4 {
            // At most 2 · 63 · 127 = 16 002: no saturation.
            let pairs = _mm512_maddubs_epi16(codes[v], q64(q, at + 64 * v));
            dot = add_pairs(dot, pairs, scales[v]);
        }
        dot
    }
}

/// All weight rows times all activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(in crate::quant::avx512) fn rows<F: Block256>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = cols / F::LEN * F::BYTES;
    for r in 0..n_rows {
        let row = &w[r * row_bytes..][..row_bytes];
        let mut a = 0;
        while a < acts.rows() {
            a += match acts.rows() - a {
                1 => store(&products::<F, 1>(row, acts, a), a, r, out),
                2 => store(&products::<F, 2>(row, acts, a), a, r, out),
                3 => store(&products::<F, 3>(row, acts, a), a, r, out),
                _ => store(&products::<F, COLUMNS>(row, acts, a), a, r, out),
            };
        }
    }
}

/// Writes the products of row `r` with the activation rows from `a` on. Returns how many these are.
#[inline(always)]
fn store(products: &[f32], a: usize, r: usize, out: &mut TileWriter<'_>) -> usize {
    for (c, &product) in products.iter().enumerate() {
        out.set(a + c, r, product);
    }
    products.len()
}

/// One weight row times the activation rows `a..a + C`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn products<F: Block256, const C: usize>(row: &[u8], acts: &Activations, a: usize) -> [f32; C] {
    let mut columns = [Column::EMPTY; C];
    for c in 0..C {
        columns[c] = Column::new::<F>(acts, a + c);
    }
    let step_bytes = BLOCKS * F::BYTES;
    let mut acc = [0.0; C];
    let steps = row.chunks_exact(step_bytes);
    let rest = steps.remainder();
    let n_steps = steps.len();
    // The floating-point steps of a step are taken in the next one, and the headers read in the one before, so that
    // their latency is hidden by the integers.
    let mut waiting = [Terms::ZERO; C];
    let mut headers = Headers::ZERO;
    if n_steps > 0 {
        // SAFETY: this function enables the level.
        headers = unsafe { F::headers::<BLOCKS>(&row[..step_bytes]) };
    }
    for (step, blocks) in steps.enumerate() {
        if a == 0 {
            prefetch(blocks.as_ptr(), AHEAD, step_bytes);
        }
        let next = (step + 1).min(n_steps - 1) * step_bytes;
        // SAFETY: this function enables the level.
        let next = unsafe { F::headers::<BLOCKS>(&row[next..next + step_bytes]) };
        if step > 0 {
            for c in 0..C {
                acc[c] = waiting[c].add_to::<F, BLOCKS>(acc[c]);
            }
        }
        multiply::<F, C, BLOCKS>(blocks, &headers, &columns, step, &mut waiting);
        headers = next;
    }
    if n_steps > 0 {
        for c in 0..C {
            acc[c] = waiting[c].add_to::<F, BLOCKS>(acc[c]);
        }
    }
    match rest.len() / F::BYTES {
        1 => add_rest::<F, C, 1>(rest, &columns, n_steps, &mut acc),
        2 => add_rest::<F, C, 2>(rest, &columns, n_steps, &mut acc),
        3 => add_rest::<F, C, 3>(rest, &columns, n_steps, &mut acc),
        _ => {}
    }
    acc
}

/// Adds the products over the last `N` blocks, fewer than a step has.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_rest<F: Block256, const C: usize, const N: usize>(
    blocks: &[u8],
    columns: &[Column<'_>; C],
    step: usize,
    acc: &mut [f32; C],
) {
    // SAFETY: this function enables the level.
    let headers = unsafe { F::headers::<N>(blocks) };
    let mut terms = [Terms::ZERO; C];
    multiply::<F, C, N>(blocks, &headers, columns, step, &mut terms);
    for c in 0..C {
        acc[c] = terms[c].add_to::<F, N>(acc[c]);
    }
}

/// An activation row, four blocks at a time; beyond its end are zeros.
#[derive(Clone, Copy)]
struct Column<'a> {
    /// The activations in the order of the codes.
    q: &'a [[i8; 1024]],
    scales: &'a [[f32; 4]],
    /// The sums of each 16.
    sums: &'a [[i16; 64]],
    /// The sums of each 32.
    sums_paired: &'a [[i16; 32]],
}

impl<'a> Column<'a> {
    const EMPTY: Self = Self { q: &[], scales: &[], sums: &[], sums_paired: &[] };

    #[inline(always)]
    fn new<F: Block256>(acts: &'a Activations, a: usize) -> Self {
        let q = if F::PAIRED { acts.q_row_paired(a) } else { acts.q_row_padded(a) };
        Self {
            q: q.as_chunks().0,
            scales: acts.scale_row_padded(a).as_chunks().0,
            sums: acts.sum_row_padded(a).as_chunks().0,
            sums_paired: acts.sum_row_paired(a).as_chunks().0,
        }
    }
}

/// What the floating-point steps of four blocks need.
#[derive(Clone, Copy)]
struct Terms {
    /// d · da.
    scale: __m128,
    /// Partial sums of the products, one vector per block.
    dots: [__m512i; BLOCKS],
    /// d_min · da.
    min_scale: __m128,
    /// Partial sums of [`Headers::mins`] times sums, one lane of 128 bits per block.
    mins: __m512i,
}

impl Terms {
    // SAFETY: all-zero bits are a value of a vector.
    const ZERO: Self = unsafe { std::mem::zeroed() };

    /// The steps of the first `N` blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,fma")]
    fn add_to<F: Block256, const N: usize>(&self, mut acc: f32) -> f32 {
        let mut dots = add_lanes(add_within_lanes(self.dots));
        let of_mins = total_of_lanes(self.mins);
        let scale = floats(self.scale);
        let (mut mins, mut min_scale) = ([0.0; 4], [0.0; 4]);
        if F::MINS {
            mins = floats(_mm_cvtepi32_ps(of_mins));
            min_scale = floats(self.min_scale);
        } else {
            dots = _mm_add_epi32(dots, of_mins);
        }
        let dots = floats(_mm_cvtepi32_ps(dots));
        for b in 0..N {
            acc = scale[b].mul_add(dots[b], acc);
            if F::MINS {
                acc = (-min_scale[b]).mul_add(mins[b], acc);
            }
        }
        acc
    }
}

/// Multiplies `N` blocks with the columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply<F: Block256, const C: usize, const N: usize>(
    blocks: &[u8],
    headers: &Headers,
    columns: &[Column<'_>; C],
    step: usize,
    terms: &mut [Terms; C],
) {
    let blocks = &blocks[..N * F::BYTES];
    for c in 0..C {
        let da = floats4(&columns[c].scales[step], 0);
        terms[c].scale = _mm_mul_ps(headers.d, da);
        if F::MINS {
            terms[c].min_scale = _mm_mul_ps(headers.d_min, da);
        }
        terms[c].mins = if F::GROUP == 16 {
            let sums = &columns[c].sums[step];
            let first = _mm512_madd_epi16(headers.mins[0], words32(sums, 0));
            let second = _mm512_madd_epi16(headers.mins[1], words32(sums, 32));
            _mm512_add_epi32(even_lanes(first, second), odd_lanes(first, second))
        } else {
            _mm512_madd_epi16(headers.mins[0], words32(&columns[c].sums_paired[step], 0))
        };
    }
    multiply_block::<F, C, 0>(blocks, headers, columns, step, terms);
    if N > 1 {
        multiply_block::<F, C, 1>(blocks, headers, columns, step, terms);
    }
    if N > 2 {
        multiply_block::<F, C, 2>(blocks, headers, columns, step, terms);
    }
    if N > 3 {
        multiply_block::<F, C, 3>(blocks, headers, columns, step, terms);
    }
}

/// Multiplies the block `PLACE` of a step with the columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_block<F: Block256, const C: usize, const PLACE: usize>(
    blocks: &[u8],
    headers: &Headers,
    columns: &[Column<'_>; C],
    step: usize,
    terms: &mut [Terms; C],
) {
    let block = &blocks[PLACE * F::BYTES..(PLACE + 1) * F::BYTES];
    // SAFETY: this function enables the level.
    let (codes, scales) = unsafe { (F::codes(block), F::scales::<PLACE>(headers)) };
    for c in 0..C {
        // SAFETY: this function enables the level.
        terms[c].dots[PLACE] = unsafe { F::dot(&codes, &scales, &columns[c].q[step], 256 * PLACE) };
    }
}

/// The 16 bytes at byte `AT` of each of `N` blocks of `BYTES` bytes, one block per lane of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn lanes_of_blocks<const N: usize, const BYTES: usize, const AT: usize>(blocks: &[u8]) -> __m512i {
    let mut lanes = _mm512_castsi128_si512(bytes16(blocks, AT));
    if N > 1 {
        lanes = _mm512_inserti32x4::<1>(lanes, bytes16(blocks, BYTES + AT));
    }
    if N > 2 {
        lanes = _mm512_inserti32x4::<2>(lanes, bytes16(blocks, 2 * BYTES + AT));
    }
    if N > 3 {
        lanes = _mm512_inserti32x4::<3>(lanes, bytes16(blocks, 3 * BYTES + AT));
    }
    lanes
}

/// Sixteen signed bytes in each lane of 128 bits as [`Headers::scales`] has them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn words_of_lanes(lanes: __m512i) -> [__m512i; 2] {
    [
        _mm512_cvtepi8_epi16(_mm512_castsi512_si256(lanes)),
        _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64::<1>(lanes)),
    ]
}

/// [`Block256::scales`] of a format where each 16 of ascending weights share a scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn scales_of_16<const PLACE: usize>(headers: &Headers) -> [__m512i; 4] {
    const PLACES: [[[i16; 32]; 4]; 2] = places_of_16();
    let (places, scales) = (&PLACES[PLACE % 2], headers.scales[PLACE / 2]);
    [
        _mm512_permutexvar_epi16(words32(&places[0], 0), scales),
        _mm512_permutexvar_epi16(words32(&places[1], 0), scales),
        _mm512_permutexvar_epi16(words32(&places[2], 0), scales),
        _mm512_permutexvar_epi16(words32(&places[3], 0), scales),
    ]
}

/// By block and vector, the places of the scales: eight times each of four groups.
const fn places_of_16() -> [[[i16; 32]; 4]; 2] {
    let mut places = [[[0; 32]; 4]; 2];
    let mut i = 0;
    while i < 2 * 4 * 32 {
        let (block, v, word) = (i / 128, i / 32 % 4, i % 32);
        places[block][v][word] = (16 * block + 4 * v + word / 8) as i16;
        i += 1;
    }
    places
}

/// The total of each lane of 128 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn total_of_lanes(v: __m512i) -> __m128i {
    let v = _mm512_add_epi32(v, _mm512_shuffle_epi32::<0b01_00_11_10>(v));
    let v = _mm512_add_epi32(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v));
    let first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, v))
}
