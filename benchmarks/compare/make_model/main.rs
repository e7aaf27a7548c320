//! Writes a model of a published shape with random weights, for measurements of speed, load and memory.
//!
//! An engine computes as fast with these weights as with trained ones, since no step depends on their values; what it
//! says is noise. The same seed gives the same file on every machine. Weights are F16: `veritas-sdr quantize` makes the
//! other types of it.
#![forbid(unsafe_code)]

mod random;
mod shape;
mod tensors;
mod vocabulary;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use veritas_gguf::{Metadata, Writer};

use shape::Shape;

/// Write a model with random weights
#[derive(Debug, Parser)]
struct Args {
    /// A shape of shapes.toml
    shape: String,
    /// The file to write, in F16
    output: PathBuf,
    /// What the weights and the vocabulary are drawn with
    #[arg(long, default_value_t = 1)]
    seed: u64,
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

fn run(args: &Args) -> Result<()> {
    let shape = Shape::find(&args.shape)?;
    // A file that is there is whole: it gets its name when the last byte is written.
    let part = args.output.with_extension("part");
    write(&shape, args.seed, &part).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, &args.output).with_context(|| format!("cannot write {}", args.output.display()))
}

fn write(shape: &Shape, seed: u64, path: &Path) -> Result<()> {
    let tensors = tensors::of(shape);
    let mut writer = Writer::new(metadata(shape, seed)?)?;
    for tensor in &tensors {
        writer.tensor(&tensor.name, tensor.ty, &tensor.dims)?;
    }
    let mut out = writer.start(BufWriter::with_capacity(1 << 20, File::create(path)?))?;
    for tensor in &tensors {
        tensor.write(seed, &mut out)?;
    }
    out.finish()?;
    Ok(())
}

fn metadata(shape: &Shape, seed: u64) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", shape.architecture.as_str())?;
    metadata.insert("general.name", format!("{} with random weights, seed {seed}", shape.name))?;
    // F16 in most matrices, and the second version of the block formats, by the format's numbers.
    metadata.insert("general.file_type", 1u32)?;
    metadata.insert("general.quantization_version", 2u32)?;
    let numbers = [
        ("context_length", shape.n_context),
        ("embedding_length", shape.n_embedding),
        ("block_count", shape.n_layers),
        ("feed_forward_length", shape.n_feed_forward),
        ("attention.head_count", shape.n_heads),
        ("attention.head_count_kv", shape.n_kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.head_dim),
        ("vocab_size", shape.n_vocab),
    ];
    for (key, number) in numbers {
        metadata.insert(format!("{}.{key}", shape.architecture), number)?;
    }
    metadata.insert(format!("{}.rope.freq_base", shape.architecture), shape.rope_base)?;
    metadata.insert(format!("{}.attention.layer_norm_rms_epsilon", shape.architecture), shape.rms_epsilon)?;
    vocabulary::of(shape, seed)?.put(&mut metadata)?;
    Ok(metadata)
}
