//! Blocks of 32 weights with a factor in f16: four rows × four blocks at a time.

use std::arch::x86_64::*;

use veritas_quant::unpack::Format;

use super::{AHEAD, COLUMNS, add_within_lanes, bytes64, floats, floats4, prefetch, q64, words32};
use crate::Activations;
use crate::tile::TileWriter;

/// Rows of a group.
pub(super) const ROWS: usize = 4;

/// Blocks along K of a step, one per lane of 128 bits.
pub(in crate::quant::avx512) const BLOCKS: usize = 4;

/// Bytes of a step in a row, at most.
pub(in crate::quant::avx512) const STEP_BYTES_MAX: usize = BLOCKS * 34;

/// A format of blocks of 32 that is read four blocks at a time.
pub(in crate::quant::avx512) trait Block32: Format {
    /// Where the f16 factor stands in a block.
    const D_AT: usize;
    /// Where the f16 minimum stands, which is added; unused in formats without.
    const MIN_AT: usize = 0;
    /// What [`Block32::codes`] counts each weight too high by.
    const OFFSET: i16;

    /// The weights of four blocks plus [`Block32::OFFSET`], which makes them unsigned. Lane b of the first vector is the
    /// first half of the block b, lane b of the second its second half: what nibbles give.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn codes(blocks: &[u8]) -> [__m512i; 2];

    /// The factors of four blocks of four rows: lane b holds block b of each row.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn factors(blocks: [&[u8]; ROWS]) -> __m512 {
        halves(blocks, const { &places_of_rows(Self::BYTES, Self::D_AT) })
    }
}

/// All weight rows times all activation rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(in crate::quant::avx512) fn rows<F: Block32>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = cols / F::LEN * F::BYTES;
    // Whole groups ahead, so that the prefetches are linear although the loads are four streams.
    let group_bytes = ROWS * row_bytes;
    let ahead = group_bytes * AHEAD.div_ceil(group_bytes.max(1));
    for first in (0..n_rows).step_by(ROWS) {
        let group = Group { rows: group_rows(w, n_rows, row_bytes, first), ahead };
        let n_valid = ROWS.min(n_rows - first);
        let mut a = 0;
        while a < acts.rows() {
            a += match acts.rows() - a {
                1 => store(&group.products::<F, 1>(acts, a), a, first, n_valid, out),
                2 => store(&group.products::<F, 2>(acts, a), a, first, n_valid, out),
                3 => store(&group.products::<F, 3>(acts, a), a, first, n_valid, out),
                _ => store(&group.products::<F, COLUMNS>(acts, a), a, first, n_valid, out),
            };
        }
    }
}

/// The rows from `first` on; beyond the last row it is repeated.
#[inline(always)]
fn group_rows(w: &[u8], n_rows: usize, row_bytes: usize, first: usize) -> [&[u8]; ROWS] {
    std::array::from_fn(|r| &w[(first + r).min(n_rows - 1) * row_bytes..][..row_bytes])
}

/// Writes the products of `n_valid` rows with the activation rows from `a` on. Returns how many these are.
fn store(
    products: &[[f32; ROWS]],
    a: usize,
    first: usize,
    n_valid: usize,
    out: &mut TileWriter<'_>,
) -> usize {
    for (c, products) in products.iter().enumerate() {
        out.row_mut(a + c)[first..first + n_valid].copy_from_slice(&products[..n_valid]);
    }
    products.len()
}

/// Four weight rows.
struct Group<'a> {
    rows: [&'a [u8]; ROWS],
    /// By how many bytes the prefetches are ahead: whole groups, so that they are linear although the loads are four streams.
    ahead: usize,
}

impl Group<'_> {
    /// The products with the activation rows `a..a + C`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn products<F: Block32, const C: usize>(&self, acts: &Activations, a: usize) -> [[f32; ROWS]; C] {
        let mut columns = [Column::EMPTY; C];
        for c in 0..C {
            columns[c] = Column::new(acts, a + c);
        }
        let n_blocks = self.rows[0].len() / F::BYTES;
        let step_bytes = BLOCKS * F::BYTES;
        let n_steps = n_blocks / BLOCKS;
        let start = self.rows[0].as_ptr();
        let mut acc = [_mm_setzero_ps(); C];
        // The floating-point steps of a step are taken in the next one, so that their latency is hidden by its integers.
        let mut waiting = [Terms::ZERO; C];
        for step in 0..n_steps {
            let at = step * step_bytes;
            if a == 0 {
                prefetch(start.wrapping_add(ROWS * at), self.ahead, ROWS * step_bytes);
            }
            let blocks = [
                &self.rows[0][at..at + step_bytes],
                &self.rows[1][at..at + step_bytes],
                &self.rows[2][at..at + step_bytes],
                &self.rows[3][at..at + step_bytes],
            ];
            if step > 0 {
                for c in 0..C {
                    acc[c] = waiting[c].add_to::<F>(acc[c], BLOCKS);
                }
            }
            multiply::<F, C, false>(blocks, &columns, step, &mut waiting);
        }
        if n_steps > 0 {
            for c in 0..C {
                acc[c] = waiting[c].add_to::<F>(acc[c], BLOCKS);
            }
        }
        let n_left = n_blocks % BLOCKS;
        if n_left > 0 {
            self.add_rest::<F, C>(&columns, n_left, &mut acc);
        }
        let mut products = [[0.0; ROWS]; C];
        for c in 0..C {
            products[c] = floats(acc[c]);
        }
        products
    }

    /// Adds the products over the last `n_left` blocks, fewer than a step has.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn add_rest<F: Block32, const C: usize>(
        &self,
        columns: &[Column<'_>; C],
        n_left: usize,
        acc: &mut [__m128; C],
    ) {
        let step_bytes = BLOCKS * F::BYTES;
        let n_steps = self.rows[0].len() / step_bytes;
        let mut padded = [[0; STEP_BYTES_MAX]; ROWS];
        for (padded, row) in padded.iter_mut().zip(self.rows) {
            let rest = &row[n_steps * step_bytes..];
            padded[..rest.len()].copy_from_slice(rest);
        }
        let blocks = [
            &padded[0][..step_bytes],
            &padded[1][..step_bytes],
            &padded[2][..step_bytes],
            &padded[3][..step_bytes],
        ];
        let mut terms = [Terms::ZERO; C];
        multiply::<F, C, true>(blocks, columns, n_steps, &mut terms);
        for c in 0..C {
            acc[c] = terms[c].add_to::<F>(acc[c], n_left);
        }
    }
}

/// An activation row, four blocks at a time; beyond its end are zeros.
#[derive(Clone, Copy)]
struct Column<'a> {
    q: &'a [[i8; 128]],
    scales: &'a [[f32; 4]],
    /// The sums of each 16.
    sums: &'a [[i16; 8]],
}

impl<'a> Column<'a> {
    const EMPTY: Self = Self { q: &[], scales: &[], sums: &[] };

    #[inline(always)]
    fn new(acts: &'a Activations, a: usize) -> Self {
        Self {
            q: acts.q_row_padded(a).as_chunks().0,
            scales: acts.scale_row_padded(a).as_chunks().0,
            sums: acts.sum_row_padded(a).as_chunks().0,
        }
    }
}

/// What the floating-point steps of four blocks of four rows need: lane b holds block b of each row.
#[derive(Clone, Copy)]
struct Terms {
    /// d · da.
    scale: __m512,
    /// The sum of the products.
    dots: __m512,
    /// The minimum times da.
    min_scale: __m512,
    /// The sum of the activations.
    sums: __m512,
}

impl Terms {
    // SAFETY: all-zero bits are a value of a vector.
    const ZERO: Self = unsafe { std::mem::zeroed() };

    /// The steps of the first `n_blocks` blocks.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,fma")]
    fn add_to<F: Block32>(&self, mut acc: __m128, n_blocks: usize) -> __m128 {
        let (scale, dots) = (lanes(self.scale), lanes(self.dots));
        let (min_scale, sums) = (lanes(self.min_scale), lanes(self.sums));
        for b in 0..BLOCKS {
            if b < n_blocks {
                acc = _mm_fmadd_ps(scale[b], dots[b], acc);
                if F::MINS {
                    acc = _mm_fmadd_ps(min_scale[b], sums[b], acc);
                }
            }
        }
        acc
    }
}

/// The lanes of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn lanes(v: __m512) -> [__m128; 4] {
    let (low, high) = (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
    [
        _mm256_castps256_ps128(low),
        _mm256_extractf128_ps::<1>(low),
        _mm256_castps256_ps128(high),
        _mm256_extractf128_ps::<1>(high),
    ]
}

/// Multiplies four blocks of four rows with the columns. `REST` only makes the copy for the last blocks another function, so
/// that the one for all others is inlined.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply<F: Block32, const C: usize, const REST: bool>(
    blocks: [&[u8]; ROWS],
    columns: &[Column<'_>; C],
    step: usize,
    terms: &mut [Terms; C],
) {
    // SAFETY: this function enables the level.
    let codes =
        unsafe { [F::codes(blocks[0]), F::codes(blocks[1]), F::codes(blocks[2]), F::codes(blocks[3])] };
    // SAFETY: this function enables the level.
    let d = unsafe { F::factors(blocks) };
    let min = if F::MINS { halves(blocks, const { &places_of_rows(F::BYTES, F::MIN_AT) }) } else { d };
    // One dword of each lane, four times: what belongs to a block goes to its four rows.
    let spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    for c in 0..C {
        let column = &columns[c];
        let q = &column.q[step];
        let (first, second) = (q64(q, 0), q64(q, 64));
        let q = [even_lanes(first, second), odd_lanes(first, second)];
        let dots = add_within_lanes([
            lanes_of_blocks(codes[0], q),
            lanes_of_blocks(codes[1], q),
            lanes_of_blocks(codes[2], q),
            lanes_of_blocks(codes[3], q),
        ]);
        let sums = words8(&column.sums[step], 0);
        let offset = _mm_madd_epi16(sums, _mm_set1_epi16(-F::OFFSET));
        let offset = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(offset));
        let da = _mm512_castps128_ps512(floats4(&column.scales[step], 0));
        let da = _mm512_permutexvar_ps(spread, da);
        terms[c].dots = _mm512_cvtepi32_ps(_mm512_add_epi32(dots, offset));
        terms[c].scale = _mm512_mul_ps(d, da);
        if F::MINS {
            let sums = _mm_cvtepi32_ps(_mm_madd_epi16(sums, _mm_set1_epi16(1)));
            terms[c].sums = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(sums));
            terms[c].min_scale = _mm512_mul_ps(min, da);
        }
    }
}

/// Partial sums of four blocks of a row: those of block b in lane b.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn lanes_of_blocks(codes: [__m512i; 2], q: [__m512i; 2]) -> __m512i {
    let first = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[0], q[0]);
    _mm512_dpbusd_epi32(first, codes[1], q[1])
}

/// The lanes 0 and 2 of both.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn even_lanes(a: __m512i, b: __m512i) -> __m512i {
    _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b)
}

/// The lanes 1 and 3 of both.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn odd_lanes(a: __m512i, b: __m512i) -> __m512i {
    _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b)
}

/// The f16 of four blocks of four rows at the words `places`, as f32: lane b holds block b of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::quant::avx512) fn halves(rows: [&[u8]; ROWS], places: &[i16; 32]) -> __m512 {
    let places = words32(places, 0);
    let [first, second] = [
        _mm512_or_si512(
            _mm512_maskz_permutex2var_epi16(0x1111, start(rows[0]), places, end(rows[0])),
            _mm512_maskz_permutex2var_epi16(0x2222, start(rows[1]), places, end(rows[1])),
        ),
        _mm512_or_si512(
            _mm512_maskz_permutex2var_epi16(0x4444, start(rows[2]), places, end(rows[2])),
            _mm512_maskz_permutex2var_epi16(0x8888, start(rows[3]), places, end(rows[3])),
        ),
    ];
    _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_or_si512(first, second)))
}

/// The first 64 bytes of four blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn start(blocks: &[u8]) -> __m512i {
    bytes64(blocks, 0)
}

/// The last 64 bytes of four blocks, or the second 64 if they have more than 128.
#[inline]
#[target_feature(enable = "avx512f")]
fn end(blocks: &[u8]) -> __m512i {
    bytes64(blocks, end_at(blocks.len()))
}

/// Both.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::quant::avx512) fn start_and_end(blocks: &[u8]) -> (__m512i, __m512i) {
    (start(blocks), end(blocks))
}

const fn end_at(bytes: usize) -> usize {
    if bytes < 128 { bytes - 64 } else { 64 }
}

/// The words of four blocks at the given places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn pick_words(blocks: &[u8], places: &[i16; 32]) -> __m512i {
    _mm512_permutex2var_epi16(start(blocks), words32(places, 0), end(blocks))
}

/// Places for [`pick_words`] in blocks of `bytes` bytes: eight times in a row for each block, the words at byte `at` and the
/// `n - 1` after it, again and again.
pub(super) const fn places_in_lanes(bytes: usize, at: usize, n: usize) -> [i16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < 32 {
        places[i] = place(bytes, i / 8 * bytes + at + i % n * 2);
        i += 1;
    }
    places
}

/// Places for [`halves`]: the word at byte `at` of each block, four times.
pub(in crate::quant::avx512) const fn places_of_rows(bytes: usize, at: usize) -> [i16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < BLOCKS * ROWS {
        places[i] = place(bytes, i / ROWS * bytes + at);
        i += 1;
    }
    places
}

/// The number that a two-vector permutation gives to the word at byte `at` of four blocks of `bytes` bytes.
pub(in crate::quant::avx512) const fn place(bytes: usize, at: usize) -> i16 {
    (if at < 64 { at / 2 } else { 32 + (at - end_at(BLOCKS * bytes)) / 2 }) as i16
}

/// Eight i16 from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn words8(words: &[i16], at: usize) -> __m128i {
    let words = &words[at..at + 8];
    // SAFETY: the slice has 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}
