//! The step loop: the scheduler plans, the stages compute, the caller draws tokens, the scheduler commits.

use std::collections::HashMap;
use std::sync::Arc;

use veritas_base::TokenId;
use veritas_kernels::{Kernels, Team};
use veritas_model::Plan;
use veritas_sched::{
    Event, PAGE_TOKENS, Scheduler, SchedulerConfig, SequenceId, SequenceSpec, StepEntry, StepOutput, StepPlan,
};
use veritas_simd::Isa;

use crate::backend::{Backend, Batch, BatchEntry, LogitsWanted, Stage};
use crate::cpu::CpuBackend;
use crate::error::Error;
use crate::kv::CacheTypes;
use crate::model::Model;
use crate::rope::{RopeReach, reach_of};

/// The context where the user asks for none: the model's own, at most this many tokens.
const DEFAULT_CONTEXT_MAX: usize = 4096;

/// Tokens of a prompt that a step computes where the user asks for no other number: enough to use each weight that is
/// read for many tokens, few enough that another sequence does not wait long.
pub const DEFAULT_CHUNK_TOKENS: usize = 512;

/// Sequences that may wait for their turn; whoever submits more is told so.
const WAITING_MAX: usize = 65_536;

/// How a model is run.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads that compute.
    pub n_threads: usize,
    /// Threads that are there already, in place of `n_threads` new ones: a confined process can start none.
    pub team: Option<Arc<Team>>,
    /// Tokens that a sequence may have, prompt and answer; `None` for the model's context, at most 4096.
    pub n_context: Option<usize>,
    /// Sequences that run at once.
    pub n_sequences: usize,
    /// Pages of the KV cache; `None` for as many as `n_sequences` whole contexts have.
    pub n_pages: Option<u32>,
    /// Whether whole pages of the KV cache are found again by later sequences.
    pub prefix_cache: bool,
    /// What one principal may have.
    pub principal_limits: PrincipalLimits,
    /// Tokens of one prompt that a step computes.
    pub chunk_tokens: usize,
    /// How the cache stores keys and values.
    pub cache_types: CacheTypes,
    /// Layers before which the plan is cut into stages, ascending; none for one stage.
    pub cuts: Vec<usize>,
}

/// What one principal may have; `None` for no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrincipalLimits {
    /// Sequences that run at once.
    pub n_sequences: Option<usize>,
    /// Sequences that wait.
    pub n_waiting: Option<usize>,
    /// Pages of the KV cache.
    pub n_pages: Option<usize>,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            isa: Isa::detect(),
            n_threads: std::thread::available_parallelism().map_or(1, usize::from),
            team: None,
            n_context: None,
            n_sequences: 1,
            n_pages: None,
            prefix_cache: true,
            principal_limits: PrincipalLimits::default(),
            chunk_tokens: DEFAULT_CHUNK_TOKENS,
            cache_types: CacheTypes::default(),
            cuts: Vec::new(),
        }
    }
}

impl RunnerConfig {
    /// Tokens that a sequence of the model may have.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] if more are asked for than the model has.
    pub fn context_of(&self, plan: &Plan) -> Result<usize, Error> {
        match self.n_context {
            Some(asked) if asked > plan.n_context => {
                Err(Error::ContextTooLong { asked, model: plan.n_context })
            }
            Some(asked) => Ok(asked.max(1)),
            None => Ok(plan.n_context.min(DEFAULT_CONTEXT_MAX)),
        }
    }

    /// Pages that `n_contexts` whole contexts of the model need.
    ///
    /// # Errors
    /// As [`RunnerConfig::context_of`]; [`Error::CacheMemory`] if they cannot be counted.
    pub fn pages_of_contexts(&self, plan: &Plan, n_contexts: usize) -> Result<u32, Error> {
        let pages = self.context_of(plan)?.div_ceil(PAGE_TOKENS).saturating_mul(n_contexts.max(1));
        u32::try_from(pages).map_err(|_| Error::CacheMemory { bytes: usize::MAX })
    }
}

/// How much of a runner is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Sequences that run.
    pub running: usize,
    /// Sequences that wait for pages.
    pub waiting: usize,
    /// Pages of the KV cache.
    pub pages_total: usize,
    /// Pages that sequences hold.
    pub pages_used: usize,
    /// Pages that no sequence holds and that hold prefixes which may be used again.
    pub pages_cached: usize,
    /// How many times a sequence lost its pages to another, since the start.
    pub preempted: u64,
}

/// What a caller is shown of a step: the logits of one position.
pub struct LogitsRow<'a> {
    /// The sequence.
    pub sequence: SequenceId,
    /// Position of the token that the logits follow.
    pub position: usize,
    /// `[n_vocab]`.
    pub logits: &'a [f32],
    /// All tokens of the sequence that are known.
    pub tokens: &'a [TokenId],
    /// Whether a token is to be drawn from these logits.
    pub samples: bool,
}

/// A token that the caller draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The token.
    pub token: TokenId,
    /// Whether the sequence ends with it.
    pub stop: bool,
}

/// Runs sequences of one model.
pub struct Runner {
    model: Arc<Model>,
    scheduler: Scheduler,
    stages: Vec<Box<dyn Backend>>,
    /// What the stages hand on; the logits in the end. Kept for its memory.
    values: Vec<f32>,
    n_context: usize,
    step_tokens_max: usize,
    sequences: HashMap<SequenceId, SequenceFacts>,
}

struct SequenceFacts {
    reach: RopeReach,
    all_logits: bool,
    /// Positions whose logits were shown. A sequence that was preempted computes them again, and shows them once.
    n_shown: usize,
}

impl Runner {
    /// Reserves the KV cache and starts the threads.
    ///
    /// # Errors
    /// If the machine lacks the instruction set, the context is longer than the model's, or memory is short.
    pub fn new(model: Arc<Model>, config: &RunnerConfig) -> Result<Self, Error> {
        let plan = Arc::clone(model.plan());
        let n_context = config.context_of(&plan)?;
        let n_blocks = match config.n_pages {
            Some(n_pages) => n_pages.max(1),
            None => config.pages_of_contexts(&plan, config.n_sequences)?,
        };
        let team = match &config.team {
            Some(team) => Arc::clone(team),
            None => Arc::new(Team::new(config.n_threads)),
        };
        let kernels = Kernels::new(config.isa)?;
        let n_layers = plan.layers.len();
        let mut stages: Vec<Box<dyn Backend>> = Vec::new();
        let mut start = 0;
        for end in config.cuts.iter().copied().filter(|&cut| cut < n_layers).chain([n_layers]) {
            let stage = Stage { layers: start..end, n_layers };
            stages.push(Box::new(CpuBackend::new(
                Arc::clone(model.files()),
                Arc::clone(&plan),
                stage,
                kernels,
                Arc::clone(&team),
                config.cache_types,
                n_blocks as usize,
            )?));
            start = end;
        }
        let limits = config.principal_limits;
        let limit = |limit: Option<usize>| limit.unwrap_or(usize::MAX).max(1);
        let scheduler = Scheduler::new(SchedulerConfig {
            n_blocks,
            prefix_cache: config.prefix_cache,
            n_sequences_max: config.n_sequences.max(1),
            n_waiting_max: WAITING_MAX,
            chunk_tokens_max: config.chunk_tokens.max(1),
            burst_tokens: n_context.max(config.chunk_tokens),
            n_sequences_per_principal_max: limit(limits.n_sequences),
            n_waiting_per_principal_max: limit(limits.n_waiting),
            n_blocks_per_principal_max: limit(limits.n_pages),
        });
        let step_tokens_max = config.chunk_tokens.max(config.n_sequences).max(1);
        let (values, sequences) = (Vec::new(), HashMap::new());
        Ok(Self { model, scheduler, stages, values, n_context, step_tokens_max, sequences })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens that a sequence may have.
    pub fn n_context(&self) -> usize {
        self.n_context
    }

    /// From now on, keep the hidden states of each step for [`Runner::take_hidden`].
    pub fn capture_hidden(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.capture_hidden());
    }

    /// The hidden states of the last step: the embedding's output, then what follows each layer, `[rows, hidden]` each.
    pub fn take_hidden(&mut self) -> Vec<Vec<f32>> {
        let mut hidden: Vec<Vec<f32>> = Vec::new();
        for stage in &mut self.stages {
            let captured = stage.take_hidden();
            // The input of a later stage is the output of the one before.
            hidden.extend(captured.into_iter().skip(usize::from(!hidden.is_empty())));
        }
        hidden
    }

    /// Takes a sequence in. `all_logits`: every position's logits are shown, also those of a shared prompt.
    ///
    /// # Errors
    /// If the prompt is empty, holds a token that does not exist, or leaves no room for an answer.
    pub fn add(&mut self, mut spec: SequenceSpec, all_logits: bool) -> Result<SequenceId, Error> {
        if spec.prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let n_vocab = self.model.plan().n_vocab;
        if let Some(&id) = spec.prompt.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { id: id as usize, n_vocab });
        }
        let (prompt, context) = (spec.prompt.len(), self.n_context);
        if prompt + usize::from(spec.n_new_max > 0) > context {
            return Err(Error::ContextExceeded { prompt, context });
        }
        spec.n_new_max = spec.n_new_max.min(context - prompt);
        if all_logits {
            spec.takes_hits = false;
        }
        let reach = reach_of(&self.model.plan().ropes, prompt + spec.n_new_max);
        spec.variant = reach as u64;
        let id = self.scheduler.add(spec)?;
        self.sequences.insert(id, SequenceFacts { reach, all_logits, n_shown: 0 });
        Ok(id)
    }

    /// Ends a sequence now. Returns whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        self.sequences.remove(&id);
        self.scheduler.cancel(id)
    }

    /// Lets a sequence stand still, or go on. Returns whether there is one.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) -> bool {
        self.scheduler.set_paused(id, paused)
    }

    /// What the scheduler and its pages are at.
    pub fn occupancy(&self) -> Occupancy {
        let (running, waiting) = self.scheduler.n_sequences();
        let pool = self.scheduler.pool();
        Occupancy {
            running,
            waiting,
            pages_total: pool.n_blocks(),
            pages_used: pool.n_blocks() - pool.n_free(),
            pages_cached: pool.n_cached(),
            preempted: self.scheduler.n_preempted(),
        }
    }

    /// Whether a sequence runs or waits that is not paused.
    pub fn is_runnable(&self) -> bool {
        self.scheduler.is_runnable()
    }

    /// Whether nothing is left to compute.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Ends the sequences whose deadline, [`SequenceSpec::deadline`], is not after `now`.
    pub fn expire(&mut self, now: u64) -> Vec<Event> {
        let events = self.scheduler.expire(now);
        self.forget(&events);
        events
    }

    fn forget(&mut self, events: &[Event]) {
        for Event::Finished { sequence, .. } in events {
            self.sequences.remove(sequence);
        }
    }

    /// Computes one step; `None` if there was nothing to compute. `draw` is called for every row of logits, sequence by sequence, position by position; where
    /// [`LogitsRow::samples`] says so, it draws a token.
    ///
    /// # Errors
    /// What a stage or `draw` says. The runner is of no use afterwards.
    pub fn step(
        &mut self,
        draw: &mut dyn FnMut(LogitsRow<'_>) -> Result<Option<Drawn>, Error>,
    ) -> Result<Option<Vec<Event>>, Error> {
        let plan = self.scheduler.schedule(self.step_tokens_max);
        if plan.entries.is_empty() {
            self.scheduler.commit(&[]);
            return Ok(None);
        }
        let batch = self.batch(&plan);
        for stage in &mut self.stages {
            stage.run(&batch, &mut self.values)?;
        }
        let mut rows = self.values.chunks_exact(self.model.plan().n_vocab);
        let mut outputs = Vec::new();
        for (entry, wanted) in plan.entries.iter().zip(&batch.entries) {
            if let Some(facts) = self.sequences.get_mut(&entry.sequence) {
                facts.n_shown = facts.n_shown.max(entry.start + entry.tokens.len());
            }
            let tokens = self.scheduler.tokens(entry.sequence).unwrap_or_default();
            for row in wanted.logit_rows() {
                let logits =
                    rows.next().ok_or(Error::Internal { what: "a row of logits for each that is wanted" })?;
                let samples = entry.samples && row + 1 == entry.tokens.len();
                let position = entry.start + row;
                let shown = LogitsRow { sequence: entry.sequence, position, logits, tokens, samples };
                match draw(shown)? {
                    Some(Drawn { token, stop }) if samples => {
                        outputs.push(StepOutput { sequence: entry.sequence, token, stop });
                    }
                    None if samples => {
                        return Err(Error::Internal { what: "a token is drawn where one is due" });
                    }
                    _ => {}
                }
            }
        }
        let events = self.scheduler.commit(&outputs);
        self.forget(&events);
        Ok(Some(events))
    }

    fn batch(&self, plan: &StepPlan) -> Batch {
        Batch {
            zeroise: plan.zeroise.iter().map(|block| block.0).collect(),
            copies: plan.copies.iter().map(|copy| (copy.from.0, copy.to.0)).collect(),
            entries: plan.entries.iter().map(|entry| self.batch_entry(entry)).collect(),
        }
    }

    fn batch_entry(&self, entry: &StepEntry) -> BatchEntry {
        let facts = &self.sequences[&entry.sequence];
        let n_shown = facts.n_shown.saturating_sub(entry.start);
        let logits = match (facts.all_logits, entry.samples) {
            (true, _) if n_shown == 0 => LogitsWanted::All,
            (true, _) if n_shown < entry.tokens.len() => LogitsWanted::From(n_shown),
            (_, true) => LogitsWanted::Last,
            (_, false) => LogitsWanted::None,
        };
        BatchEntry {
            tokens: entry.tokens.clone(),
            start: entry.start,
            block_table: entry.block_table.iter().map(|block| block.0).collect(),
            reach: facts.reach,
            logits,
        }
    }
}
