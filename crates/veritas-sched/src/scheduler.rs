//! The scheduler: plan a step, take its outcome.
//!
//! A sequence starts only when every page that it may ever need is free and promised to nobody else, so that a started
//! sequence always ends. Sequences start first come, first served. In a step, sequences that generate come first, one
//! token each; what is left of the budget goes to prompts, in chunks.

use std::collections::VecDeque;

use thiserror::Error;
use veritas_base::TokenId;

use crate::PAGE_TOKENS;
use crate::block_pool::{BlockId, BlockPool};

/// Names a sequence; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// The bounds that a scheduler works within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Pages of the KV cache.
    pub n_blocks: u32,
    /// Sequences that may run at once.
    pub n_sequences_max: usize,
    /// Sequences that may wait.
    pub n_waiting_max: usize,
    /// Tokens that one step computes, over all sequences.
    pub step_tokens_max: usize,
    /// Tokens of one prompt that one step computes.
    pub chunk_tokens_max: usize,
}

/// A sequence to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSpec {
    /// The prompt; not empty.
    pub prompt: Vec<TokenId>,
    /// Tokens to generate at most; 0 to compute the prompt alone.
    pub n_new_max: usize,
    /// A sequence with the same prompt. If it still runs when this one starts, the whole pages of the prompt that it
    /// has computed are shared and not computed again.
    pub same_prompt_as: Option<SequenceId>,
}

/// Why a sequence was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// The prompt holds no token.
    #[error("the prompt holds no token")]
    EmptyPrompt,
    /// The sequence could never run.
    #[error("{needed} pages of the KV cache are needed, but there are only {available}")]
    NeverFits {
        /// Pages for the prompt and the tokens to generate.
        needed: usize,
        /// All pages.
        available: usize,
    },
    /// Too many wait already.
    #[error("{waiting} sequences wait already, which is the limit")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
}

/// What one sequence computes in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEntry {
    /// The sequence.
    pub sequence: SequenceId,
    /// Position of the first token.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Its pages, for the positions from 0 to the last of `tokens`.
    pub block_table: Vec<BlockId>,
    /// Whether a new token is to be drawn after the last of `tokens`.
    pub samples: bool,
}

/// What a step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// One entry per sequence; sequences that generate come first.
    pub entries: Vec<StepEntry>,
}

/// What a step gave for one sequence that samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOutput {
    /// The sequence.
    pub sequence: SequenceId,
    /// The token that was drawn.
    pub token: TokenId,
    /// Whether the sequence ends with it.
    pub stop: bool,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// [`StepOutput::stop`].
    Stop,
    /// It has generated as many tokens as it may.
    Length,
}

/// What a commit brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sequence ended; its pages are released.
    Finished {
        /// The sequence.
        sequence: SequenceId,
        /// Why it ended.
        reason: FinishReason,
    },
}

#[derive(Clone, Debug)]
struct Sequence {
    id: SequenceId,
    tokens: Vec<TokenId>,
    n_prompt: usize,
    n_tokens_max: usize,
    n_computed: usize,
    blocks: Vec<BlockId>,
    same_prompt_as: Option<SequenceId>,
    /// Tokens of the prompt whose pages came from another sequence.
    n_shared: usize,
    /// Nothing of it is computed until it is resumed; its pages stay.
    paused: bool,
}

impl Sequence {
    fn n_blocks_max(&self) -> usize {
        self.n_tokens_max.div_ceil(PAGE_TOKENS)
    }

    fn n_open(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    fn generates(&self) -> bool {
        self.n_computed >= self.n_prompt
    }
}

/// Decides what each step computes.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    planned: Option<Vec<(SequenceId, usize)>>,
    next_id: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    ///
    /// # Panics
    /// If a bound of the configuration is zero: then nothing could ever run.
    pub fn new(config: SchedulerConfig) -> Self {
        let SchedulerConfig { n_blocks, n_sequences_max, step_tokens_max, chunk_tokens_max, .. } = config;
        assert!(n_blocks > 0 && n_sequences_max > 0 && step_tokens_max > 0 && chunk_tokens_max > 0);
        let pool = BlockPool::new(n_blocks);
        Self { config, pool, waiting: VecDeque::new(), running: Vec::new(), planned: None, next_id: 0 }
    }

    /// Takes a sequence in; it starts in a later step.
    ///
    /// # Errors
    /// [`AdmissionError`] if it can never run or too many wait.
    pub fn add(&mut self, spec: SequenceSpec) -> Result<SequenceId, AdmissionError> {
        if spec.prompt.is_empty() {
            return Err(AdmissionError::EmptyPrompt);
        }
        let n_tokens_max = spec.prompt.len().saturating_add(spec.n_new_max);
        let needed = n_tokens_max.div_ceil(PAGE_TOKENS);
        if needed > self.pool.n_blocks() {
            return Err(AdmissionError::NeverFits { needed, available: self.pool.n_blocks() });
        }
        if self.waiting.len() >= self.config.n_waiting_max {
            return Err(AdmissionError::QueueFull { waiting: self.waiting.len() });
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence {
            id,
            n_prompt: spec.prompt.len(),
            tokens: spec.prompt,
            n_tokens_max,
            n_computed: 0,
            blocks: Vec::new(),
            same_prompt_as: spec.same_prompt_as,
            n_shared: 0,
            paused: false,
        });
        Ok(id)
    }

    /// Drops a sequence that waits or runs and releases its pages. Returns whether there was one.
    ///
    /// # Panics
    /// If a step is planned and not committed: its pages are in use.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        assert!(self.planned.is_none(), "a sequence is cancelled between steps, not within one");
        if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index);
            return true;
        }
        let Some(index) = self.running.iter().position(|sequence| sequence.id == id) else { return false };
        let sequence = self.running.remove(index);
        self.release(&sequence);
        true
    }

    /// Lets a sequence stand still, or go on. What it has computed stays in its pages. Returns whether there is one.
    pub fn set_paused(&mut self, id: SequenceId, paused: bool) -> bool {
        let sequence = self.running.iter_mut().chain(&mut self.waiting).find(|sequence| sequence.id == id);
        sequence.map(|sequence| sequence.paused = paused).is_some()
    }

    /// Sequences that run and sequences that wait.
    pub fn n_sequences(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Whether the next plan may hold something: a sequence runs that is not paused, or one that waits can start.
    pub fn is_runnable(&self) -> bool {
        self.running.iter().any(|sequence| !sequence.paused) || self.startable().is_some()
    }

    /// Whether no sequence waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// All tokens of a running sequence: its prompt and what was generated.
    pub fn tokens(&self, id: SequenceId) -> Option<&[TokenId]> {
        self.running.iter().find(|sequence| sequence.id == id).map(|sequence| sequence.tokens.as_slice())
    }

    /// Tokens of a running sequence's prompt whose pages came from another sequence.
    pub fn n_shared(&self, id: SequenceId) -> usize {
        self.running.iter().find(|sequence| sequence.id == id).map_or(0, |sequence| sequence.n_shared)
    }

    /// The pages.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Plans the next step. The plan is empty only if there is nothing to do: no sequence runs that is not paused.
    ///
    /// # Panics
    /// If the last plan was not committed.
    pub fn schedule(&mut self) -> StepPlan {
        assert!(self.planned.is_none(), "the last plan was not committed");
        self.start_waiting();
        let mut budget = self.config.step_tokens_max;
        let mut plan = StepPlan::default();
        for generating in [true, false] {
            for index in 0..self.running.len() {
                let sequence = &self.running[index];
                if sequence.generates() == generating && !sequence.paused && budget > 0 {
                    let entry = self.plan_sequence(index, budget);
                    budget -= entry.tokens.len();
                    plan.entries.push(entry);
                }
            }
        }
        let planned = plan.entries.iter().map(|entry| (entry.sequence, entry.tokens.len())).collect();
        self.planned = Some(planned);
        plan
    }

    /// Takes the outcome of the planned step: `outputs` has one element for each entry that samples, in any order.
    ///
    /// # Panics
    /// If no step is planned, or an entry that samples has no output.
    pub fn commit(&mut self, outputs: &[StepOutput]) -> Vec<Event> {
        let planned = self.planned.take().expect("a step is committed after it was planned");
        let mut events = Vec::new();
        for (id, n_tokens) in planned {
            let sequence = self.running.iter_mut().find(|sequence| sequence.id == id);
            let sequence = sequence.expect("a planned sequence runs until its step is committed");
            sequence.n_computed += n_tokens;
            let mut reason = None;
            if sequence.n_open() == 0 {
                if sequence.tokens.len() < sequence.n_tokens_max {
                    let output = outputs.iter().find(|output| output.sequence == id);
                    let output = output.expect("a sequence that samples has an output");
                    sequence.tokens.push(output.token);
                    reason = output.stop.then_some(FinishReason::Stop);
                }
                if sequence.tokens.len() >= sequence.n_tokens_max {
                    reason = reason.or(Some(FinishReason::Length));
                }
            }
            if let Some(reason) = reason {
                events.push(Event::Finished { sequence: id, reason });
            }
        }
        for Event::Finished { sequence: id, .. } in &events {
            let index = self.running.iter().position(|sequence| sequence.id == *id);
            let sequence = self.running.remove(index.expect("a finished sequence was running"));
            self.release(&sequence);
        }
        events
    }

    /// Checks what must hold between calls.
    ///
    /// # Errors
    /// What is wrong, for a test to print.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check()?;
        let mut held = vec![0; self.pool.n_blocks()];
        for sequence in &self.running {
            sequence.blocks.iter().for_each(|block| held[block.0 as usize] += 1);
            if sequence.n_computed > sequence.tokens.len() || sequence.tokens.len() > sequence.n_tokens_max {
                return Err(format!("{sequence:?} has computed or known too much"));
            }
            if sequence.blocks.len() * PAGE_TOKENS < sequence.n_computed {
                return Err(format!("{sequence:?} has too few pages"));
            }
        }
        for (index, &n_holders) in held.iter().enumerate() {
            if self.pool.n_holders(BlockId(index as u32)) != n_holders {
                return Err(format!("block {index} is in {n_holders} tables, the pool says otherwise"));
            }
        }
        if self.n_promised() > self.pool.n_free() {
            return Err(format!("{} pages are promised, {} are free", self.n_promised(), self.pool.n_free()));
        }
        Ok(())
    }

    /// Pages that running sequences may still ask for.
    fn n_promised(&self) -> usize {
        self.running.iter().map(|sequence| sequence.n_blocks_max() - sequence.blocks.len()).sum()
    }

    /// The pages that the next waiting sequence would share, if it can start now.
    fn startable(&self) -> Option<Vec<BlockId>> {
        let next = self.waiting.front().filter(|_| self.running.len() < self.config.n_sequences_max)?;
        let source = next.same_prompt_as.and_then(|id| self.running.iter().find(|running| running.id == id));
        // The last token of the prompt is computed in any case: its logits are what the first token is drawn from.
        let n_whole = (next.n_prompt - 1) / PAGE_TOKENS;
        if source.is_some_and(|source| source.n_computed < n_whole * PAGE_TOKENS) {
            return None; // The pages that it will share are being computed.
        }
        let shared = source.map_or(Vec::new(), |source| source.blocks[..n_whole].to_vec());
        (next.n_blocks_max() - shared.len() <= self.pool.n_free() - self.n_promised()).then_some(shared)
    }

    fn start_waiting(&mut self) {
        while let Some(shared) = self.startable() {
            let mut sequence = self.waiting.pop_front().expect("the queue has a front");
            shared.iter().for_each(|&block| self.pool.share(block));
            sequence.n_shared = shared.len() * PAGE_TOKENS;
            sequence.n_computed = sequence.n_shared;
            sequence.blocks = shared;
            self.running.push(sequence);
        }
    }

    fn plan_sequence(&mut self, index: usize, budget: usize) -> StepEntry {
        let sequence = &mut self.running[index];
        let n_tokens = sequence.n_open().min(budget).min(self.config.chunk_tokens_max);
        let end = sequence.n_computed + n_tokens;
        while sequence.blocks.len() < end.div_ceil(PAGE_TOKENS) {
            let block = self.pool.allocate().expect("pages were promised when the sequence started");
            sequence.blocks.push(block);
        }
        StepEntry {
            sequence: sequence.id,
            start: sequence.n_computed,
            tokens: sequence.tokens[sequence.n_computed..end].to_vec(),
            block_table: sequence.blocks.clone(),
            samples: end == sequence.tokens.len() && end < sequence.n_tokens_max,
        }
    }

    fn release(&mut self, sequence: &Sequence) {
        sequence.blocks.iter().for_each(|&block| self.pool.release(block));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: SchedulerConfig = SchedulerConfig {
        n_blocks: 8,
        n_sequences_max: 3,
        n_waiting_max: 4,
        step_tokens_max: 20,
        chunk_tokens_max: 7,
    };

    fn spec(n_prompt: usize, n_new_max: usize) -> SequenceSpec {
        SequenceSpec { prompt: (0..n_prompt as u32).collect(), n_new_max, same_prompt_as: None }
    }

    /// Runs the planned step: each sequence draws the number of tokens it knows.
    fn run_step(scheduler: &mut Scheduler, stop_at: usize) -> (StepPlan, Vec<Event>) {
        let plan = scheduler.schedule();
        let outputs = plan.entries.iter().filter(|entry| entry.samples).map(|entry| {
            let known = entry.start + entry.tokens.len();
            StepOutput { sequence: entry.sequence, token: known as u32, stop: known == stop_at }
        });
        let outputs = outputs.collect::<Vec<_>>();
        let events = scheduler.commit(&outputs);
        (plan, events)
    }

    #[test]
    fn a_prompt_is_computed_in_chunks_and_then_token_by_token() {
        let mut scheduler = Scheduler::new(CONFIG);
        scheduler.add(spec(16, 3)).unwrap();
        let mut stretches = Vec::new();
        while !scheduler.is_idle() {
            let (plan, _) = run_step(&mut scheduler, usize::MAX);
            stretches
                .extend(plan.entries.iter().map(|entry| (entry.start, entry.tokens.len(), entry.samples)));
        }
        let expected = [(0, 7, false), (7, 7, false), (14, 2, true), (16, 1, true), (17, 1, true)];
        assert_eq!(stretches, expected);
    }

    #[test]
    fn generation_comes_before_prompts_within_the_budget() {
        let mut scheduler = Scheduler::new(SchedulerConfig { step_tokens_max: 5, ..CONFIG });
        let first = scheduler.add(spec(4, 8)).unwrap();
        run_step(&mut scheduler, usize::MAX);
        let second = scheduler.add(spec(9, 1)).unwrap();
        let (plan, _) = run_step(&mut scheduler, usize::MAX);
        let shape = plan.entries.iter().map(|entry| (entry.sequence, entry.tokens.len())).collect::<Vec<_>>();
        assert_eq!(shape, [(first, 1), (second, 4)]);
    }

    #[test]
    fn a_sequence_that_can_never_fit_is_refused_at_once() {
        let mut scheduler = Scheduler::new(CONFIG);
        let refused = scheduler.add(spec(100, 29));
        assert_eq!(refused, Err(AdmissionError::NeverFits { needed: 9, available: 8 }));
        assert_eq!(scheduler.add(spec(0, 1)), Err(AdmissionError::EmptyPrompt));
    }

    #[test]
    fn a_sequence_waits_until_all_its_pages_are_certain() {
        let mut scheduler = Scheduler::new(CONFIG);
        scheduler.add(spec(1, 79)).unwrap();
        let second = scheduler.add(spec(1, 63)).unwrap();
        let (plan, _) = run_step(&mut scheduler, usize::MAX);
        assert_eq!(plan.entries.len(), 1, "five of eight pages are promised to the first");
        while scheduler.tokens(second).is_none() {
            run_step(&mut scheduler, usize::MAX);
        }
        scheduler.check().unwrap();
    }

    #[test]
    fn sequences_with_the_same_prompt_share_its_whole_pages() {
        let mut scheduler = Scheduler::new(CONFIG);
        let first = scheduler.add(spec(40, 4)).unwrap();
        let second = scheduler.add(SequenceSpec { same_prompt_as: Some(first), ..spec(40, 4) }).unwrap();
        let mut starts = Vec::new();
        while !scheduler.is_idle() {
            let (plan, _) = run_step(&mut scheduler, usize::MAX);
            starts.extend(
                plan.entries.iter().filter(|entry| entry.sequence == second).map(|entry| entry.start),
            );
            scheduler.check().unwrap();
        }
        assert_eq!(starts[0], 32);
        assert_eq!(scheduler.pool().n_free(), 8);
    }

    #[test]
    fn a_stop_ends_the_sequence_and_frees_its_pages() {
        let mut scheduler = Scheduler::new(CONFIG);
        let id = scheduler.add(spec(3, 50)).unwrap();
        let (_, events) = run_step(&mut scheduler, 3);
        assert_eq!(events, [Event::Finished { sequence: id, reason: FinishReason::Stop }]);
        assert_eq!(scheduler.pool().n_free(), 8);
    }

    #[test]
    fn a_paused_sequence_stands_still_and_holds_up_nobody() {
        let mut scheduler = Scheduler::new(CONFIG);
        let first = scheduler.add(spec(3, 20)).unwrap();
        run_step(&mut scheduler, usize::MAX);
        assert!(scheduler.set_paused(first, true) && !scheduler.is_runnable());
        assert!(scheduler.schedule().entries.is_empty());
        scheduler.commit(&[]);
        let second = scheduler.add(spec(3, 2)).unwrap();
        assert!(scheduler.is_runnable());
        while scheduler.is_runnable() {
            let (plan, _) = run_step(&mut scheduler, usize::MAX);
            assert!(plan.entries.iter().all(|entry| entry.sequence == second));
        }
        assert_eq!(scheduler.tokens(first).map(<[_]>::len), Some(4));
        scheduler.set_paused(first, false);
        while !scheduler.is_idle() {
            run_step(&mut scheduler, usize::MAX);
        }
        assert_eq!(scheduler.pool().n_free(), 8);
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Add { n_prompt: usize, n_new: usize, same_as_last: bool },
        Cancel(u64),
        Pause(u64, bool),
        Step { stop_at: usize },
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            (1usize..70, 0usize..40, any::<bool>())
                .prop_map(|(n_prompt, n_new, same_as_last)| Operation::Add { n_prompt, n_new, same_as_last }),
            (0u64..12).prop_map(Operation::Cancel),
            (0u64..12, any::<bool>()).prop_map(|(id, paused)| Operation::Pause(id, paused)),
            (0usize..90).prop_map(|stop_at| Operation::Step { stop_at }),
            (0usize..90).prop_map(|stop_at| Operation::Step { stop_at }),
        ]
    }

    proptest! {
        /// Hunts for lost and doubly used pages, plans beyond the budget, and sequences that never end.
        #[test]
        fn invariants_hold_after_every_call_and_everything_ends(
            operations in prop::collection::vec(operation(), 1..60),
        ) {
            let mut scheduler = Scheduler::new(CONFIG);
            let mut last: Option<(SequenceId, usize)> = None;
            for operation in operations {
                match operation {
                    Operation::Add { n_prompt, n_new, same_as_last } => {
                        let twin = last.filter(|_| same_as_last);
                        let n_prompt = twin.map_or(n_prompt, |(_, len)| len);
                        let same_prompt_as = twin.map(|(id, _)| id);
                        let added = scheduler.add(SequenceSpec { same_prompt_as, ..spec(n_prompt, n_new) });
                        last = added.ok().map(|id| (id, n_prompt)).or(last);
                    }
                    Operation::Cancel(id) => { scheduler.cancel(SequenceId(id)); }
                    Operation::Pause(id, paused) => { scheduler.set_paused(SequenceId(id), paused); }
                    Operation::Step { stop_at } => {
                        let may_plan = scheduler.is_runnable();
                        let paused = scheduler.running.iter().filter(|s| s.paused).map(|s| s.id).collect::<Vec<_>>();
                        let (plan, _) = run_step(&mut scheduler, stop_at);
                        prop_assert!(may_plan || plan.entries.is_empty());
                        prop_assert!(plan.entries.iter().all(|entry| !paused.contains(&entry.sequence)));
                        let open = scheduler.running.iter().any(|s| !s.paused && !paused.contains(&s.id));
                        prop_assert!(!plan.entries.is_empty() || !open, "work was left undone");
                        let n_tokens = plan.entries.iter().map(|entry| entry.tokens.len()).sum::<usize>();
                        prop_assert!(n_tokens <= CONFIG.step_tokens_max);
                    }
                }
                if let Err(error) = scheduler.check() {
                    prop_assert!(false, "{}", error);
                }
            }
            (0..64).for_each(|id| { scheduler.set_paused(SequenceId(id), false); });
            for _ in 0..2000 {
                run_step(&mut scheduler, usize::MAX);
            }
            prop_assert!(scheduler.is_idle());
            prop_assert_eq!(scheduler.pool().n_free(), 8);
        }
    }
}
