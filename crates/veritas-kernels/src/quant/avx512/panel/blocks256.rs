//! Panels of blocks of 256 weights: a block of sixteen rows at a time.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use veritas_quant::unpack::{self, Format};

use super::{
    Fill, LANES, LEN, OFFSET, Panel, PanelRows, store_dwords, store_quads, store_words, transpose16,
};
use crate::columns::STEP;
use crate::quant::avx512::decode::half_bits;
use crate::quant::avx512::vectors::{dwords, nibbles, store};

/// Steps of a strip of 32 weights.
const STEPS: usize = 32 / STEP;

/// Blocks of 256, one at a time.
pub(in crate::quant::avx512) struct Blocks256<F>(PhantomData<F>);

impl<F: PanelBlock256> Fill for Blocks256<F> {
    type Format = F;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &PanelRows<'_>) {
        let n_blocks = rows.len() / F::BYTES;
        assert!(n_blocks * F::LEN <= LEN);
        for half in 0..2 {
            for b in 0..n_blocks {
                let blocks = rows.part(b * F::BYTES..(b + 1) * F::BYTES);
                // SAFETY: this function enables the level.
                unsafe { F::fill_half::<0>(panel, half, b, &blocks) };
                // SAFETY: this function enables the level.
                unsafe { F::fill_half::<1>(panel, half, b, &blocks) };
                // SAFETY: this function enables the level.
                unsafe { F::fill_scales(panel, half, b, &blocks) };
            }
        }
    }
}

/// A format of blocks of 256 that a panel is filled with by vectors.
pub(in crate::quant::avx512) trait PanelBlock256: Format {
    /// Fills the codes of the weights `128 · N..128 · (N + 1)` of the block `b` of sixteen rows.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn fill_half<const N: usize>(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>);

    /// Fills its factors and integer scales.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    unsafe fn fill_scales(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>);
}

impl PanelBlock256 for unpack::Q4_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_half<const N: usize>(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        let codes = transpose64(blocks, half, 16 + 64 * N);
        for i in 0..LANES {
            panel.put_strips::<N>(half, b, i, nibbles(codes[i]));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_scales(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        panel.fill_six_bit_scales(half, b, blocks);
    }
}

impl PanelBlock256 for unpack::Q5_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_half<const N: usize>(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        // Bit s of a byte belongs to the strip s.
        let bits = transpose32(blocks, half, 16);
        let codes = transpose64(blocks, half, 48 + 64 * N);
        let sixteen = _mm512_set1_epi8(16);
        for i in 0..LANES {
            let (pair, j) = (i / STEPS, i % STEPS);
            let [low, high] = nibbles(codes[i]);
            // From bit s to bit 4, in every byte.
            let strip = 4 * N + 2 * pair;
            let turned = |s: usize| _mm512_rolv_epi32(bits[j], _mm512_set1_epi32((4 - s as i32) & 31));
            let low = _mm512_or_si512(low, _mm512_and_si512(turned(strip), sixteen));
            let high = _mm512_or_si512(high, _mm512_and_si512(turned(strip + 1), sixteen));
            panel.put_strips::<N>(half, b, i, [low, high]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_scales(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        panel.fill_six_bit_scales(half, b, blocks);
    }
}

impl PanelBlock256 for unpack::Q6_K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_half<const N: usize>(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        let pairs = transpose32(blocks, half, 128 + 32 * N);
        let codes = transpose64(blocks, half, 64 * N);
        let steps = &mut panel.quants[(8 * b + 4 * N) * STEPS..][..4 * STEPS];
        let (two, offset) = (_mm512_set1_epi8(0x30), _mm512_set1_epi8((OFFSET - 32) as i8));
        let mut put = |strip: usize, j: usize, low: __m512i, pair: __m512i| {
            let code = _mm512_or_si512(low, _mm512_and_si512(pair, two));
            store_quads(&mut steps[strip * STEPS + j][half], _mm512_add_epi8(code, offset));
        };
        for j in 0..STEPS {
            let (a, b) = (nibbles(codes[j]), nibbles(codes[STEPS + j]));
            put(0, j, a[0], _mm512_slli_epi16::<4>(pairs[j]));
            put(1, j, b[0], _mm512_slli_epi16::<2>(pairs[j]));
            put(2, j, a[1], pairs[j]);
            put(3, j, b[1], _mm512_srli_epi16::<2>(pairs[j]));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill_scales(panel: &mut Panel, half: usize, b: usize, blocks: &PanelRows<'_>) {
        let mut words = [0; LANES];
        for (r, word) in words.iter_mut().enumerate() {
            *word = half_bits(blocks.row(half * LANES + r), 208) as i32;
        }
        store(&mut panel.d[b][half], _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dwords(&words))));
        let bytes = transpose16(blocks, half, 192);
        for four in 0..4 {
            let out = &mut panel.scales[16 * b + 4 * four..][..4];
            let first = |bytes: __m512i| _mm512_srai_epi32::<24>(bytes);
            store_dwords(&mut out[0][half], first(_mm512_slli_epi32::<24>(bytes[four])));
            store_dwords(&mut out[1][half], first(_mm512_slli_epi32::<16>(bytes[four])));
            store_dwords(&mut out[2][half], first(_mm512_slli_epi32::<8>(bytes[four])));
            store_dwords(&mut out[3][half], first(bytes[four]));
        }
    }
}

impl Panel {
    /// Stores the codes of the dword `i` of the nibbles of the half `N` of the block `b`: a strip of 32 weights has its
    /// codes in the low nibbles of eight dwords, and the next one in the high ones.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn put_strips<const N: usize>(&mut self, half: usize, b: usize, i: usize, [low, high]: [__m512i; 2]) {
        let steps = &mut self.quants[(8 * b + 4 * N) * STEPS..][..4 * STEPS];
        let (pair, j) = (i / STEPS, i % STEPS);
        store_quads(&mut steps[2 * pair * STEPS + j][half], low);
        store_quads(&mut steps[(2 * pair + 1) * STEPS + j][half], high);
    }

    /// The headers of Q4_K and Q5_K: d, d_min, and twelve bytes of scales and minimums of six bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill_six_bit_scales(&mut self, half: usize, b: usize, blocks: &PanelRows<'_>) {
        let [factors, low_scales, low_mins, rest] = transpose16(blocks, half, 0);
        store(&mut self.d[b][half], _mm512_cvtph_ps(_mm512_cvtepi32_epi16(factors)));
        let d_min = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(factors));
        store(&mut self.d_min[b][half], _mm512_cvtph_ps(d_min));
        // The first four have their six bits in a byte, the others a nibble of the last dword and the two spare bits.
        let six = _mm512_set1_epi8(0x3F);
        let two = _mm512_set1_epi8(0x30);
        let [rest_scales, rest_mins] = nibbles(rest);
        let spare = |low: __m512i| _mm512_and_si512(_mm512_srli_epi32::<2>(low), two);
        let scales = [_mm512_and_si512(low_scales, six), _mm512_or_si512(rest_scales, spare(low_scales))];
        let mins = [_mm512_and_si512(low_mins, six), _mm512_or_si512(rest_mins, spare(low_mins))];
        let byte = _mm512_set1_epi32(0xFF);
        // Pairs of words from the first two bytes of each dword.
        let widen =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
        for four in 0..2 {
            let out = &mut self.scales[8 * b + 4 * four..][..4];
            store_dwords(&mut out[0][half], _mm512_and_si512(scales[four], byte));
            store_dwords(&mut out[1][half], _mm512_and_si512(_mm512_srli_epi32::<8>(scales[four]), byte));
            store_dwords(&mut out[2][half], _mm512_and_si512(_mm512_srli_epi32::<16>(scales[four]), byte));
            store_dwords(&mut out[3][half], _mm512_srli_epi32::<24>(scales[four]));
            let out = &mut self.mins[4 * b + 2 * four..][..2];
            store_words(&mut out[0][half], _mm512_shuffle_epi8(mins[four], widen));
            store_words(&mut out[1][half], _mm512_shuffle_epi8(_mm512_srli_epi32::<16>(mins[four]), widen));
        }
    }
}

/// 32 bytes from `at` of sixteen blocks: the vector `j` has the dword `j` of each.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn transpose32(blocks: &PanelRows<'_>, half: usize, at: usize) -> [__m512i; 8] {
    let mut out = [_mm512_setzero_si512(); 8];
    for part in 0..2 {
        let four = transpose16(blocks, half, at + 16 * part);
        for j in 0..4 {
            out[4 * part + j] = four[j];
        }
    }
    out
}

/// 64 bytes from `at` of sixteen blocks: the vector `j` has the dword `j` of each.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn transpose64(blocks: &PanelRows<'_>, half: usize, at: usize) -> [__m512i; 16] {
    let mut out = [_mm512_setzero_si512(); 16];
    for part in 0..4 {
        let four = transpose16(blocks, half, at + 16 * part);
        for j in 0..4 {
            out[4 * part + j] = four[j];
        }
    }
    out
}
