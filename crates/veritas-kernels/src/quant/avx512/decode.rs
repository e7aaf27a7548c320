//! Products with one activation row, or a few, straight from the file's layout: what generation spends its time on.
//!
//! Such a product is bound by memory, so everything here serves one aim: that the loads of weights never wait for
//! arithmetic. Lanes are weights, not rows. The weights of a few blocks are multiplied in registers, and the partial
//! sums of sixteen (row, block) pairs are added across lanes by one tree of unpacks, after which the floating-point steps
//! of the canonical order run on short vectors. There are two shapes:
//!
//! - blocks of 32 (`blocks32`): four rows × four blocks. The steps are fused multiply-adds on four rows.
//! - blocks of 256 (`blocks256`): one row × four blocks. The steps are scalar.
//!
//! The floating-point steps of one step along K are taken in the next, and the headers of K types are read in the one
//! before: a step has more vector instructions than the processor looks ahead, so that their latency would not be hidden.
//!
//! More rows at once would mean more streams of memory than the prefetchers follow; fewer would leave the chain of
//! fused multiply-adds, whose order is fixed, as the bottleneck.
//!
//! Several activation rows share the unpacked weights, up to [`COLUMNS`] at a time; the weights of a group of rows stay in
//! the first-level cache while all of them pass.

mod blocks256;
mod blocks32;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
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

use std::arch::asm;
use std::arch::x86_64::*;

pub(super) use blocks32::{
    BLOCKS, Block32, STEP_BYTES_MAX, halves, place as place_of_byte, places_of_rows, rows as rows_32,
    start_and_end,
};
pub(super) use blocks256::{Block256, rows as rows_256};
pub(super) use iq4_nl::values as iq4_nl_values;

/// Activation rows that share the unpacked weights.
const COLUMNS: usize = 4;

/// Bytes by which the prefetches run ahead of the loads: at 20 GB/s what passes in 800 ns, a multiple of the latency of
/// memory. Nearer, the lines come too late; farther, more of what is fetched at the end of a thread's stretch is in vain.
const AHEAD: usize = 16 << 10;

/// Asks for the `bytes` bytes that lie `ahead` bytes after `start`.
///
/// They are fetched into the second-level cache. The first level could take them too, but it has fewer buffers for misses
/// than the memory needs to be busy, and with long rows, which are read four at a time, it would evict them before their
/// turn.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(start: *const u8, ahead: usize, bytes: usize) {
    let start = start.wrapping_add(ahead);
    for line in 0..bytes.div_ceil(64) {
        // A hint: it never faults, whatever the address.
        _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(64 * line).cast());
    }
}

/// `acc + Σ` of two neighbouring products of words. The compiler would make two instructions of it to reorder the sums.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_pairs(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: AVX-512 VNNI on registers alone, which the function enables.
    unsafe {
        asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Adds the dwords of each lane of 128 bits: dword `i` of a lane of the result is the total of `v[i]`'s lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_within_lanes(v: [__m512i; 4]) -> __m512i {
    let a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
}

/// Adds the four lanes of 128 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn add_lanes(v: __m512i) -> __m128i {
    let two = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
    _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two))
}

/// The four floats of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn floats(v: __m128) -> [f32; 4] {
    let mut floats = [0.0; 4];
    // SAFETY: the array has four elements, and the store needs no alignment.
    unsafe { _mm_storeu_ps(floats.as_mut_ptr(), v) };
    floats
}

/// The f16 at byte `at`, as the low bits.
#[inline(always)]
pub(super) fn half_bits(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The 64 bytes from `at`.
#[inline]
#[target_feature(enable = "avx512f")]
fn bytes64(bytes: &[u8], at: usize) -> __m512i {
    let bytes = &bytes[at..at + 64];
    // SAFETY: the slice has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The 32 bytes from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn bytes32(bytes: &[u8], at: usize) -> __m256i {
    let bytes = &bytes[at..at + 32];
    // SAFETY: the slice has 32 bytes, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The 16 bytes from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn bytes16(bytes: &[u8], at: usize) -> __m128i {
    let bytes = &bytes[at..at + 16];
    // SAFETY: the slice has 16 bytes, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The 64 activations from `at`.
#[inline]
#[target_feature(enable = "avx512f")]
fn q64(q: &[i8], at: usize) -> __m512i {
    let q = &q[at..at + 64];
    // SAFETY: the slice has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(q.as_ptr().cast()) }
}

/// Four floats from `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn floats4(x: &[f32], at: usize) -> __m128 {
    let x = &x[at..at + 4];
    // SAFETY: the slice has four elements, and the load needs no alignment.
    unsafe { _mm_loadu_ps(x.as_ptr()) }
}

/// 32 words from `at`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words32(words: &[i16], at: usize) -> __m512i {
    let words = &words[at..at + 32];
    // SAFETY: the slice has 64 bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}
