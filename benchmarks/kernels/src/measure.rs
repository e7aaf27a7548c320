//! One cell after the other: limit, products, limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use veritas_kernels::{ActivationFormat, Activations, Isa, Kernels, Matrix, Team, limits, matmul};
use veritas_quant::GgmlType;

use crate::weights::{Random, Ring};
use crate::{Args, Shape};

/// What a cell of the table holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    #[serde(rename = "type")]
    pub(crate) ty: &'static str,
    pub(crate) isa: &'static str,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) columns: usize,
    pub(crate) threads: usize,
    /// 10⁹ bytes of weights a second.
    pub(crate) weight_gbs: f64,
    /// 10⁹ bytes a second of a pass that only reads, around the products.
    pub(crate) read_gbs: f64,
    /// 10⁹ multiplications and additions a second.
    pub(crate) gops: f64,
    /// The same of the level's 8-bit dot instruction.
    pub(crate) peak_gops: f64,
    /// The median over the rounds of `weight_gbs / read_gbs` within the round, in per cent.
    pub(crate) read_percent: f64,
    /// `gops / peak_gops`, in per cent.
    pub(crate) peak_percent: f64,
}

/// Measures every cell that the arguments ask for.
pub(crate) fn measure(args: &Args, report: &mut dyn FnMut(&Cell) -> Result<()>) -> Result<()> {
    let kernels = Kernels::new(args.isa.unwrap_or_else(Isa::detect))?;
    ensure!(args.rounds > 0 && !args.columns.contains(&0), "at least one round and one column");
    for &ty in &args.types {
        let ring = Ring::new(ty, args.mib << 20)?;
        for &threads in &args.threads {
            let bench = Bench { args, kernels, team: Team::new(threads), ty, ring: &ring };
            for &shape in &args.shapes {
                let format = ActivationFormat::for_weights(ty).context("a type without products")?;
                if shape.cols % format.block_len() == 0 {
                    bench.shape(shape, report)?;
                }
            }
        }
    }
    Ok(())
}

struct Bench<'a> {
    args: &'a Args,
    kernels: Kernels,
    team: Team,
    ty: GgmlType,
    ring: &'a Ring,
}

impl Bench<'_> {
    fn shape(&self, shape: Shape, report: &mut dyn FnMut(&Cell) -> Result<()>) -> Result<()> {
        let matrices = self.ring.matrices(shape)?;
        let mut next = 0;
        let mut peak_before = limits::arithmetic_peak(&self.kernels, &self.team);
        for &columns in &self.args.columns {
            let mut rounds = Vec::new();
            for _ in 0..self.args.rounds {
                rounds.push(self.round(shape, columns, &matrices, &mut next)?);
            }
            let peak_after = limits::arithmetic_peak(&self.kernels, &self.team);
            let peak = f64::midpoint(peak_before, peak_after);
            peak_before = peak_after;
            let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
            let gops = of(|round| round.ops);
            report(&Cell {
                ty: self.ty.name(),
                isa: self.kernels.isa().name(),
                rows: shape.rows,
                cols: shape.cols,
                columns,
                threads: self.team.n_threads(),
                weight_gbs: of(|round| round.weight_bytes) / 1e9,
                read_gbs: of(|round| round.read_bytes) / 1e9,
                gops: gops / 1e9,
                peak_gops: peak / 1e9,
                read_percent: of(|round| 100.0 * round.weight_bytes / round.read_bytes),
                peak_percent: 100.0 * gops / peak,
            })?;
        }
        Ok(())
    }

    /// A pass that reads, products for a while, a pass that reads.
    fn round(&self, shape: Shape, columns: usize, matrices: &[&[u8]], next: &mut usize) -> Result<Round> {
        let mut random = Random(7);
        let x = (0..columns * shape.cols).map(|_| random.normal()).collect::<Vec<_>>();
        let mut out = vec![0.0; columns * shape.rows];
        let mut acts = Activations::new();
        let format = ActivationFormat::for_weights(self.ty).context("a type without products")?;
        let before = limits::read_rate(&self.kernels, &self.team, self.ring.bytes());
        let least = Duration::from_secs_f64(self.args.seconds);
        let (start, mut n) = (Instant::now(), 0);
        let seconds = loop {
            let w = Matrix { ty: self.ty, data: matrices[*next], rows: shape.rows, cols: shape.cols };
            acts.prepare(&self.kernels, &self.team, format, &x, columns, shape.cols);
            matmul(&self.kernels, &self.team, &w, &acts, &mut out)?;
            *next = (*next + 1) % matrices.len();
            n += 1;
            let elapsed = start.elapsed();
            if elapsed >= least {
                break elapsed.as_secs_f64();
            }
        };
        let after = limits::read_rate(&self.kernels, &self.team, self.ring.bytes());
        ensure!(out.iter().all(|x| x.is_finite()), "a product that is no number");
        let n_bytes = (n * matrices[0].len()) as f64;
        let n_ops = 2.0 * (n * shape.rows * shape.cols * columns) as f64;
        Ok(Round {
            weight_bytes: n_bytes / seconds,
            ops: n_ops / seconds,
            read_bytes: f64::midpoint(before, after),
        })
    }
}

/// Rates per second.
struct Round {
    weight_bytes: f64,
    ops: f64,
    read_bytes: f64,
}

/// The middle value, or the greater of the two in the middle. There is at least one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
