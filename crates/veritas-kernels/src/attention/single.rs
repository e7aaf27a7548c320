//! Attention of a single row, as in generation: a few queries that share a kv head read keys and values straight from
//! the pages, each once, and their sums stay in registers.
//!
//! The order of operations is that of the module above. Nothing is unpacked to memory: a page of 16 tokens and 64
//! dimensions is 4 KB, and the same as f32 beside what the next tile needs would no longer fit the first-level cache.

use super::{AttentionUnit, TILE, TILE_PAGES, UnitScratch, enter_tile, soften};
use crate::kv::{CacheType, PAGE_TOKENS};
use crate::lanes::{LANES, Simd};

/// Most queries that the register tiles hold.
const QUERIES_MAX: usize = 8;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Whether a unit is one of these.
#[inline(always)]
pub(super) fn serves<S: Simd>(unit: &AttentionUnit<'_>) -> bool {
    let is_float = |ty| matches!(ty, CacheType::F32 | CacheType::F16);
    S::MANY_REGISTERS
        && unit.n_rows == 1
        && unit.group() <= QUERIES_MAX
        && is_float(unit.layout.k_type)
        && is_float(unit.layout.v_type)
}

/// All tiles from the position `start` to `end`.
#[inline(always)]
pub(super) fn tiles<S: Simd>(
    s: S,
    unit: &AttentionUnit<'_>,
    scratch: &mut UnitScratch,
    start: usize,
    end: usize,
) {
    macro_rules! by_queries {
        ($($q:literal, $pages:literal, $vectors:literal;)*) => {
            match unit.group() {
                $($q => queries::<S, $q, $pages, $vectors>(s, unit, scratch, start, end),)*
                q => unreachable!("{q} queries in a unit of at most {QUERIES_MAX}"),
            }
        };
    }
    // Queries × pages, and queries × vectors of dimensions: as many accumulators as fit beside their operands.
    by_queries! {
        1, 4, 4;
        2, 4, 4;
        3, 4, 4;
        4, 4, 4;
        5, 2, 2;
        6, 2, 2;
        7, 2, 2;
        8, 2, 2;
    }
}

#[inline(always)]
fn queries<S: Simd, const Q: usize, const P: usize, const D: usize>(
    s: S,
    unit: &AttentionUnit<'_>,
    scratch: &mut UnitScratch,
    start: usize,
    end: usize,
) {
    for tile in start / TILE..end.div_ceil(TILE) {
        let (used_start, used_end) = enter_tile(&mut scratch.queries, tile * TILE);
        let pages = used_start / PAGE_TOKENS..used_end.div_ceil(PAGE_TOKENS);
        let page = |index: usize| unit.page(tile * TILE_PAGES + index);
        // Where a tile has fewer pages, the last one stands for those: their scores are masked.
        let heads: [&[u8]; TILE_PAGES] =
            std::array::from_fn(|index| page(index.clamp(pages.start, pages.end - 1)));
        let is_last = (tile + 1) * TILE >= end;
        let ahead: [&[u8]; TILE_PAGES] = std::array::from_fn(|index| {
            let next = (tile + 1) * TILE_PAGES + index;
            if is_last || next * PAGE_TOKENS >= end { heads[index] } else { unit.page(next) }
        });
        match unit.layout.k_type {
            CacheType::F32 => scores::<S, 64, Q, P>(s, unit, &heads, &ahead, &mut scratch.scores),
            _ => scores::<S, 32, Q, P>(s, unit, &heads, &ahead, &mut scratch.scores),
        }
        let (queries, scores) = (&mut scratch.queries, scratch.scores.as_chunks_mut::<TILE>().0);
        for (query, scores) in queries.iter_mut().zip(scores) {
            soften(s, unit.config, query, scores);
        }
        match unit.layout.v_type {
            CacheType::F32 => values::<S, 64, Q, D>(s, unit, &heads, &ahead, scratch),
            _ => values::<S, 32, Q, D>(s, unit, &heads, &ahead, scratch),
        }
    }
}

/// Sixteen cached numbers of `B` bytes together: f32 or f16.
#[inline(always)]
fn load<S: Simd, const B: usize>(s: S, bytes: &[u8; B]) -> S::V {
    match (<&[u8; 64]>::try_from(&bytes[..]), <&[u8; 32]>::try_from(&bytes[..])) {
        (Ok(bytes), _) => s.load_bytes(bytes),
        (_, Ok(bytes)) => s.load_f16(bytes),
        _ => unreachable!("sixteen f32 or sixteen f16"),
    }
}

/// The scores of the tile, without scale, cap and mask: `P` pages at a time.
#[inline(always)]
fn scores<S: Simd, const B: usize, const Q: usize, const P: usize>(
    s: S,
    unit: &AttentionUnit<'_>,
    heads: &[&[u8]; TILE_PAGES],
    ahead: &[&[u8]; TILE_PAGES],
    scores: &mut [f32],
) {
    let dim = unit.layout.head_dim_k;
    let mut q: [&[f32]; Q] = [&[]; Q];
    for (i, q) in q.iter_mut().enumerate() {
        *q = &unit.query(i)[..dim];
    }
    for page in (0..TILE_PAGES).step_by(P) {
        let mut k: [&[[u8; B]]; P] = [&[]; P];
        for (p, k) in k.iter_mut().enumerate() {
            *k = &heads[page + p].as_chunks::<B>().0[..dim];
        }
        let mut acc = [[s.splat(0.0); P]; Q];
        for d in 0..dim {
            for p in 0..P {
                if (d * B).is_multiple_of(LINE) {
                    s.prefetch(ahead[page + p], d * B);
                }
            }
            let mut vectors = [load(s, &k[0][d]); P];
            for p in 1..P {
                vectors[p] = load(s, &k[p][d]);
            }
            for i in 0..Q {
                let x = s.splat(q[i][d]);
                for p in 0..P {
                    acc[i][p] = s.fma(vectors[p], x, acc[i][p]);
                }
            }
        }
        for i in 0..Q {
            let out = scores[i * TILE..][..TILE].as_chunks_mut::<LANES>().0;
            for p in 0..P {
                s.store(acc[i][p], &mut out[page + p]);
            }
        }
    }
}

/// Adds the values of the tile, weighted, to the accumulators: `D` vectors of dimensions at a time.
#[inline(always)]
fn values<S: Simd, const B: usize, const Q: usize, const D: usize>(
    s: S,
    unit: &AttentionUnit<'_>,
    heads: &[&[u8]; TILE_PAGES],
    ahead: &[&[u8]; TILE_PAGES],
    scratch: &mut UnitScratch,
) {
    let n_vectors = unit.layout.head_dim_v.div_ceil(LANES);
    let whole = n_vectors / D * D;
    for vector in (0..whole).step_by(D) {
        some_values::<S, B, Q, D>(s, unit, heads, ahead, scratch, vector);
    }
    for vector in whole..n_vectors {
        some_values::<S, B, Q, 1>(s, unit, heads, ahead, scratch, vector);
    }
}

#[inline(always)]
fn some_values<S: Simd, const B: usize, const Q: usize, const D: usize>(
    s: S,
    unit: &AttentionUnit<'_>,
    heads: &[&[u8]; TILE_PAGES],
    ahead: &[&[u8]; TILE_PAGES],
    scratch: &mut UnitScratch,
    vector: usize,
) {
    let layout = unit.layout;
    let (padded, k_bytes) = (layout.padded_dim_v(), layout.k_bytes());
    let row_vectors = layout.v_type.number_bytes(layout.head_dim_v) / PAGE_TOKENS / B;
    // All queries of a single row see the same part.
    let (tile_start, tile_end) = (scratch.queries[0].tile_start, scratch.queries[0].tile_end);
    let mut acc = [[s.splat(0.0); D]; Q];
    for i in 0..Q {
        let rescale = s.splat(scratch.queries[i].rescale);
        let from = scratch.acc[i * padded + vector * LANES..].as_chunks::<LANES>().0;
        for d in 0..D {
            acc[i][d] = s.mul(s.load(&from[d]), rescale);
        }
    }
    let mut p: [&[f32]; Q] = [&[]; Q];
    for (i, p) in p.iter_mut().enumerate() {
        *p = &scratch.scores[i * TILE..][..TILE];
    }
    for page in tile_start / PAGE_TOKENS..tile_end.div_ceil(PAGE_TOKENS) {
        let rows = heads[page][k_bytes..].as_chunks::<B>().0;
        let first = page * PAGE_TOKENS;
        for token in tile_start.max(first)..tile_end.min(first + PAGE_TOKENS) {
            let row = (token - first) * row_vectors + vector;
            let value = &rows[row..row + D];
            for line in 0..(D * B).div_ceil(LINE) {
                s.prefetch(ahead[page], k_bytes + row * B + line * LINE);
            }
            let mut vectors = [load(s, &value[0]); D];
            for d in 1..D {
                vectors[d] = load(s, &value[d]);
            }
            for i in 0..Q {
                let p = s.splat(p[i][token]);
                for d in 0..D {
                    acc[i][d] = s.fma(p, vectors[d], acc[i][d]);
                }
            }
        }
    }
    for i in 0..Q {
        let to = scratch.acc[i * padded + vector * LANES..].as_chunks_mut::<LANES>().0;
        for d in 0..D {
            s.store(acc[i][d], &mut to[d]);
        }
    }
}
