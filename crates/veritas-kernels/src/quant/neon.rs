//! Quantised products with Advanced SIMD and its dot products.
//!
//! `sdot` multiplies signed bytes and adds four products in i32 without saturation, so that weights and activations go in
//! as they are.
//!
//! - **Many activation rows**: panels of 16 weight rows times tiles of up to six columns (`panel`, `prompt`). Lanes are
//!   weight rows.
//! - **Few** (`decode`): the weights are read from the file's layout into registers, four rows at a time; lanes are
//!   weights, and the sums of four rows are added across lanes together.
//!
//! The intrinsic of `sdot` is not stable; it is written as assembly. Processors before ARMv8.4 may lack the instruction
//! and then use the portable kernels.

mod panel;
mod prompt;
mod q4_0;
mod q4_k;
mod q5_0;
mod q5_k;
mod q6_k;
mod q8_0;
mod vectors;

use std::arch::aarch64::*;
use std::arch::asm;

use veritas_quant::GgmlType;
use veritas_quant::unpack::{self, Format, GROUP};

use super::stretch::row_slices;
use crate::Activations;
use crate::table::RowsKernel;
use crate::tile::TileWriter;

/// Whether this machine has `sdot`, which every kernel here needs.
pub(super) fn is_available() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// The kernel of a type, or `None` where only the portable one exists. It may be called only if [`is_available`].
pub(super) fn rows(ty: GgmlType) -> Option<RowsKernel> {
    Some(match ty {
        GgmlType::Q4_0 => direct_rows::<unpack::Q4_0>,
        GgmlType::Q5_0 => direct_rows::<unpack::Q5_0>,
        GgmlType::Q8_0 => direct_rows::<unpack::Q8_0>,
        GgmlType::Q4_K => direct_rows::<unpack::Q4_K>,
        GgmlType::Q5_K => direct_rows::<unpack::Q5_K>,
        GgmlType::Q6_K => direct_rows::<unpack::Q6_K>,
        _ => return None,
    })
}

/// A format whose blocks are multiplied straight from the file's layout.
trait Direct: Format {
    /// Where the f16 factor stands in a block.
    const D_AT: usize;
    /// Where the f16 factor of the minimums stands; unused in formats without them.
    const D_MIN_AT: usize = 0;

    /// Partial sums of `scale · quant · activation` over the block: their total is what counts.
    ///
    /// # Safety
    /// The machine must have `sdot`.
    unsafe fn dots(block: &[u8], q: &[i8]) -> int32x4_t;

    /// The total of `min · sum`.
    #[inline(always)]
    fn mins(_block: &[u8], _sums: &[i16]) -> i32 {
        0
    }
}

/// The rows of a format that is read in registers.
#[target_feature(enable = "neon,dotprod")]
fn direct_rows<F: Direct>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    if acts.columns().is_some() {
        prompt::rows::<F>(w, n_rows, cols, acts, out);
    } else {
        decode::<F>(w, n_rows, cols, acts, out);
    }
}

/// Weight rows that are read at once.
const DECODE_ROWS: usize = 4;

/// Four weight rows at a time straight from the file's layout, against each activation row.
#[target_feature(enable = "neon,dotprod")]
fn decode<F: Direct>(w: &[u8], n_rows: usize, cols: usize, acts: &Activations, out: &mut TileWriter<'_>) {
    let n_blocks = cols / F::LEN;
    for first in (0..n_rows).step_by(DECODE_ROWS) {
        let rows = row_slices::<F, DECODE_ROWS>(w, n_rows, cols, first, 0, n_blocks);
        let n_valid = DECODE_ROWS.min(n_rows - first);
        for a in 0..acts.rows() {
            let products = decode_rows::<F>(&rows, acts.q_row(a), acts.scale_row(a), acts.sum_row(a));
            out.row_mut(a)[first..first + n_valid].copy_from_slice(&products[..n_valid]);
        }
    }
}

/// Four weight rows times one activation row.
#[target_feature(enable = "neon,dotprod")]
fn decode_rows<F: Direct>(
    rows: &[&[u8]; DECODE_ROWS],
    q: &[i8],
    scales: &[f32],
    sums: &[i16],
) -> [f32; DECODE_ROWS] {
    let mut acc = vdupq_n_f32(0.0);
    for (b, &da) in scales.iter().enumerate() {
        let q = &q[b * F::LEN..][..F::LEN];
        let sums = &sums[b * F::LEN / GROUP..][..F::LEN / GROUP];
        let block = |r: usize| &rows[r][b * F::BYTES..][..F::BYTES];
        let blocks = [block(0), block(1), block(2), block(3)];
        // SAFETY: this function enables `sdot`.
        let dots = unsafe {
            add_across([
                F::dots(blocks[0], q),
                F::dots(blocks[1], q),
                F::dots(blocks[2], q),
                F::dots(blocks[3], q),
            ])
        };
        let scale = vmulq_n_f32(vectors::floats(&halves(blocks, F::D_AT)), da);
        acc = vfmaq_f32(acc, scale, vcvtq_f32_s32(dots));
        if F::MINS {
            let mins = blocks.map(|block| F::mins(block, sums));
            let scale = vmulq_n_f32(vectors::floats(&halves(blocks, F::D_MIN_AT)), da);
            acc = vfmsq_f32(acc, scale, vcvtq_f32_s32(vectors::dwords(&mins)));
        }
    }
    let mut products = [0.0; DECODE_ROWS];
    vectors::store(&mut products, acc);
    products
}

/// The f16 at byte `at` of four blocks, as f32.
#[inline(always)]
fn halves(blocks: [&[u8]; 4], at: usize) -> [f32; 4] {
    blocks.map(|block| half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32())
}

/// The totals of four vectors of four sums.
#[inline]
#[target_feature(enable = "neon")]
fn add_across(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// `acc` and, lane by lane, the sums of four products of signed bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: `sdot` on registers alone, which the function enables.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// The sums of four products of signed bytes over 32 weights.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots_of_32(w: [int8x16_t; 2], q: &[i8], at: usize) -> int32x4_t {
    add_dots(add_dots(vdupq_n_s32(0), w[0], q16(q, at)), w[1], q16(q, at + 16))
}

/// The 16 bytes from `at`.
#[inline]
#[target_feature(enable = "neon")]
fn bytes16(bytes: &[u8], at: usize) -> uint8x16_t {
    let bytes = &bytes[at..at + 16];
    // SAFETY: the slice has 16 bytes, and the load needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The 16 activations from `at`.
#[inline]
#[target_feature(enable = "neon")]
fn q16(q: &[i8], at: usize) -> int8x16_t {
    let q = &q[at..at + 16];
    // SAFETY: the slice has 16 bytes, and the load needs no alignment.
    unsafe { vld1q_s8(q.as_ptr()) }
}

/// The low and the high nibbles of 16 bytes: 32 weights in order.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(bytes: uint8x16_t) -> [uint8x16_t; 2] {
    [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)]
}

/// Codes less an offset, as signed weights.
#[inline]
#[target_feature(enable = "neon")]
fn less(codes: [uint8x16_t; 2], offset: u8) -> [int8x16_t; 2] {
    let offset = vdupq_n_u8(offset);
    [vreinterpretq_s8_u8(vsubq_u8(codes[0], offset)), vreinterpretq_s8_u8(vsubq_u8(codes[1], offset))]
}
