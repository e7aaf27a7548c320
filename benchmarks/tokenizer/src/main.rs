//! Measures how fast texts become ids, on one thread.
//!
//! A text is cut at line breaks into documents of about the same size, as a daemon gets them: one call of `encode` for
//! each. A round encodes all documents once; the first round is reported apart, since the caches of words fill in it.
//!
//! On Linux the time is that of the processor for this thread, so that other programs disturb the figures little;
//! elsewhere it is the time on the wall.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;
use veritas_tokenizer::{EncodeOptions, Tokenizer};

/// Measures how fast texts become ids, on one thread.
#[derive(Parser)]
struct Options {
    /// Vocabularies: GGUF files, with or without a model.
    #[arg(long, required = true, num_args = 1..)]
    model: Vec<PathBuf>,
    /// Texts in UTF-8.
    #[arg(long, required = true, num_args = 1..)]
    text: Vec<PathBuf>,
    /// Bytes of a document, about.
    #[arg(long, default_value_t = 16384)]
    document_bytes: usize,
    /// Rounds after the first.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Recognise control tokens in the texts.
    #[arg(long)]
    parse_special: bool,
    /// Writes for each document its bytes, its number of ids, and the ids, as 32-bit little-endian numbers; for one
    /// vocabulary and one text.
    #[arg(long)]
    ids: Option<PathBuf>,
    /// A line of JSON for each vocabulary and text instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.ids.is_some() && (options.model.len(), options.text.len()) != (1, 1) {
        bail!("--ids needs one vocabulary and one text");
    }
    if options.rounds == 0 || options.document_bytes == 0 {
        bail!("--rounds and --document-bytes must be at least 1");
    }
    let clock = Instant::now();
    let mut out = std::io::stdout().lock();
    if !options.json {
        writeln!(
            out,
            "{:<16} {:<10} {:>9} {:>9} {:>11} {:>10} {:>8}",
            "vocabulary", "text", "bytes", "ids", "first MB/s", "best MB/s", "median"
        )?;
    }
    for model in &options.model {
        let bytes = fs::read(model).with_context(|| model.display().to_string())?;
        let metadata = veritas_gguf::parse(&bytes)?.metadata;
        let started = Instant::now();
        let tokenizer =
            Tokenizer::from_gguf(&metadata).with_context(|| format!("vocabulary {}", model.display()))?;
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        for path in &options.text {
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let documents = documents(&text, options.document_bytes);
            let encode = EncodeOptions { add_special: false, parse_special: options.parse_special };
            let mut rates = Vec::new();
            let mut n_ids = 0;
            for _ in 0..=options.rounds {
                let started = seconds(clock);
                n_ids = 0;
                for document in &documents {
                    n_ids += tokenizer.encode(document, encode)?.len();
                }
                rates.push(text.len() as f64 / 1e6 / (seconds(clock) - started));
            }
            let first = rates.remove(0);
            rates.sort_by(f64::total_cmp);
            let (best, median) = (rates[rates.len() - 1], rates[rates.len() / 2]);
            let (model, name) = (stem(model), stem(path));
            if options.json {
                let line = json!({
                    "vocabulary": model, "text": name, "bytes": text.len(), "documents": documents.len(),
                    "ids": n_ids, "load_ms": load_ms, "first_mb_s": first, "best_mb_s": best,
                    "median_mb_s": median, "rounds": options.rounds,
                });
                writeln!(out, "{line}")?;
            } else {
                let n_bytes = text.len();
                writeln!(
                    out,
                    "{model:<16} {name:<10} {n_bytes:>9} {n_ids:>9} {first:>11.1} {best:>10.1} {median:>8.1}"
                )?;
            }
            if let Some(file) = &options.ids {
                fs::write(file, ids(&tokenizer, &documents, encode)?)?;
            }
        }
    }
    Ok(())
}

/// Seconds that the processor worked for this thread, or where the system does not say it, since `clock` began.
fn seconds(clock: Instant) -> f64 {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = schedstat.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    ns.map_or_else(|| clock.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// The ids of all documents.
fn ids(tokenizer: &Tokenizer, documents: &[&str], options: EncodeOptions) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for document in documents {
        let ids = tokenizer.encode(document, options)?;
        for number in [document.len() as u32, ids.len() as u32].iter().chain(&ids) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    Ok(bytes)
}

/// A text cut after line breaks into documents of at least `n_bytes`, but for the last.
fn documents(text: &str, n_bytes: usize) -> Vec<&str> {
    let (mut documents, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let least = rest.as_bytes().get(n_bytes - 1..).unwrap_or_default();
        let end = least.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| n_bytes + at);
        let (document, after) = rest.split_at(end);
        documents.push(document);
        rest = after;
    }
    documents
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
