//! What a confined worker can be asked to do with a model, one file per job.
//!
//! A job gets open files and thread teams, writes its output through [`Context::out`], and returns a result in JSON.
//! The command line prints what comes.

mod bench;
mod inspect;
mod logits;
mod perplexity;
mod probe;
mod quantize;
mod template;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use veritas_engine::ModelFiles;
use veritas_kernels::Team;
use veritas_proto::{Kind, encode_body};

pub use bench::{Arithmetic, BenchJob, BenchRow, BenchTest};
pub use inspect::InspectJob;
pub use logits::{LogitsJob, WrittenTensor};
pub use perplexity::{PerplexityJob, PerplexityResult};
pub(crate) use probe::probe;
pub use quantize::{ImportanceFile, QuantizeJob, QuantizeResult, QuantizedKind};
pub use template::TemplateJob;

use crate::failure::Failure;
use crate::link::{OUTPUT_BYTES, Progress};
use crate::spec::{EngineSpec, ModelSpec};
use crate::worker::Output;

/// Time between two reports of progress: more often, nobody sees it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Answer requests until the supervisor closes the connection.
    Serve(ServeJob),
    /// Try to break out of the sandbox.
    Probe,
    /// Show what a file holds.
    Inspect(InspectJob),
    /// Convert a file to another weight type.
    Quantize(QuantizeJob),
    /// Compute logits.
    Logits(LogitsJob),
    /// Score a text.
    Perplexity(PerplexityJob),
    /// Measure speeds.
    Bench(BenchJob),
    /// Render a chat template.
    Template(TemplateJob),
}

/// Answer requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeJob {
    /// How the model is run; `None` to serve its vocabulary and its template alone.
    pub engine: Option<EngineSpec>,
}

impl Job {
    /// Sizes of the thread teams that the job needs.
    pub fn teams(&self) -> Vec<usize> {
        match self {
            Self::Serve(job) => job.engine.iter().map(EngineSpec::n_threads).collect(),
            Self::Quantize(job) => vec![job.threads],
            Self::Logits(job) => vec![job.engine.n_threads()],
            Self::Perplexity(job) => vec![job.engine.n_threads()],
            Self::Bench(job) => {
                let mut sizes = job.threads.clone();
                sizes.sort_unstable();
                sizes.dedup();
                sizes
            }
            Self::Probe | Self::Inspect(_) | Self::Template(_) => Vec::new(),
        }
    }
}

/// What a job works with.
pub(crate) struct Context<'a> {
    pub(crate) model: &'a ModelSpec,
    /// The files of the model.
    pub(crate) files: &'a [File],
    /// Other files that were handed over, in the order that the job documents.
    pub(crate) others: Vec<File>,
    pub(crate) teams: &'a [Arc<Team>],
    pub(crate) built_in: &'static [u8],
    pub(crate) output: &'a Output,
}

impl Context<'_> {
    /// Parses the model's files.
    pub(crate) fn open(&self) -> Result<ModelFiles, Failure> {
        self.model.open(self.files, self.built_in)
    }

    /// The job's output: what the command writes to stdout, or to a file.
    pub(crate) fn out(&self) -> impl Write {
        std::io::BufWriter::with_capacity(OUTPUT_BYTES, Pieces { output: self.output })
    }

    /// Reports how far the job is, now and then.
    pub(crate) fn progress(&self) -> Reporter<'_> {
        Reporter { output: self.output, last: None }
    }
}

/// Runs any job but [`Job::Serve`] and [`Job::Probe`], which have their own ways.
pub(crate) fn run(job: &Job, context: &mut Context<'_>) -> Result<Value, Failure> {
    match job {
        Job::Serve(_) | Job::Probe => Err(Failure::internal("this job is run by the worker itself")),
        Job::Inspect(job) => inspect::run(job, context).map(|()| Value::Null),
        Job::Template(job) => template::run(job, context).map(|()| Value::Null),
        Job::Quantize(job) => as_json(&quantize::run(job, context)?),
        Job::Logits(job) => as_json(&logits::run(job, context)?),
        Job::Perplexity(job) => as_json(&perplexity::run(job, context)?),
        Job::Bench(job) => as_json(&bench::run(job, context)?),
    }
}

fn as_json(result: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(result).map_err(|error| Failure::internal(error.to_string()))
}

/// The team of `n_threads` threads that was started for a job.
pub(crate) fn team_of(teams: &[Arc<Team>], n_threads: usize) -> Result<Arc<Team>, Failure> {
    let team = teams.iter().find(|team| team.n_threads() == n_threads.max(1));
    team.map(Arc::clone)
        .ok_or_else(|| Failure::internal(format!("no team of {n_threads} threads was started")))
}

/// Sends what is written in pieces.
struct Pieces<'a> {
    output: &'a Output,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let piece = &bytes[..bytes.len().min(OUTPUT_BYTES)];
        let mut frame = Vec::new();
        encode_body(&mut frame, Kind::WORKER_BYTES, 0, piece);
        self.output.send(&frame).map_err(std::io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Sends reports of progress, not more often than anyone can see.
pub(crate) struct Reporter<'a> {
    output: &'a Output,
    last: Option<Instant>,
}

impl Reporter<'_> {
    pub(crate) fn report(&mut self, done: u64, total: u64, message: impl FnOnce() -> String) {
        let is_due = self.last.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL);
        if is_due || done >= total {
            self.last = Some(Instant::now());
            self.report_now(done, total, message());
        }
    }

    /// Reports however short it is since the last report.
    pub(crate) fn report_now(&self, done: u64, total: u64, message: String) {
        // A supervisor that is gone needs no report.
        let _ = self.output.json(Kind::WORKER_PROGRESS, 0, &Progress { done, total, message });
    }
}
