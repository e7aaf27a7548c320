//! BF16 products with `vdpbf16ps`, where the processor has it.
//!
//! The instruction multiplies pairs of BF16 numbers and adds them to an f32, the second of a pair first, with subnormal
//! numbers flushed: the canonical order of these products was chosen to be the one that it computes.

use std::arch::x86_64::*;

use veritas_simd::Avx512Token;

use crate::activations::Activations;
use crate::lanes::Simd;
use crate::tile::TileWriter;

/// BF16 numbers in a vector.
const STEP: usize = 32;

/// Weight rows × activation rows of a register tile, and weight rows for one activation row.
const TILE: (usize, usize) = (4, 5);
const DECODE: usize = 4;

/// Whether this machine has the instruction.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// The products of `n_rows` weight rows with all activation rows, which are stored as pairs.
///
/// # Safety
/// The machine has AVX-512 (as the level's other kernels need it) and AVX512_BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
pub(crate) unsafe fn rows(
    w: &[u8],
    n_rows: usize,
    _cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    let n_acts = out.n_act_rows();
    if n_acts == 1 {
        strip::<DECODE, 1>(w, n_rows, acts, 0, out);
        return;
    }
    let mut act = 0;
    while act + TILE.1 <= n_acts {
        strip::<{ TILE.0 }, { TILE.1 }>(w, n_rows, acts, act, out);
        act += TILE.1;
    }
    while act < n_acts {
        strip::<{ TILE.0 }, 1>(w, n_rows, acts, act, out);
        act += 1;
    }
}

/// All weight rows times `C` activation rows from `act` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn strip<const R: usize, const C: usize>(
    w: &[u8],
    n_rows: usize,
    acts: &Activations,
    act: usize,
    out: &mut TileWriter<'_>,
) {
    let row_bytes = w.len() / n_rows;
    // Loops in place of closures here and below: a closure does not have the level's instructions, and would be called.
    let mut x: [&[[u32; STEP / 2]]; C] = [&[]; C];
    for c in 0..C {
        x[c] = acts.pair_row(act + c).as_chunks().0;
    }
    let mut row = 0;
    while row + R <= n_rows {
        let sums = tile::<R, C>(&w[row * row_bytes..][..R * row_bytes], &x);
        for c in 0..C {
            out.row_mut(act + c)[row..row + R].copy_from_slice(&sums[c]);
        }
        row += R;
    }
    while row < n_rows {
        let sums = tile::<1, C>(&w[row * row_bytes..][..row_bytes], &x);
        for c in 0..C {
            out.row_mut(act + c)[row] = sums[c][0];
        }
        row += 1;
    }
}

/// The products of `R` weight rows, one after the other in `w`, with `C` activation rows: `[C, R]`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
fn tile<const R: usize, const C: usize>(w: &[u8], x: &[&[[u32; STEP / 2]]; C]) -> [[f32; R]; C] {
    // SAFETY: this function needs the level's instructions.
    let s = unsafe { Avx512Token::assume() };
    let mut acc = [[_mm512_setzero_ps(); C]; R];
    let row_bytes = w.len() / R;
    let n = row_bytes / (2 * STEP);
    // All of one length, so that the loop needs no checks, which would keep the pointers out of the registers.
    let (mut weights, mut rests, mut inputs) = ([&[][..]; R], [&[][..]; R], [&[][..]; C]);
    for r in 0..R {
        let (whole, rest) = w[r * row_bytes..][..row_bytes].as_chunks::<{ 2 * STEP }>();
        (weights[r], rests[r]) = (&whole[..n], rest);
    }
    for c in 0..C {
        inputs[c] = &x[c][..n];
    }
    for step in 0..n {
        let mut vectors = [_mm512_setzero_ps(); C];
        for c in 0..C {
            // SAFETY: every slice of `inputs` has n elements.
            vectors[c] = pairs(unsafe { inputs[c].get_unchecked(step) });
        }
        for r in 0..R {
            // SAFETY: every slice of `weights` has n elements.
            let row = s.load_bytes(unsafe { weights[r].get_unchecked(step) });
            for c in 0..C {
                acc[r][c] = dot(acc[r][c], row, vectors[c]);
            }
        }
    }
    if !rests[0].is_empty() {
        for r in 0..R {
            let mut bytes = [0; 2 * STEP];
            bytes[..rests[r].len()].copy_from_slice(rests[r]);
            let row = s.load_bytes(&bytes);
            for c in 0..C {
                acc[r][c] = dot(acc[r][c], row, pairs(&x[c][n]));
            }
        }
    }
    let mut sums = [[0.0; R]; C];
    for c in 0..C {
        // Four rows at a time where there are four.
        let mut r = 0;
        while r + 4 <= R {
            let four = fold_four([acc[r][c], acc[r + 1][c], acc[r + 2][c], acc[r + 3][c]]);
            sums[c][r..r + 4].copy_from_slice(&four);
            r += 4;
        }
        while r < R {
            sums[c][r] = s.fold_add(acc[r][c]);
            r += 1;
        }
    }
    sums
}

/// The sums of four accumulators, each in the order of `fold_add`: the halves, the halves of that, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2")]
fn fold_four(acc: [__m512; 4]) -> [f32; 4] {
    let mut eight = [_mm256_setzero_ps(); 4];
    for i in 0..4 {
        eight[i] = _mm256_add_ps(_mm512_castps512_ps256(acc[i]), _mm512_extractf32x8_ps::<1>(acc[i]));
    }
    let [a, b, c, d] = eight;
    // Four numbers each of a and b, then of c and d.
    let ab = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    let cd = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(c, d), _mm256_permute2f128_ps::<0x31>(c, d));
    // Two numbers each of a and c in the lower half, of b and d in the upper one; then one each, twice.
    let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
    let two = _mm256_add_ps(
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
    );
    let one = _mm256_add_ps(
        _mm256_shuffle_ps::<0b10_00_10_00>(two, two),
        _mm256_shuffle_ps::<0b11_01_11_01>(two, two),
    );
    let sums = _mm_unpacklo_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
    // SAFETY: both are 16 bytes of which every pattern is a value.
    unsafe { std::mem::transmute::<__m128, [f32; 4]>(sums) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(x: &[u32; STEP / 2]) -> __m512 {
    // SAFETY: the array has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(acc: __m512, w: __m512, x: __m512) -> __m512 {
    // SAFETY: both types are 64 bytes of which every pattern is a value.
    unsafe {
        _mm512_dpbf16_ps(
            acc,
            std::mem::transmute::<__m512, __m512bh>(w),
            std::mem::transmute::<__m512, __m512bh>(x),
        )
    }
}
