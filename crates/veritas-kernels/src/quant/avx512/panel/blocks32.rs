//! Panels of blocks of 32 weights: four blocks of sixteen rows at a time.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use veritas_quant::unpack;

use super::{Fill, LANES, LEN, OFFSET, Panel, PanelRows, ROWS, store_quads, transpose_lanes, transpose16};
use crate::columns::STEP;
use crate::quant::avx512::decode::{
    BLOCKS, Block32, STEP_BYTES_MAX, halves, iq4_nl_values, place_of_byte, places_of_rows, words32,
};
use crate::quant::avx512::vectors::{nibbles, store};

/// Steps of a block.
const STEPS: usize = 32 / STEP;

/// Blocks of 32, four at a time.
pub(in crate::quant::avx512) struct Blocks32<F>(PhantomData<F>);

impl<F: PanelBlock32> Fill for Blocks32<F> {
    type Format = F;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn fill(panel: &mut Panel, rows: &PanelRows<'_>) {
        let step_bytes = BLOCKS * F::BYTES;
        let (n_blocks, n_rest) = (rows.len() / F::BYTES, rows.len() % step_bytes);
        assert!(n_blocks * F::LEN <= LEN);
        for half in 0..2 {
            for first in (0..n_blocks / BLOCKS * BLOCKS).step_by(BLOCKS) {
                let blocks = rows.part(first * F::BYTES..first * F::BYTES + step_bytes);
                panel.fill_four::<F>(half, first, &blocks);
            }
            if n_rest > 0 {
                panel.fill_rest::<F>(
                    half,
                    n_blocks / BLOCKS * BLOCKS,
                    &rows.part(rows.len() - n_rest..rows.len()),
                );
            }
        }
    }
}

/// How the codes of a format lie in four blocks.
pub(in crate::quant::avx512) trait PanelBlock32: Block32 {
    /// Where the codes stand in a block: sixteen bytes of nibbles, or 32 bytes.
    const CODES_AT: usize;
    /// Whether a byte holds two codes.
    const NIBBLES: bool = true;
    /// Where the word of fifth bits stands in a block.
    const FIFTH_AT: Option<usize> = None;

    /// The weights of codes, unsigned: [`OFFSET`] too high in formats without minimums.
    ///
    /// # Safety
    /// The machine must have the AVX-512 level.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(codes: __m512i) -> __m512i {
        if Self::MINS {
            codes
        } else {
            _mm512_add_epi8(codes, _mm512_set1_epi8((i16::from(OFFSET) - Self::OFFSET) as i8))
        }
    }
}

impl PanelBlock32 for unpack::Q4_0 {
    const CODES_AT: usize = 2;
}

impl PanelBlock32 for unpack::Q4_1 {
    const CODES_AT: usize = 4;
}

impl PanelBlock32 for unpack::Q5_0 {
    const CODES_AT: usize = 6;
    const FIFTH_AT: Option<usize> = Some(2);
}

impl PanelBlock32 for unpack::Q5_1 {
    const CODES_AT: usize = 8;
    const FIFTH_AT: Option<usize> = Some(4);
}

impl PanelBlock32 for unpack::Q8_0 {
    const CODES_AT: usize = 2;
    const NIBBLES: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(codes: __m512i) -> __m512i {
        _mm512_xor_si512(codes, _mm512_set1_epi8(-128))
    }
}

impl PanelBlock32 for unpack::IQ4_NL {
    const CODES_AT: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn weights(codes: __m512i) -> __m512i {
        iq4_nl_values(codes)
    }
}

impl Panel {
    /// Four blocks of sixteen rows, from the block `first` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill_four<F: PanelBlock32>(&mut self, half: usize, first: usize, blocks: &PanelRows<'_>) {
        let mut fifth = [_mm512_setzero_si512(); BLOCKS];
        if F::FIFTH_AT.is_some() {
            fifth = fifth_bits::<F>(blocks, half);
        }
        for b in 0..BLOCKS {
            let steps: &mut [_; STEPS] =
                self.quants[(first + b) * STEPS..].first_chunk_mut().expect("a block fits");
            let codes = transpose16(blocks, half, b * F::BYTES + F::CODES_AT);
            if F::NIBBLES {
                let bits = fifth[b];
                put_nibbles::<F, 0>(steps, half, codes[0], bits);
                put_nibbles::<F, 1>(steps, half, codes[1], bits);
                put_nibbles::<F, 2>(steps, half, codes[2], bits);
                put_nibbles::<F, 3>(steps, half, codes[3], bits);
            } else {
                let more = transpose16(blocks, half, b * F::BYTES + F::CODES_AT + 16);
                for j in 0..4 {
                    // SAFETY: this function enables the level.
                    let (low, high) = unsafe { (F::weights(codes[j]), F::weights(more[j])) };
                    store_quads(&mut steps[j][half], low);
                    store_quads(&mut steps[4 + j][half], high);
                }
            }
        }
        let d = block_lanes::<F>(blocks, half, const { &places_of_rows(F::BYTES, F::D_AT) });
        for b in 0..BLOCKS {
            store(&mut self.d[first + b][half], d[b]);
        }
        if F::MINS {
            // They are added, and the panel's are subtracted.
            let sign = _mm512_set1_ps(-0.0);
            let min = block_lanes::<F>(blocks, half, const { &places_of_rows(F::BYTES, F::MIN_AT) });
            for b in 0..BLOCKS {
                store(&mut self.d_min[first + b][half], _mm512_xor_ps(min[b], sign));
            }
        }
    }

    /// The last blocks, fewer than four.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn fill_rest<F: PanelBlock32>(&mut self, half: usize, first: usize, blocks: &PanelRows<'_>) {
        let mut padded = [[0; STEP_BYTES_MAX]; ROWS];
        for (r, padded) in padded.iter_mut().enumerate() {
            padded[..blocks.len()].copy_from_slice(blocks.row(r));
        }
        let bytes = 0..BLOCKS * F::BYTES;
        self.fill_four::<F>(half, first, &PanelRows::new(padded.as_flattened(), ROWS, STEP_BYTES_MAX, bytes));
    }
}

/// The weights of the dword `J` of a block's nibbles, of sixteen rows. `bits` are the words of fifth bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn put_nibbles<F: PanelBlock32, const J: usize>(
    steps: &mut [[[[u8; STEP]; LANES]; 2]; STEPS],
    half: usize,
    codes: __m512i,
    bits: __m512i,
) {
    let [mut low, mut high] = nibbles(codes);
    if F::FIFTH_AT.is_some() {
        low = _mm512_or_si512(low, sixteens(_mm512_srlv_epi32(bits, _mm512_set1_epi32(4 * J as i32))));
        high = _mm512_or_si512(high, sixteens(_mm512_srlv_epi32(bits, _mm512_set1_epi32(16 + 4 * J as i32))));
    }
    // SAFETY: this function enables the level.
    let (low, high) = unsafe { (F::weights(low), F::weights(high)) };
    store_quads(&mut steps[J][half], low);
    store_quads(&mut steps[4 + J][half], high);
}

/// 16 in byte `i` of each dword where bit `i` is set, of the lowest four.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixteens(bits: __m512i) -> __m512i {
    const fn spread(bits: u32) -> i32 {
        (((bits & 1) | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21) << 4) as i32
    }
    const TABLE: [i32; 16] = {
        let mut table = [0; 16];
        let mut bits = 0;
        while bits < 16 {
            table[bits] = spread(bits as u32);
            bits += 1;
        }
        table
    };
    // The permutation looks at the lowest four bits alone.
    _mm512_permutexvar_epi32(bits, crate::quant::avx512::vectors::dwords(&TABLE))
}

/// The f16 at `places` of four blocks of sixteen rows: a vector per block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn block_lanes<F: Block32>(blocks: &PanelRows<'_>, half: usize, places: &[i16; 32]) -> [__m512; BLOCKS] {
    let mut fours = [_mm512_setzero_si512(); 4];
    for four in 0..4 {
        fours[four] = _mm512_castps_si512(halves(four_rows(blocks, half, four), places));
    }
    let [a, b, c, d] = transpose_lanes(fours);
    [_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(c), _mm512_castsi512_ps(d)]
}

/// The words of fifth bits of four blocks of sixteen rows: a vector per block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn fifth_bits<F: PanelBlock32>(blocks: &PanelRows<'_>, half: usize) -> [__m512i; BLOCKS] {
    let places = const {
        match F::FIFTH_AT {
            Some(at) => &places_of_dwords(F::BYTES, at),
            None => &[0; 32],
        }
    };
    let places = words32(places, 0);
    let mut fours = [_mm512_setzero_si512(); 4];
    for four in 0..4 {
        let [a, b, c, d] = four_rows(blocks, half, four);
        let pick = |mask: u32, blocks: &[u8]| {
            let (start, end) = crate::quant::avx512::decode::start_and_end(blocks);
            _mm512_maskz_permutex2var_epi16(mask, start, places, end)
        };
        let first = _mm512_or_si512(pick(0x0303_0303, a), pick(0x0C0C_0C0C, b));
        let second = _mm512_or_si512(pick(0x3030_3030, c), pick(0xC0C0_C0C0, d));
        fours[four] = _mm512_or_si512(first, second);
    }
    transpose_lanes(fours)
}

/// Places of the words of 32 bits at byte `at` of four blocks: lane b has the block b four times.
const fn places_of_dwords(bytes: usize, at: usize) -> [i16; 32] {
    let mut places = [0; 32];
    let mut i = 0;
    while i < 32 {
        places[i] = place_of_byte(bytes, i / 8 * bytes + at + i % 2 * 2);
        i += 1;
    }
    places
}

#[inline(always)]
fn four_rows<'w>(blocks: &PanelRows<'w>, half: usize, four: usize) -> [&'w [u8]; 4] {
    let first = half * LANES + 4 * four;
    [blocks.row(first), blocks.row(first + 1), blocks.row(first + 2), blocks.row(first + 3)]
}
