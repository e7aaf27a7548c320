//! Measures the matrix products, as shares of what the machine can do at most.
//!
//! Two limits bound a product: with few columns (activation rows) the rate at which memory gives the weights, with many
//! the rate of the 8-bit dot instruction. Both are measured in the same process as the products, with the same threads,
//! before and after each cell of the table, so that a machine that changes its speed changes both.
//!
//! The weights are more than any cache holds, and each product reads the next matrix of a ring: nothing is warm.
#![forbid(unsafe_code)]

mod measure;
mod report;
mod weights;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use veritas_kernels::Isa;
use veritas_quant::GgmlType;

/// Shares of the machine's limits that the matrix products reach.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Weight types, by the names of the files.
    #[arg(long, value_delimiter = ',', value_parser = weight_type, default_value = "Q8_0,Q4_0,Q5_0,Q4_K,Q5_K,Q6_K")]
    types: Vec<GgmlType>,
    /// Matrices: rows (outputs) x weights in a row.
    #[arg(long, value_delimiter = ',', value_parser = shape, default_value = "4864x896,896x4864,8192x2048,2048x8192,4096x4096")]
    shapes: Vec<Shape>,
    /// Activation rows of a product.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,64,512")]
    columns: Vec<usize>,
    /// Threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Mebibytes of weights that are walked before one is read again.
    #[arg(long, default_value_t = 640)]
    mib: usize,
    /// Seconds that a cell computes in a round, at least.
    #[arg(long, default_value_t = 0.1)]
    seconds: f64,
    /// Rounds of a cell; the figures are the medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The instruction set; the best one unless told.
    #[arg(long)]
    isa: Option<Isa>,
    /// One line of JSON per cell, instead of the table.
    #[arg(long)]
    json: bool,
}

/// Rows and weights in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

fn weight_type(name: &str) -> Result<GgmlType> {
    GgmlType::from_name(name).with_context(|| format!("no weight type is called {name}"))
}

fn shape(text: &str) -> Result<Shape> {
    let (rows, cols) = text.split_once('x').with_context(|| format!("{text}: expected ROWSxCOLS"))?;
    let shape = Shape { rows: rows.parse()?, cols: cols.parse()? };
    if shape.rows == 0 || shape.cols == 0 {
        bail!("{text}: a matrix without elements");
    }
    Ok(shape)
}

fn run(args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut report = report::Report::new(args.json);
    measure::measure(args, &mut |cell| {
        out.write_all(report.line(cell)?.as_bytes())?;
        Ok(out.flush()?)
    })
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed as well, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
