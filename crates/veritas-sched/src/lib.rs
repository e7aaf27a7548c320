//! Block pool and scheduler: which sequences compute which tokens in the next step, and on which pages of the KV cache.
//!
//! There is no prefill phase and no decode phase. A sequence has `known` tokens (its prompt and what was generated) and
//! `computed` ones (whose keys and values are in the cache); a step computes some of the difference. [`Scheduler::schedule`]
//! plans a step, [`Scheduler::commit`] takes its outcome.
//!
//! Architecture invariant: pure state machines. No clock, no thread, no I/O, no float, no tensor.
#![forbid(unsafe_code)]

mod block_pool;
mod scheduler;

pub use block_pool::{BlockId, BlockPool};
pub use scheduler::{
    AdmissionError, Event, FinishReason, Scheduler, SchedulerConfig, SequenceId, SequenceSpec, StepEntry,
    StepOutput, StepPlan,
};

/// Positions that one page of the KV cache holds.
pub const PAGE_TOKENS: usize = 16;
