//! The step loop, the CPU backend and the sampler: from token ids to text.
//!
//! [`Engine`] answers requests; [`Runner`] runs sequences and shows their logits; a [`Backend`] computes a stage of the
//! plan. The scheduler decides what a step computes, so none of them knows a prefill phase or a decode phase.
//!
//! Architecture invariant: no socket, no clock, no randomness but the seed of a request.
#![forbid(unsafe_code)]

mod backend;
mod cpu;
mod engine;
mod error;
mod files;
mod kv;
mod model;
mod rope;
mod runner;
pub mod sampler;
mod score;
mod weights;

pub use backend::{Backend, Batch, BatchEntry, LogitsWanted, Stage};
pub use cpu::CpuBackend;
pub use engine::{Engine, FinishReason, Output, Request, RequestId};
pub use error::{Error, ErrorKind};
pub use files::{MetadataOverride, ModelFiles, part_paths};
pub use kv::CacheTypes;
pub use model::Model;
pub use rope::{RopeReach, reach_of};
pub use runner::{DEFAULT_CHUNK_TOKENS, Drawn, LogitsRow, Occupancy, PrincipalLimits, Runner, RunnerConfig};
pub use score::{Perplexity, ShowLogits, compute_logits, perplexity};
pub use veritas_sched::{Client, Event, GroupId, PrincipalId, Priority, SequenceId, SequenceSpec};
