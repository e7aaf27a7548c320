//! Attention: against a scalar definition bit for bit, against a naive f64 softmax within a tolerance, and the same
//! bits however the work is cut.

use proptest::prelude::*;
use veritas_kernels::{
    AttentionConfig, AttentionSequence, CacheType, Isa, Kernels, KvLayout, PAGE_TOKENS, Team, attention,
    kv_store, math,
};

const TYPES: [CacheType; 4] = [CacheType::F32, CacheType::F16, CacheType::Q8_0, CacheType::Q4_0];

/// One sequence: all of its queries, keys and values.
struct Case {
    layout: KvLayout,
    n_heads: usize,
    scale: f32,
    softcap: Option<f32>,
    window: Option<usize>,
    causal: bool,
    sinks: Option<Vec<f32>>,
    n: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn numbers(n: usize, state: &mut u64) -> Vec<f32> {
    (0..n)
        .map(|_| {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((*state >> 40) as f32 / 8_388_608.0 - 1.0) * 2.0
        })
        .collect()
}

impl Case {
    fn new(layout: KvLayout, group: usize, n: usize, seed: u64) -> Self {
        let n_heads = layout.n_kv_heads * group;
        let mut state = seed;
        Self {
            layout,
            n_heads,
            scale: 1.0 / (layout.head_dim_k as f32).sqrt(),
            softcap: None,
            window: None,
            causal: true,
            sinks: None,
            n,
            q: numbers(n * n_heads * layout.head_dim_k, &mut state),
            k: numbers(n * layout.n_kv_heads * layout.head_dim_k, &mut state),
            v: numbers(n * layout.n_kv_heads * layout.head_dim_v, &mut state),
        }
    }

    fn config(&self) -> AttentionConfig<'_> {
        AttentionConfig {
            n_heads: self.n_heads,
            scale: self.scale,
            softcap: self.softcap,
            window: self.window,
            causal: self.causal,
            sinks: self.sinks.as_deref(),
        }
    }

    /// Feeds the rows in chunks and returns all outputs. `pages` is the block table.
    fn run(&self, isa: Isa, n_threads: usize, chunk: usize, pages: &[u32]) -> Vec<f32> {
        let kernels = Kernels::new(isa).expect("an available level");
        let team = Team::new(n_threads);
        let n_pages = pages.iter().max().map_or(0, |&page| page as usize + 1);
        // What the pages hold beforehand must not matter: 0xFF is a NaN in every type.
        let mut arena = vec![0xFF; n_pages * self.layout.page_bytes()];
        let (q_len, k_len, v_len) = self.row_lens();
        let out_len = self.n_heads * self.layout.head_dim_v;
        let mut outputs = Vec::new();
        let mut done = 0;
        while done < self.n {
            let n_rows = chunk.min(self.n - done);
            let seqs = [AttentionSequence { block_table: pages, first_row: 0, n_rows, first_position: done }];
            let rows = |x: &[f32], len: usize| x[done * len..(done + n_rows) * len].to_vec();
            let (key, value) = (rows(&self.k, k_len), rows(&self.v, v_len));
            kv_store(&kernels, &team, &self.layout, &mut arena, &seqs, &key, &value);
            let mut out = vec![f32::NAN; n_rows * out_len];
            attention(
                &kernels,
                &team,
                &self.config(),
                &self.layout,
                &arena,
                &seqs,
                &rows(&self.q, q_len),
                &mut out,
            );
            outputs.extend(out);
            done += n_rows;
        }
        outputs
    }

    fn row_lens(&self) -> (usize, usize, usize) {
        let layout = &self.layout;
        (
            self.n_heads * layout.head_dim_k,
            layout.n_kv_heads * layout.head_dim_k,
            layout.n_kv_heads * layout.head_dim_v,
        )
    }

    fn visible(&self, position: usize) -> std::ops::Range<usize> {
        let window = self.window.unwrap_or(usize::MAX / 2);
        let end = if self.causal { position + 1 } else { self.n.min(position + window) };
        (position + 1).saturating_sub(window)..end
    }

    /// The definition, one number at a time.
    fn expected(&self) -> Vec<f32> {
        let layout = &self.layout;
        let (dim_k, dim_v) = (layout.head_dim_k, layout.head_dim_v);
        let k: Vec<f32> = self.k.chunks(dim_k).flat_map(|k| stored(layout.k_type, k)).collect();
        let v: Vec<f32> = self.v.chunks(dim_v).flat_map(|v| stored(layout.v_type, v)).collect();
        let mut out = Vec::new();
        for position in 0..self.n {
            for head in 0..self.n_heads {
                let kv_head = head / (self.n_heads / layout.n_kv_heads);
                let q = &self.q[(position * self.n_heads + head) * dim_k..][..dim_k];
                let score = |j: usize| {
                    let k = &k[(j * layout.n_kv_heads + kv_head) * dim_k..][..dim_k];
                    let score = q.iter().zip(k).fold(0.0f32, |acc, (q, k)| k.mul_add(*q, acc)) * self.scale;
                    self.softcap.map_or(score, |cap| cap * math::tanh_f32(score / cap))
                };
                let mut total_max = self.sinks.as_ref().map_or(f32::NEG_INFINITY, |sinks| sinks[head]);
                let mut total_sum = if self.sinks.is_some() { 1.0f32 } else { 0.0 };
                let mut total = vec![0.0f32; dim_v];
                let all = self.visible(position);
                for partition in all.start / 1024..all.end.div_ceil(1024) {
                    let visible = all.start.max(partition * 1024)..all.end.min(partition * 1024 + 1024);
                    let (mut max, mut sum, mut acc) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; dim_v]);
                    for tile in visible.start / 64..visible.end.div_ceil(64) {
                        let seen = visible.start.max(tile * 64)..visible.end.min(tile * 64 + 64);
                        let new_max = seen.clone().map(score).fold(max, f32::max);
                        let mut lanes = [0.0f32; 16];
                        let rescale = math::exp_f32(max - new_max);
                        acc.iter_mut().for_each(|acc| *acc *= rescale);
                        for j in seen {
                            let p = math::exp_f32(score(j) - new_max);
                            lanes[j % 16] += p;
                            let v = &v[(j * layout.n_kv_heads + kv_head) * dim_v..][..dim_v];
                            acc.iter_mut().zip(v).for_each(|(acc, v)| *acc = p.mul_add(*v, *acc));
                        }
                        for h in [8, 4, 2, 1] {
                            for i in 0..h {
                                lanes[i] += lanes[i + h];
                            }
                        }
                        sum = sum.mul_add(rescale, lanes[0]);
                        max = new_max;
                    }
                    let new_max = total_max.max(max);
                    let (before, here) = (math::exp_f32(total_max - new_max), math::exp_f32(max - new_max));
                    total_sum = sum.mul_add(here, total_sum * before);
                    total.iter_mut().zip(&acc).for_each(|(t, acc)| *t = acc.mul_add(here, *t * before));
                    total_max = new_max;
                }
                out.extend(total.iter().map(|total| total / total_sum));
            }
        }
        out
    }

    /// Softmax attention in f64, in no particular order, over the keys and values as given.
    fn naive(&self) -> Vec<f64> {
        let layout = &self.layout;
        let (dim_k, dim_v) = (layout.head_dim_k, layout.head_dim_v);
        let mut out = Vec::new();
        for position in 0..self.n {
            for head in 0..self.n_heads {
                let kv_head = head / (self.n_heads / layout.n_kv_heads);
                let q = &self.q[(position * self.n_heads + head) * dim_k..][..dim_k];
                let (mut sum, mut acc) = (0.0, vec![0.0; dim_v]);
                if let Some(sinks) = &self.sinks {
                    sum = f64::from(sinks[head]).exp();
                }
                for j in self.visible(position) {
                    let k = &self.k[(j * layout.n_kv_heads + kv_head) * dim_k..][..dim_k];
                    let mut score = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
                    score *= f64::from(self.scale);
                    if let Some(cap) = self.softcap.map(f64::from) {
                        score = cap * (score / cap).tanh();
                    }
                    sum += score.exp();
                    let v = &self.v[(j * layout.n_kv_heads + kv_head) * dim_v..][..dim_v];
                    acc.iter_mut().zip(v).for_each(|(acc, &v)| *acc += score.exp() * f64::from(v));
                }
                out.extend(acc.iter().map(|acc| acc / sum));
            }
        }
        out
    }
}

/// What the cache gives back for one head's key or value.
fn stored(ty: CacheType, x: &[f32]) -> Vec<f32> {
    let f16 = |x: f32| half::f16::from_f32(x).to_f32();
    match ty {
        CacheType::F32 => x.to_vec(),
        CacheType::F16 => x.iter().map(|&x| f16(x)).collect(),
        CacheType::Q8_0 => {
            let block = |x: &[f32]| {
                let d = f16(x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0);
                let id = 1.0 / d;
                x.iter().map(|x| (x * id).round_ties_even().clamp(-127.0, 127.0) * d).collect::<Vec<f32>>()
            };
            x.chunks(32).flat_map(block).collect()
        }
        CacheType::Q4_0 => {
            let block = |x: &[f32]| {
                let extreme = x.iter().fold(0.0f32, |max, &x| if x.abs() > max.abs() { x } else { max });
                let d = f16(extreme / -8.0);
                let id = 1.0 / d;
                x.iter().map(|x| (x * id).round_ties_even().clamp(-8.0, 7.0) * d).collect::<Vec<f32>>()
            };
            x.chunks(32).flat_map(block).collect()
        }
    }
}

fn in_order(n: usize) -> Vec<u32> {
    (0..n.div_ceil(PAGE_TOKENS) as u32).collect()
}

fn same_bits(ours: &[f32], expected: &[f32], what: &str) {
    assert_eq!(ours.len(), expected.len());
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}, output {i}: {a} {b}");
    }
}

proptest! {
    // Fewer where `PROPTEST_CASES` asks for fewer: emulated machines are slow.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(24)))]

    #[test]
    fn attention_of_every_shape_equals_the_scalar_definition(
        (n_kv_heads, group, dim_k, dim_v) in (1usize..4, 1usize..5, 1usize..80, 1usize..80),
        n in 1usize..150,
        (k_type, v_type) in (prop::sample::select(&TYPES), prop::sample::select(&TYPES)),
        softcap in prop::option::of(1.0f32..50.0),
        window in prop::option::of(1usize..150),
        (causal, sinks) in (any::<bool>(), any::<bool>()),
        (chunk, seed) in (1usize..200, any::<u64>()),
    ) {
        let layout = KvLayout { n_kv_heads, head_dim_k: dim_k, head_dim_v: dim_v, k_type, v_type };
        let mut case = Case::new(layout, group, n, seed);
        (case.softcap, case.window, case.causal) = (softcap, window, causal);
        if sinks {
            case.sinks = Some(numbers(case.n_heads, &mut (seed ^ 1)));
        }
        // Without a causal mask, a row sees the rows that come later: they must be in the same step.
        let chunk = if causal { chunk } else { n };
        let expected = case.expected();
        for isa in Isa::available() {
            same_bits(&case.run(isa, 2, chunk, &in_order(n)), &expected, isa.name());
        }
    }
}

#[test]
fn attention_is_close_to_a_naive_softmax_in_f64() {
    for (softcap, window, causal, sinks) in [
        (None, None, true, false),
        (Some(30.0), None, true, true),
        (None, Some(50), true, true),
        (Some(5.0), Some(20), false, false),
        (None, None, false, true),
    ] {
        let layout = KvLayout {
            n_kv_heads: 2,
            head_dim_k: 64,
            head_dim_v: 48,
            k_type: CacheType::F32,
            v_type: CacheType::F32,
        };
        let mut case = Case::new(layout, 3, 170, 7);
        (case.softcap, case.window, case.causal) = (softcap, window, causal);
        case.sinks = sinks.then(|| numbers(6, &mut 3));
        let ours = case.run(Isa::detect(), 2, 170, &in_order(170));
        for (i, (&a, b)) in ours.iter().zip(case.naive()).enumerate() {
            assert!((f64::from(a) - b).abs() < 2e-6, "output {i}: {a} {b}");
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_level_threads_chunks_or_pages() {
    for ty in TYPES {
        let layout = KvLayout { n_kv_heads: 2, head_dim_k: 64, head_dim_v: 64, k_type: ty, v_type: ty };
        let mut case = Case::new(layout, 4, 150, 11);
        case.window = Some(100);
        let n_pages = case.n.div_ceil(PAGE_TOKENS) as u32;
        let scattered: Vec<u32> = (0..n_pages).map(|i| (i * 7 + 3) % 23).collect();
        let whole = case.run(Isa::detect(), 1, case.n, &in_order(case.n));
        for isa in Isa::available() {
            same_bits(&case.run(isa, 1, 7, &scattered), &whole, "chunks of 7 in scattered pages");
        }
        for n_threads in [1, 2, 5] {
            same_bits(&case.run(Isa::detect(), n_threads, 1, &in_order(case.n)), &whole, "token by token");
            same_bits(&case.run(Isa::detect(), n_threads, 64, &scattered), &whole, "chunks of 64");
        }
    }
}

#[test]
fn long_contexts_have_the_same_bits_whether_or_not_their_partitions_run_apart() {
    for (ty, group, window, sinks) in [
        (CacheType::F16, 3, None, false),
        (CacheType::F16, 1, Some(1030), true),
        (CacheType::Q8_0, 2, None, true),
    ] {
        let layout = KvLayout { n_kv_heads: 1, head_dim_k: 16, head_dim_v: 20, k_type: ty, v_type: ty };
        let mut case = Case::new(layout, group, 2060, 13);
        case.window = window;
        case.sinks = sinks.then(|| numbers(group, &mut 3));
        let expected = case.expected();
        for isa in Isa::available() {
            // The last step has one row or a few: fewer units than threads, so that each partition is a task.
            for (n_threads, chunk) in [(1, 2060), (2, 2059), (5, 2055)] {
                let what = format!("{ty} on {isa} with {n_threads} threads in chunks of {chunk}");
                same_bits(&case.run(isa, n_threads, chunk, &in_order(case.n)), &expected, &what);
            }
        }
    }
}

#[test]
fn a_batch_of_sequences_gives_each_its_own_bits_and_touches_no_other_row() {
    let layout = KvLayout {
        n_kv_heads: 2,
        head_dim_k: 32,
        head_dim_v: 32,
        k_type: CacheType::F16,
        v_type: CacheType::F16,
    };
    let cases: Vec<Case> =
        [40, 1, 90].into_iter().zip(1..).map(|(n, seed)| Case::new(layout, 2, n, seed)).collect();
    let kernels = Kernels::new(Isa::detect()).unwrap();
    let team = Team::new(2);
    let tables: Vec<Vec<u32>> = vec![vec![9, 2, 4], vec![0], vec![1, 3, 5, 6, 7, 8]];
    let mut arena = vec![0xFF; 10 * layout.page_bytes()];
    // Row 0 belongs to no sequence.
    let mut seqs = Vec::new();
    let (mut q, mut k, mut v) = (vec![0.0; 4 * 32], vec![0.0; 2 * 32], vec![0.0; 2 * 32]);
    let mut first_row = 1;
    for (case, block_table) in cases.iter().zip(&tables) {
        seqs.push(AttentionSequence { block_table, first_row, n_rows: case.n, first_position: 0 });
        first_row += case.n;
        q.extend(&case.q);
        k.extend(&case.k);
        v.extend(&case.v);
    }
    kv_store(&kernels, &team, &layout, &mut arena, &seqs, &k, &v);
    let mut out = vec![7.5; q.len()];
    attention(&kernels, &team, &cases[0].config(), &layout, &arena, &seqs, &q, &mut out);
    assert!(out[..4 * 32].iter().all(|&x| x == 7.5));
    for (case, seq) in cases.iter().zip(&seqs) {
        let ours = &out[seq.first_row * 4 * 32..][..case.n * 4 * 32];
        same_bits(ours, &case.run(Isa::Portable, 1, case.n, &in_order(case.n)), "a sequence of a batch");
    }
}

#[test]
fn a_key_that_is_not_finite_is_not_hidden_by_a_quantised_cache() {
    for ty in TYPES {
        let layout = KvLayout { n_kv_heads: 1, head_dim_k: 32, head_dim_v: 32, k_type: ty, v_type: ty };
        let mut case = Case::new(layout, 1, 3, 5);
        case.k[40] = f32::NAN;
        let out = case.run(Isa::detect(), 1, 3, &in_order(3));
        assert!(out[..32].iter().all(|x| x.is_finite()), "{ty:?}: the first row does not see it");
        assert!(out[32..].iter().all(|x| x.is_nan()), "{ty:?}");
    }
}

#[test]
#[should_panic(expected = "ascend and do not overlap")]
fn sequences_that_share_rows_are_refused() {
    let layout = KvLayout {
        n_kv_heads: 1,
        head_dim_k: 16,
        head_dim_v: 16,
        k_type: CacheType::F32,
        v_type: CacheType::F32,
    };
    let case = Case::new(layout, 1, 2, 5);
    let seq = AttentionSequence { block_table: &[0], first_row: 0, n_rows: 2, first_position: 0 };
    let arena = vec![0; layout.page_bytes()];
    let kernels = Kernels::new(Isa::Portable).unwrap();
    attention(&kernels, &Team::new(1), &case.config(), &layout, &arena, &[seq, seq], &case.q, &mut [0.0; 32]);
}
