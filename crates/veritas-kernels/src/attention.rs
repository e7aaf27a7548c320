//! Attention over the pages of the KV cache.
//!
//! The order of operations of one query (a row and a head), which no batching, threading or instruction set changes:
//! - score of a position: one chain of fused multiply-adds over the head dimension, ascending, from +0; times the scale;
//!   then the soft cap.
//! - tiles of [`TILE`] positions at absolute multiples of it, ascending; those without an unmasked position are skipped.
//!   Per tile: `m' = max(m, scores)`, `p = exp(score − m')`, `f = exp(m − m')`, `l = fma(l, f, Σ p)`, `acc = acc · f`, then
//!   `acc = fma(p, v, acc)` over the unmasked positions, ascending. Σ is sixteen lanes (position mod 16, ascending, masked
//!   ones adding 0) and the fold.
//! - partitions of [`PARTITION`] positions at absolute multiples of it, each from `m = −∞, l = 0, acc = 0`, are combined in
//!   ascending order: `M' = max(M, m)`, `F = exp(M − M')`, `f = exp(m − M')`, `L = fma(l, f, L · F)`,
//!   `ACC = fma(acc, f, ACC · F)`. At the start `M = −∞, L = 0, ACC = 0`; with a sink, `M = sink, L = 1`.
//! - output: `ACC / L`.
//!
//! A unit of parallel work is one kv head of one sequence and as many query rows as share a tile well: the tile's keys
//! and values are read once, as f32, for all of the unit's queries. Where there are too few units for the threads, each
//! partition of a unit is a task of its own.

mod single;

use std::cell::RefCell;
use std::ops::Range;

use veritas_mem::AlignedBuf;

use crate::elementwise::softcap_lanes;
use crate::kv::{self, AttentionSequence, KvLayout, PAGE_TOKENS};
use crate::lanes::{LANES, Simd};
use crate::table::Kernels;
use crate::team::Team;
use crate::tile::DisjointChunks;
use crate::vector;

/// Positions in a tile. Part of the definition: another number gives other bits.
const TILE: usize = 64;
/// Pages in a tile.
const TILE_PAGES: usize = TILE / PAGE_TOKENS;

/// Positions in a partition. Part of the definition, too.
const PARTITION: usize = 1024;

/// Units per thread below which partitions become tasks.
const UNITS_PER_THREAD: usize = 2;

/// Queries of a unit (rows × heads that share a kv head): enough to pay for reading a tile, few enough that their
/// accumulators stay in the cache beside it.
const UNIT_QUERIES: usize = 32;

/// What does not change within one call of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig<'a> {
    /// Query heads; a multiple of the kv heads, consecutive ones share a kv head.
    pub n_heads: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` after the scale.
    pub softcap: Option<f32>,
    /// Positions that a query sees, its own included (without `causal`: as many to the other side, too).
    pub window: Option<usize>,
    /// Whether a query sees no later position than its own.
    pub causal: bool,
    /// Per head, a score that takes part in the softmax and has no value.
    pub sinks: Option<&'a [f32]>,
}

impl AttentionConfig<'_> {
    /// The positions that the row at `position` sees: `start..end`, never empty.
    fn visible(&self, position: usize, end_position: usize) -> (usize, usize) {
        let window = self.window.unwrap_or(usize::MAX).max(1);
        let start = (position + 1).saturating_sub(window);
        let end = if self.causal { position + 1 } else { end_position.min(position.saturating_add(window)) };
        (start, end)
    }
}

/// Attention of a batch. `q` is `[rows, n_heads · head_dim_k]`, `out` is `[rows, n_heads · head_dim_v]`, row-major; rows
/// of no sequence are left as they are. `pages` is this layer's arena (see [`kv_store`](crate::kv_store), which has
/// stored the keys and values of these rows already). A row at position `p` attends the positions
/// `max(0, p − window + 1)..=p`; without `causal` all up to its sequence's last row, within the window on both sides.
///
/// # Panics
/// If a length does not fit, a block table names a page outside the arena, or the rows of the sequences overlap or do
/// not ascend.
#[allow(clippy::too_many_arguments)] // The inputs of the operation: grouping them would only rename them.
pub fn attention(
    kernels: &Kernels,
    team: &Team,
    config: &AttentionConfig<'_>,
    layout: &KvLayout,
    pages: &[u8],
    seqs: &[AttentionSequence<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    let (n_kv, n_heads) = (layout.n_kv_heads, config.n_heads);
    assert!(n_kv > 0 && n_heads.is_multiple_of(n_kv), "{n_heads} heads share {n_kv} kv heads");
    assert!(config.sinks.is_none_or(|sinks| sinks.len() == n_heads), "a sink for each head");
    let n_rows = q.len() / (n_heads * layout.head_dim_k).max(1);
    assert_eq!(q.len(), n_rows * n_heads * layout.head_dim_k, "the queries' length");
    assert_eq!(out.len(), n_rows * n_heads * layout.head_dim_v, "the output's length");
    let mut free_row = 0;
    for seq in seqs {
        seq.check(n_rows);
        assert!(seq.first_row >= free_row, "the sequences' rows ascend and do not overlap");
        free_row = seq.first_row + seq.n_rows;
    }
    if out.is_empty() {
        return;
    }
    let group = n_heads / n_kv;
    let unit_rows = (UNIT_QUERIES / group).max(1);
    // The last rows of a sequence see most, so they go first.
    let units: Vec<(usize, usize)> = seqs
        .iter()
        .enumerate()
        .flat_map(|(i, seq)| (0..seq.n_rows).step_by(unit_rows).rev().map(move |row| (i, row)))
        .collect();
    let parts = DisjointChunks::new(out, group * layout.head_dim_v);
    let n_tasks = units.len() * n_kv;
    let unit_of = |task: usize| {
        let (seq, first_row) = units[task / n_kv];
        let seq = &seqs[seq];
        let n_rows = unit_rows.min(seq.n_rows - first_row);
        let (kv_head, out, work) = (task % n_kv, &parts, Work::Whole);
        AttentionUnit { config, layout, pages, seq, kv_head, first_row, n_rows, q, out, work }
    };
    let attend = |mut unit: AttentionUnit<'_>| {
        SCRATCH.with_borrow_mut(|scratch| kernels.attend(&mut unit, scratch));
    };
    let partitions = |task: usize| unit_of(task).partitions();
    let most = (0..n_tasks).step_by(n_kv).map(|task| partitions(task).len()).max().unwrap_or(0);
    if most < 2 || team.n_threads() == 1 || n_tasks >= UNITS_PER_THREAD * team.n_threads() {
        team.run(n_tasks, &|task, _thread| attend(unit_of(task)));
        return;
    }
    PARTIALS.with_borrow_mut(|partials| {
        let len = unit_rows * group * partial_len(layout);
        partials.resize(n_tasks * most * len);
        let partials = DisjointChunks::new(partials, len);
        team.run(n_tasks * most, &|number, _thread| {
            let (task, index) = (number / most, number % most);
            if let Some(partition) = partitions(task).nth(index) {
                let work = Work::Partition { partition, partials: &partials, at: number };
                attend(AttentionUnit { work, ..unit_of(task) });
            }
        });
        team.run(n_tasks, &|task, _thread| {
            let work = Work::Combine { partials: &partials, first: task * most };
            attend(AttentionUnit { work, ..unit_of(task) });
        });
    });
}

/// What is computed of a unit.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// All of it.
    Whole,
    /// One partition, whose state goes to a place of its own.
    Partition { partition: usize, partials: &'a DisjointChunks<'a, f32>, at: usize },
    /// The output, from the states of all partitions, which lie one after the other.
    Combine { partials: &'a DisjointChunks<'a, f32>, first: usize },
}

/// Numbers of the state of one query: its accumulators, the maximum, the sum.
fn partial_len(layout: &KvLayout) -> usize {
    layout.padded_dim_v() + LANES
}

thread_local! {
    /// The states of the partitions of one call.
    static PARTIALS: RefCell<AlignedBuf<f32>> = RefCell::default();
}

thread_local! {
    static SCRATCH: RefCell<UnitScratch> = RefCell::default();
}

/// Buffers of a unit, kept by each thread.
#[derive(Default)]
pub(crate) struct UnitScratch {
    /// The tile's keys, `[page][dim][16]`.
    keys: AlignedBuf<f32>,
    /// The tile's values, `[position][dim]`.
    values: AlignedBuf<f32>,
    /// Scores, then probabilities, `[query][TILE]`.
    scores: AlignedBuf<f32>,
    /// Accumulators of the partition, `[query][dim]`.
    acc: AlignedBuf<f32>,
    /// Accumulators of the partitions before, `[query][dim]`.
    total: AlignedBuf<f32>,
    queries: Vec<Query>,
}

/// The state of one query between tiles.
#[derive(Clone, Copy, Default)]
struct Query {
    /// Positions that it sees.
    start: usize,
    end: usize,
    /// The part of the current tile that it sees, from the tile's start; empty if `tile_end <= tile_start`.
    tile_start: usize,
    tile_end: usize,
    /// Of the partition: the largest score, and the sum.
    max: f32,
    sum: f32,
    /// Of the partitions before.
    total_max: f32,
    total_sum: f32,
    /// What the accumulators are multiplied by before the current tile is added.
    rescale: f32,
}

/// One kv head of some rows of one sequence.
pub(crate) struct AttentionUnit<'a> {
    config: &'a AttentionConfig<'a>,
    layout: &'a KvLayout,
    pages: &'a [u8],
    seq: &'a AttentionSequence<'a>,
    kv_head: usize,
    /// Rows counted from the sequence's first.
    first_row: usize,
    n_rows: usize,
    q: &'a [f32],
    /// The output, cut by (row, kv head).
    out: &'a DisjointChunks<'a, f32>,
    work: Work<'a>,
}

impl AttentionUnit<'_> {
    /// Heads that share the kv head.
    fn group(&self) -> usize {
        self.config.n_heads / self.layout.n_kv_heads
    }

    /// The positions that the row `row` of the unit sees.
    fn visible(&self, row: usize) -> (usize, usize) {
        let position = self.seq.first_position + self.first_row + row;
        self.config.visible(position, self.seq.end_position())
    }

    /// The partitions that any of the rows sees a part of.
    fn partitions(&self) -> Range<usize> {
        // Later rows see no earlier start and no earlier end.
        let (start, end) = (self.visible(0).0, self.visible(self.n_rows - 1).1);
        start / PARTITION..end.div_ceil(PARTITION)
    }

    /// The query vector of a query of the unit, which counts rows, then heads.
    #[inline(always)]
    fn query(&self, index: usize) -> &[f32] {
        let row = self.seq.first_row + self.first_row + index / self.group();
        let head = self.kv_head * self.group() + index % self.group();
        let dim = self.layout.head_dim_k;
        &self.q[(row * self.config.n_heads + head) * dim..][..dim]
    }

    /// This kv head's part of the page of some positions.
    #[inline(always)]
    fn page(&self, index: usize) -> &[u8] {
        let page = self.seq.block_table[index] as usize;
        let head_bytes = self.layout.head_bytes();
        let n_pages = self.pages.len() / self.layout.page_bytes();
        assert!(page < n_pages, "page {page} of {n_pages}");
        &self.pages[(self.kv_head * n_pages + page) * head_bytes..][..head_bytes]
    }
}

/// Computes a unit, or what its `work` says of it.
#[inline(always)]
pub(crate) fn attend<S: Simd>(s: S, unit: &mut AttentionUnit<'_>, scratch: &mut UnitScratch) {
    begin(unit, scratch);
    match unit.work {
        Work::Whole => {
            for partition in unit.partitions() {
                attend_partition(s, unit, scratch, partition);
                let padded = unit.layout.padded_dim_v();
                let UnitScratch { queries, acc, total, .. } = scratch;
                for (index, query) in queries.iter_mut().enumerate() {
                    let range = index * padded..(index + 1) * padded;
                    combine(s, query, &acc[range.clone()], &mut total[range]);
                }
            }
            finish(s, unit, scratch);
        }
        Work::Partition { partition, partials, at } => {
            attend_partition(s, unit, scratch, partition);
            // SAFETY: each partition of a unit has a number of its own, and is one task.
            let partial = unsafe { partials.chunk(at) };
            let padded = unit.layout.padded_dim_v();
            let states = partial.chunks_exact_mut(partial_len(unit.layout));
            for ((query, acc), state) in
                scratch.queries.iter().zip(scratch.acc.chunks_exact(padded)).zip(states)
            {
                state[..padded].copy_from_slice(acc);
                (state[padded], state[padded + 1]) = (query.max, query.sum);
            }
        }
        Work::Combine { partials, first } => {
            let padded = unit.layout.padded_dim_v();
            for (index, _) in unit.partitions().enumerate() {
                // SAFETY: the states of this unit are written, and no other task reads or writes them now.
                let partial = unsafe { partials.chunk(first + index) };
                let states = partial.chunks_exact(partial_len(unit.layout));
                let UnitScratch { queries, total, .. } = scratch;
                for ((query, total), state) in
                    queries.iter_mut().zip(total.chunks_exact_mut(padded)).zip(states)
                {
                    (query.max, query.sum) = (state[padded], state[padded + 1]);
                    combine(s, query, &state[..padded], total);
                }
            }
            finish(s, unit, scratch);
        }
    }
}

/// Sizes the scratch and sets the queries to their start.
fn begin(unit: &AttentionUnit<'_>, scratch: &mut UnitScratch) {
    let layout = unit.layout;
    let group = unit.group();
    let n_queries = unit.n_rows * group;
    scratch.keys.resize(TILE * layout.padded_dim_k());
    scratch.values.resize(TILE * layout.padded_dim_v());
    scratch.scores.resize(n_queries * TILE);
    scratch.acc.resize(n_queries * layout.padded_dim_v());
    scratch.total.resize(n_queries * layout.padded_dim_v());
    scratch.total.fill(0.0);
    scratch.queries.clear();
    for index in 0..n_queries {
        let (start, end) = unit.visible(index / group);
        let sink =
            unit.config.sinks.map_or(f32::NEG_INFINITY, |sinks| sinks[unit.kv_head * group + index % group]);
        let total_sum = if sink == f32::NEG_INFINITY { 0.0 } else { 1.0 };
        scratch.queries.push(Query { start, end, total_max: sink, total_sum, ..Query::default() });
    }
}

/// The state of all queries over one partition.
#[inline(always)]
fn attend_partition<S: Simd>(s: S, unit: &AttentionUnit<'_>, scratch: &mut UnitScratch, partition: usize) {
    scratch.acc.fill(0.0);
    scratch.queries.iter_mut().for_each(|query| (query.max, query.sum) = (f32::NEG_INFINITY, 0.0));
    let (start, end) = (unit.visible(0).0, unit.visible(unit.n_rows - 1).1);
    let start = start.max(partition * PARTITION);
    let end = end.min((partition + 1) * PARTITION);
    if single::serves::<S>(unit) {
        return single::tiles(s, unit, scratch, start, end);
    }
    for tile in start / TILE..end.div_ceil(TILE) {
        let tile_start = tile * TILE;
        let (used_start, used_end) = enter_tile(&mut scratch.queries, tile_start);
        if used_start >= used_end {
            continue;
        }
        unpack_tile(s, unit, scratch, tile_start, used_start, used_end);
        score_tile(s, unit, scratch);
        for (query, scores) in scratch.queries.iter_mut().zip(scratch.scores.as_chunks_mut::<TILE>().0) {
            if query.tile_start < query.tile_end {
                soften(s, unit.config, query, scores);
            }
        }
        accumulate_tile(s, unit.layout, scratch);
    }
}

/// Adds the state of a partition to that of the partitions before.
#[inline(always)]
fn combine<S: Simd>(s: S, query: &mut Query, acc: &[f32], total: &mut [f32]) {
    if query.max == f32::NEG_INFINITY && query.sum == 0.0 {
        // The query sees nothing of the partition.
        return;
    }
    let new_max = if query.max > query.total_max { query.max } else { query.total_max };
    let factor = |max: f32| {
        let mut lanes = [0.0; LANES];
        s.store(vector::exp(s, s.splat(max - new_max)), &mut lanes);
        lanes[0]
    };
    let (before, here) = (factor(query.total_max), factor(query.max));
    query.total_sum = query.sum.mul_add(here, query.total_sum * before);
    query.total_max = new_max;
    let (before, here) = (s.splat(before), s.splat(here));
    for (total, acc) in total.as_chunks_mut::<LANES>().0.iter_mut().zip(acc.as_chunks::<LANES>().0) {
        s.store(s.fma(s.load(acc), here, s.mul(s.load(total), before)), total);
    }
}

/// Sets each query's part of the tile at `tile_start`; the part that any query sees, from the tile's start.
fn enter_tile(queries: &mut [Query], tile_start: usize) -> (usize, usize) {
    let (mut used_start, mut used_end) = (TILE, 0);
    for query in queries {
        query.tile_start = query.start.saturating_sub(tile_start).min(TILE);
        query.tile_end = query.end.saturating_sub(tile_start).min(TILE);
        if query.tile_start < query.tile_end {
            used_start = used_start.min(query.tile_start);
            used_end = used_end.max(query.tile_end);
        }
    }
    (used_start, used_end)
}

/// Reads the pages of the tile that hold the positions `used_start..used_end`. What the scratch holds for other pages
/// does not matter: their scores are masked.
#[inline(always)]
fn unpack_tile<S: Simd>(
    s: S,
    unit: &AttentionUnit<'_>,
    scratch: &mut UnitScratch,
    tile_start: usize,
    used_start: usize,
    used_end: usize,
) {
    let layout = unit.layout;
    let (k_len, v_len) = (PAGE_TOKENS * layout.padded_dim_k(), PAGE_TOKENS * layout.padded_dim_v());
    for page in used_start / PAGE_TOKENS..used_end.div_ceil(PAGE_TOKENS) {
        let head = unit.page(tile_start / PAGE_TOKENS + page);
        kv::unpack_keys(s, layout, head, &mut scratch.keys[page * k_len..][..k_len]);
        kv::unpack_values(s, layout, head, &mut scratch.values[page * v_len..][..v_len]);
    }
}

/// The scores of all queries and positions of the tile, without scale, cap and mask.
#[inline(always)]
fn score_tile<S: Simd>(s: S, unit: &AttentionUnit<'_>, scratch: &mut UnitScratch) {
    let n_queries = scratch.queries.len();
    let mut query = 0;
    if S::MANY_REGISTERS {
        while query + 4 <= n_queries {
            score_queries::<S, 4, 4>(s, unit, &scratch.keys, query, &mut scratch.scores);
            query += 4;
        }
    }
    while query + 2 <= n_queries {
        score_queries::<S, 2, 2>(s, unit, &scratch.keys, query, &mut scratch.scores);
        query += 2;
    }
    if query < n_queries {
        score_queries::<S, 1, 4>(s, unit, &scratch.keys, query, &mut scratch.scores);
    }
}

/// The scores of `Q` queries, `P` pages at a time.
#[inline(always)]
fn score_queries<S: Simd, const Q: usize, const P: usize>(
    s: S,
    unit: &AttentionUnit<'_>,
    keys: &[f32],
    first: usize,
    scores: &mut [f32],
) {
    let (dim, padded) = (unit.layout.head_dim_k, unit.layout.padded_dim_k());
    let mut q: [&[f32]; Q] = [&[]; Q];
    for (i, q) in q.iter_mut().enumerate() {
        *q = &unit.query(first + i)[..dim];
    }
    for page in (0..TILE_PAGES).step_by(P) {
        let mut k: [&[[f32; LANES]]; P] = [&[]; P];
        for (p, k) in k.iter_mut().enumerate() {
            *k = &keys[(page + p) * padded * LANES..].as_chunks::<LANES>().0[..dim];
        }
        let mut acc = [[s.splat(0.0); P]; Q];
        for d in 0..dim {
            let mut vectors = [s.load(&k[0][d]); P];
            for p in 1..P {
                vectors[p] = s.load(&k[p][d]);
            }
            for i in 0..Q {
                let x = s.splat(q[i][d]);
                for p in 0..P {
                    acc[i][p] = s.fma(vectors[p], x, acc[i][p]);
                }
            }
        }
        for i in 0..Q {
            let out = scores[(first + i) * TILE..][..TILE].as_chunks_mut::<LANES>().0;
            for p in 0..P {
                s.store(acc[i][p], &mut out[page + p]);
            }
        }
    }
}

/// Scale, cap, mask, maximum, exponentials and their sum.
#[inline(always)]
fn soften<S: Simd>(s: S, config: &AttentionConfig<'_>, query: &mut Query, scores: &mut [f32; TILE]) {
    let (vectors, _) = scores.as_chunks_mut::<LANES>();
    let scale = s.splat(config.scale);
    let masked = s.splat(f32::NEG_INFINITY);
    let (first, end) = (s.splat(query.tile_start as f32), s.splat(query.tile_end as f32));
    let mut max = masked;
    for (place, vector) in vectors.iter_mut().enumerate() {
        let mut score = s.mul(s.load(vector), scale);
        if let Some(cap) = config.softcap {
            score = softcap_lanes(s, score, cap);
        }
        let index = s.add(s.splat((place * LANES) as f32), s.load(&LANE_INDEX));
        score = s.select(s.lt(index, first), masked, score);
        score = s.select(s.lt(index, end), score, masked);
        max = s.max(max, score);
        s.store(score, vector);
    }
    let tile_max = s.fold_max(max);
    let new_max = if tile_max > query.max { tile_max } else { query.max };
    let maxes = s.splat(new_max);
    let mut sums = s.splat(0.0);
    for vector in vectors {
        let p = vector::exp(s, s.sub(s.load(vector), maxes));
        sums = s.add(sums, p);
        s.store(p, vector);
    }
    let mut rescale = [0.0; LANES];
    s.store(vector::exp(s, s.splat(query.max - new_max)), &mut rescale);
    query.rescale = rescale[0];
    query.sum = query.sum.mul_add(query.rescale, s.fold_add(sums));
    query.max = new_max;
}

const LANE_INDEX: [f32; LANES] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// Adds the tile's values, weighted, to the accumulators.
#[inline(always)]
fn accumulate_tile<S: Simd>(s: S, layout: &KvLayout, scratch: &mut UnitScratch) {
    let padded = layout.padded_dim_v();
    let n_vectors = layout.head_dim_v.div_ceil(LANES);
    let n_queries = scratch.queries.len();
    let mut first = 0;
    while first < n_queries {
        let query = &scratch.queries[first];
        let part = (query.tile_start, query.tile_end);
        if part.0 >= part.1 {
            first += 1;
            continue;
        }
        let rest = &scratch.queries[first..];
        let alike = rest.iter().take_while(|query| (query.tile_start, query.tile_end) == part).count();
        if S::MANY_REGISTERS && alike >= 4 {
            accumulate_queries::<S, 4, 4>(s, scratch, first, part, padded, n_vectors);
            first += 4;
        } else if alike >= 2 {
            accumulate_queries::<S, 2, 2>(s, scratch, first, part, padded, n_vectors);
            first += 2;
        } else {
            accumulate_queries::<S, 1, 4>(s, scratch, first, part, padded, n_vectors);
            first += 1;
        }
    }
}

/// `Q` queries that see the same part of the tile, `D` vectors of dimensions at a time.
#[inline(always)]
fn accumulate_queries<S: Simd, const Q: usize, const D: usize>(
    s: S,
    scratch: &mut UnitScratch,
    first: usize,
    part: (usize, usize),
    padded: usize,
    n_vectors: usize,
) {
    let whole = n_vectors / D * D;
    for vector in (0..whole).step_by(D) {
        accumulate_vectors::<S, Q, D>(s, scratch, first, part, padded, vector);
    }
    for vector in whole..n_vectors {
        accumulate_vectors::<S, Q, 1>(s, scratch, first, part, padded, vector);
    }
}

#[inline(always)]
fn accumulate_vectors<S: Simd, const Q: usize, const D: usize>(
    s: S,
    scratch: &mut UnitScratch,
    first: usize,
    part: (usize, usize),
    padded: usize,
    vector: usize,
) {
    let mut acc = [[s.splat(0.0); D]; Q];
    let mut p: [&[f32]; Q] = [&[]; Q];
    for i in 0..Q {
        let rescale = s.splat(scratch.queries[first + i].rescale);
        let from = scratch.acc[(first + i) * padded + vector * LANES..].as_chunks::<LANES>().0;
        for d in 0..D {
            acc[i][d] = s.mul(s.load(&from[d]), rescale);
        }
        p[i] = &scratch.scores[(first + i) * TILE..][part.0..part.1];
    }
    let values = scratch.values[part.0 * padded..].chunks_exact(padded);
    for (j, value) in values.take(part.1 - part.0).enumerate() {
        let (value, _) = value[vector * LANES..][..D * LANES].as_chunks::<LANES>();
        let mut vectors = [s.load(&value[0]); D];
        for d in 1..D {
            vectors[d] = s.load(&value[d]);
        }
        for i in 0..Q {
            let p = s.splat(p[i][j]);
            for d in 0..D {
                acc[i][d] = s.fma(p, vectors[d], acc[i][d]);
            }
        }
    }
    for i in 0..Q {
        let to = scratch.acc[(first + i) * padded + vector * LANES..].as_chunks_mut::<LANES>().0;
        for d in 0..D {
            s.store(acc[i][d], &mut to[d]);
        }
    }
}

/// Divides by the sums and writes the outputs.
#[inline(always)]
fn finish<S: Simd>(s: S, unit: &AttentionUnit<'_>, scratch: &UnitScratch) {
    let (dim, padded, group) = (unit.layout.head_dim_v, unit.layout.padded_dim_v(), unit.group());
    for row in 0..unit.n_rows {
        let part = (unit.seq.first_row + unit.first_row + row) * unit.layout.n_kv_heads + unit.kv_head;
        // SAFETY: `attention` checked that sequences share no rows; this unit alone has this row and kv head, and the
        // borrow ends with this iteration.
        let out = unsafe { unit.out.chunk(part) };
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let index = row * group + head;
            let sum = s.splat(scratch.queries[index].total_sum);
            let acc = &scratch.total[index * padded..][..padded];
            for (out, acc) in out.chunks_mut(LANES).zip(acc.as_chunks::<LANES>().0) {
                s.store_part(s.div(s.load(acc), sum), out);
            }
        }
    }
}
