//! The kernels that can run, and their operands.

use std::hint::black_box;

use anyhow::{Context, Result};
use serde::Deserialize;
use veritas_kernels::{
    Activation, ActivationFormat, Activations, AttentionConfig, AttentionSequence, CacheType, Kernels,
    KvLayout, Matrix, PAGE_TOKENS, RopeStyle, Team, attention, kv_store, matmul,
};
use veritas_quant::{GgmlType, quantize_row};

/// Weight rows that are quantised; a matrix repeats them.
const SAMPLE_ROWS: usize = 4;

/// What the file of cases says. Lists hold what differs between cases of a kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cases {
    pub(crate) levels: Vec<String>,
    matmul: Products,
    activations: Conversions,
    attention: Attentions,
    kv_store: Stores,
    row: Rows,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Products {
    types: Vec<String>,
    rows: usize,
    weights: usize,
    columns: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conversions {
    types: Vec<String>,
    width: usize,
    rows: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attentions {
    caches: Vec<String>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    positions: usize,
    rows: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stores {
    caches: Vec<String>,
    kv_heads: usize,
    head_dim: usize,
    rows: Vec<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    operations: Vec<Operation>,
    width: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    RmsNorm,
    Softmax,
    Rope,
    SiluMul,
}

/// What runs a kernel.
pub(crate) struct Machine {
    pub(crate) kernels: Kernels,
    pub(crate) team: Team,
}

/// One kernel with the sizes of its operands.
pub(crate) enum Case {
    Matmul {
        ty: GgmlType,
        rows: usize,
        weights: usize,
        columns: usize,
    },
    Activations {
        ty: GgmlType,
        rows: usize,
        width: usize,
    },
    Attention {
        cache: CacheType,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        positions: usize,
        rows: usize,
    },
    KvStore {
        cache: CacheType,
        kv_heads: usize,
        head_dim: usize,
        rows: usize,
    },
    Row {
        operation: Operation,
        width: usize,
    },
}

/// Runs a kernel on operands that are there.
type Call<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

impl Cases {
    /// All cases, in the order of the file.
    pub(crate) fn all(&self) -> Result<Vec<Case>> {
        let mut all = Vec::new();
        let Products { types, rows, weights, columns } = &self.matmul;
        for (ty, &columns) in pairs(types, columns) {
            all.push(Case::Matmul { ty: weight_type(ty)?, rows: *rows, weights: *weights, columns });
        }
        let Conversions { types, width, rows } = &self.activations;
        for (ty, &rows) in pairs(types, rows) {
            all.push(Case::Activations { ty: weight_type(ty)?, rows, width: *width });
        }
        let &Attentions { ref caches, heads, kv_heads, head_dim, positions, ref rows } = &self.attention;
        for (cache, &rows) in pairs(caches, rows) {
            let cache = cache_type(cache)?;
            all.push(Case::Attention { cache, heads, kv_heads, head_dim, positions, rows });
        }
        let &Stores { ref caches, kv_heads, head_dim, ref rows } = &self.kv_store;
        for (cache, &rows) in pairs(caches, rows) {
            all.push(Case::KvStore { cache: cache_type(cache)?, kv_heads, head_dim, rows });
        }
        let Rows { operations, width } = &self.row;
        all.extend(operations.iter().map(|&operation| Case::Row { operation, width: *width }));
        Ok(all)
    }
}

fn pairs<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

fn weight_type(name: &str) -> Result<GgmlType> {
    GgmlType::from_name(name).with_context(|| format!("no weight type is called {name}"))
}

fn cache_type(name: &str) -> Result<CacheType> {
    CacheType::from_name(name).with_context(|| format!("no type of the cache is called {name}"))
}

impl Case {
    /// The name that the counts are recorded under.
    pub(crate) fn name(&self) -> String {
        match *self {
            Self::Matmul { ty, rows, weights, columns } => format!("matmul {ty} {rows}x{weights} *{columns}"),
            Self::Activations { ty, rows, width } => format!("activations {ty} {rows}x{width}"),
            Self::Attention { cache, heads, kv_heads, head_dim, positions, rows } => {
                format!("attention {cache} {heads}/{kv_heads}x{head_dim} {rows} of {positions}")
            }
            Self::KvStore { cache, kv_heads, head_dim, rows } => {
                format!("kv_store {cache} {kv_heads}x{head_dim} {rows}")
            }
            Self::Row { operation, width } => {
                let name = match operation {
                    Operation::RmsNorm => "rms_norm",
                    Operation::Softmax => "softmax",
                    Operation::Rope => "rope",
                    Operation::SiluMul => "silu_mul",
                };
                format!("{name} {width}")
            }
        }
    }

    /// Makes the operands. Each call of what comes back runs the kernel on them once.
    pub(crate) fn call<'a>(&self, machine: &'a Machine) -> Result<Call<'a>> {
        match *self {
            Self::Matmul { ty, rows, weights, columns } => product(machine, ty, rows, weights, columns),
            Self::Activations { ty, rows, width } => conversion(machine, ty, rows, width),
            Self::Attention { cache, heads, kv_heads, head_dim, positions, rows } => {
                let layout = layout(cache, kv_heads, head_dim);
                Ok(attended(machine, layout, heads, positions, rows))
            }
            Self::KvStore { cache, kv_heads, head_dim, rows } => {
                Ok(stored(machine, layout(cache, kv_heads, head_dim), rows))
            }
            Self::Row { operation, width } => Ok(row(machine, operation, width)),
        }
    }
}

fn format_of(ty: GgmlType) -> Result<ActivationFormat> {
    ActivationFormat::for_weights(ty).with_context(|| format!("there is no product for {ty}"))
}

fn product(machine: &Machine, ty: GgmlType, rows: usize, weights: usize, columns: usize) -> Result<Call<'_>> {
    let Machine { kernels, team } = machine;
    let row_bytes = ty.row_bytes(weights);
    let row_bytes = row_bytes.with_context(|| format!("{weights} weights are no whole blocks of {ty}"))?;
    let mut samples = vec![0; SAMPLE_ROWS * row_bytes];
    for (seed, bytes) in samples.chunks_exact_mut(row_bytes).enumerate() {
        quantize_row(ty, &numbers(weights, seed as u64), None, bytes)?;
    }
    let data = samples.into_iter().cycle().take(rows * row_bytes).collect::<Vec<_>>();
    let mut activations = Activations::new();
    let x = numbers(columns * weights, SAMPLE_ROWS as u64);
    activations.prepare(kernels, team, format_of(ty)?, &x, columns, weights);
    let mut out = vec![0.0; columns * rows];
    Ok(Box::new(move || {
        let w = Matrix { ty, data: black_box(&data), rows, cols: weights };
        matmul(kernels, team, &w, &activations, &mut out)?;
        black_box(&out);
        Ok(())
    }))
}

fn conversion(machine: &Machine, ty: GgmlType, rows: usize, width: usize) -> Result<Call<'_>> {
    let format = format_of(ty)?;
    let x = numbers(rows * width, 0);
    let mut activations = Activations::new();
    Ok(Box::new(move || {
        activations.prepare(&machine.kernels, &machine.team, format, black_box(&x), rows, width);
        black_box(&activations);
        Ok(())
    }))
}

fn layout(cache: CacheType, n_kv_heads: usize, head_dim: usize) -> KvLayout {
    KvLayout { n_kv_heads, head_dim_k: head_dim, head_dim_v: head_dim, k_type: cache, v_type: cache }
}

/// `rows` positions of a sequence in the first pages of the arena.
fn sequence(block_table: &[u32], first_position: usize, rows: usize) -> AttentionSequence<'_> {
    AttentionSequence { block_table, first_row: 0, n_rows: rows, first_position }
}

/// The pages of so many positions, and the block table of a sequence that lies in them in order.
fn pages(layout: &KvLayout, positions: usize) -> (Vec<u8>, Vec<u32>) {
    let n_pages = positions.div_ceil(PAGE_TOKENS);
    (vec![0; n_pages * layout.page_bytes()], (0..n_pages as u32).collect())
}

fn attended(machine: &Machine, layout: KvLayout, n_heads: usize, positions: usize, rows: usize) -> Call<'_> {
    let Machine { kernels, team } = machine;
    let (mut pages, block_table) = pages(&layout, positions);
    let width = layout.n_kv_heads * layout.head_dim_k;
    let (keys, values) = (numbers(positions * width, 1), numbers(positions * width, 2));
    let whole = [sequence(&block_table, 0, positions)];
    kv_store(kernels, team, &layout, &mut pages, &whole, &keys, &values);
    let q = numbers(rows * n_heads * layout.head_dim_k, 3);
    let mut out = vec![0.0; q.len()];
    Box::new(move || {
        let config = AttentionConfig {
            n_heads,
            scale: 1.0 / (layout.head_dim_k as f32).sqrt(),
            softcap: None,
            window: None,
            causal: true,
            sinks: None,
        };
        let last = [sequence(&block_table, positions - rows, rows)];
        attention(kernels, team, &config, &layout, &pages, &last, black_box(&q), &mut out);
        black_box(&out);
        Ok(())
    })
}

fn stored(machine: &Machine, layout: KvLayout, rows: usize) -> Call<'_> {
    let (mut pages, block_table) = pages(&layout, rows);
    let width = layout.n_kv_heads * layout.head_dim_k;
    let (keys, values) = (numbers(rows * width, 1), numbers(rows * width, 2));
    Box::new(move || {
        let all = [sequence(&block_table, 0, rows)];
        let Machine { kernels, team } = machine;
        kv_store(kernels, team, &layout, &mut pages, &all, black_box(&keys), &values);
        black_box(&pages);
        Ok(())
    })
}

fn row(machine: &Machine, operation: Operation, width: usize) -> Call<'_> {
    let kernels = &machine.kernels;
    let (mut x, y, z) = (numbers(width, 1), numbers(width, 2), numbers(width / 2, 3));
    let mut out = vec![0.0; width];
    Box::new(move || {
        match operation {
            Operation::RmsNorm => kernels.rms_norm(black_box(&x), &y, 1e-5, &mut out),
            Operation::Softmax => kernels.softmax(&mut x),
            Operation::Rope => kernels.rope(RopeStyle::Neox, &mut x, black_box(&z), &y[..z.len()]),
            Operation::SiluMul => kernels.activate_mul(Activation::Silu, black_box(&x), &y, &mut out),
        }
        black_box((&x, &out));
        Ok(())
    })
}

/// Numbers between −1 and 1 that are the same in every run.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        // Knuth's linear congruential generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(next).collect()
}
