//! What supervisor and worker say to each other besides the messages of the wire: bodies in JSON, since both ends are
//! the same binary.
//!
//! ```text
//! supervisor                              worker
//!   WORKER_START  Start          ─────▶   confines itself
//!                                ◀─────   WORKER_STARTED  Started
//!   WORKER_ORDER    Order          ─────▶   reads the model for the first time
//!                                ◀─────   WORKER_PROGRESS Progress, WORKER_BYTES …
//!                                ◀─────   WORKER_DONE (the result of the job) | ERROR
//!   after Job::Serve: WORKER_CLIENT and GENERATE, CANCEL, TOKENIZE, DETOKENIZE, WORKER_PAUSE, WORKER_RESUME, WORKER_PING
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use veritas_engine::Occupancy;
use veritas_proto::{Frame, Kind, encode_body};
use veritas_sandbox::{Policy, Report, SpawnFacts};

use crate::failure::Failure;
use crate::jobs::Job;
use crate::spec::ModelSpec;

/// The first argument of the binary that makes it a worker. Nobody types it.
pub const WORKER_ARGUMENT: &str = "__worker";

/// Bytes of a body that either end of the link accepts: the largest request that can be configured, and any report.
pub const BODY_BYTES_MAX: u32 = 256 << 20;

/// Bytes of a job's output that one frame carries.
pub const OUTPUT_BYTES: usize = 256 << 10;

/// The first frame to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// What confines it.
    pub policy: Policy,
    /// Its own bounds.
    pub limits: veritas_sandbox::Limits,
    /// What the supervisor did before the worker ran.
    pub facts: SpawnFacts,
    /// Thread teams to start, by their sizes: a confined process can start none.
    pub teams: Vec<usize>,
    /// Whether the threads that compute give way to those that wait for clients: where it serves.
    pub gives_way: bool,
    /// The supervisor's process, if the worker may be asked to try to break out.
    pub probes_of: Option<u32>,
}

/// The answer: the worker is confined.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// What it observed.
    pub report: Report,
}

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The model whose files were handed over, ahead of any other file.
    pub model: ModelSpec,
    /// How many of the files are the model's.
    pub n_model_files: usize,
    /// What to do with it.
    pub job: Job,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units that are done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// What is being done.
    pub message: String,
}

/// What is known of a model that a worker has loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// `general.architecture`.
    pub architecture: String,
    /// Tokens that prompt and answer may have together; 0 where only the vocabulary was read.
    pub n_context: usize,
    /// Parameters of the tensors.
    pub n_params: u64,
    /// Size of the vocabulary.
    pub n_vocab: usize,
    /// Whether the file has a chat template.
    pub has_chat_template: bool,
    /// The instruction set of the kernels.
    pub isa: String,
    /// Threads that compute.
    pub threads: usize,
    /// From the order to here.
    pub load_ms: f64,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Steps that the engine has computed.
    pub steps: u64,
    /// How long the present step has been running; 0 between steps.
    pub step_ms: u64,
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait for pages.
    pub waiting: usize,
    /// Pages of the KV cache.
    pub pages_total: usize,
    /// Pages that sequences hold.
    pub pages_used: usize,
    /// Pages that hold prefixes which may be used again.
    pub pages_cached: usize,
    /// How many times a sequence lost its pages to another.
    pub preempted: u64,
}

impl Pong {
    /// The counters of an engine.
    pub fn new(steps: u64, step_ms: u64, occupancy: Occupancy) -> Self {
        let Occupancy { running, waiting, pages_total, pages_used, pages_cached, preempted } = occupancy;
        Self { steps, step_ms, running, waiting, pages_total, pages_used, pages_cached, preempted }
    }
}

/// For whom the request is that follows: what a client cannot say of itself. A worker that is told nothing has one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The number of the principal, from 1.
    pub principal: u32,
    /// The number of those who share cached prefixes with it, from 1.
    pub group: u32,
    /// Its share of the computation beside others.
    pub weight: u32,
    /// How long the request may still take.
    pub deadline_ms: Option<u64>,
}

/// Where a worker has panicked. The message of a panic may hold a prompt, so it is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// File, line and column of the code.
    pub location: String,
}

/// Appends a frame with a JSON body.
///
/// # Errors
/// If the body cannot be written as JSON: a fault of ours.
pub fn encode_json(
    out: &mut Vec<u8>,
    kind: Kind,
    request_id: u64,
    body: &impl Serialize,
) -> Result<(), Failure> {
    let body = serde_json::to_vec(body).map_err(|error| Failure::internal(error.to_string()))?;
    encode_body(out, kind, request_id, &body);
    Ok(())
}

/// Reads the JSON body of a frame.
///
/// # Errors
/// If it is not what the kind says: the other side is broken, or not ours any more.
pub fn decode_json<T: DeserializeOwned>(frame: &Frame) -> Result<T, Failure> {
    serde_json::from_slice(&frame.body)
        .map_err(|error| Failure::internal(format!("the body of {} is malformed: {error}", frame.kind)))
}
