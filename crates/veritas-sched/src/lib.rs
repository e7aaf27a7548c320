//! Block pool and scheduler: which sequences compute which tokens in the next step, and on which pages of the KV cache.
//!
//! There is no prefill phase and no decode phase. A sequence has `known` tokens (its prompt and what was generated) and
//! `computed` ones (whose keys and values are in the cache); a step computes some of the difference. [`Scheduler::schedule`]
//! plans a step, [`Scheduler::commit`] takes its outcome.
//!
//! Architecture invariant: pure state machines. No clock, no thread, no I/O, no float, no tensor.
#![forbid(unsafe_code)]

mod block_pool;
mod principal;
mod scheduler;
mod sequence;

pub use block_pool::{Allocated, BlockId, BlockPool, ContentId, GroupId, Parent, Scope};
pub use scheduler::{
    AdmissionError, BlockCopy, Event, FinishReason, Scheduler, SchedulerConfig, StepEntry, StepOutput,
    StepPlan,
};
pub use sequence::{Client, PrincipalId, Priority, SequenceId, SequenceSpec};

/// Positions that one page of the KV cache holds.
pub const PAGE_TOKENS: usize = 16;
