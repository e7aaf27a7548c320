//! The scheduler: plan a step, take its outcome.
//!
//! In a step, sequences that generate come first, one token each. What is left of the budget goes to prompts, in chunks:
//! the principal with most credit chooses first ([`principal`](crate::principal)), and among its own sequences priority
//! decides, then age. Pages are taken as they are needed. When there are none left, cached prefixes are given up, and
//! then sequences are preempted ([`room`]): their pages go back, and what they knew is computed again later, or found in
//! the cache. The tokens that come out are the same.

mod check;
mod prompts;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use thiserror::Error;
use veritas_base::TokenId;

use crate::PAGE_TOKENS;
use crate::block_pool::{BlockId, BlockPool, Parent, Scope};
use crate::principal::{Principals, WEIGHT_MAX};
use crate::sequence::{Sequence, SequenceId, SequenceSpec, Sequences, Slot, State};

/// Steps without progress after which a sequence counts as one priority higher.
const AGING_STEPS: u64 = 256;

/// The bounds that a scheduler works within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Pages of the KV cache.
    pub n_blocks: u32,
    /// Whether pages that nobody holds are found again by later sequences. Without, only sequences with
    /// [`SequenceSpec::same_prompt_as`] share pages.
    pub prefix_cache: bool,
    /// Sequences that may run at once.
    pub n_sequences_max: usize,
    /// Sequences that may wait.
    pub n_waiting_max: usize,
    /// Tokens of one prompt that one step computes.
    pub chunk_tokens_max: usize,
    /// Tokens that a principal which was still for long may have computed before others are served again.
    pub burst_tokens: usize,
    /// Sequences of one principal that may run at once.
    pub n_sequences_per_principal_max: usize,
    /// Sequences of one principal that may wait.
    pub n_waiting_per_principal_max: usize,
    /// Pages that the sequences of one principal may have, a shared page counted for each.
    pub n_blocks_per_principal_max: usize,
}

impl Default for SchedulerConfig {
    /// One page, one sequence, and no bound for a principal.
    fn default() -> Self {
        Self {
            n_blocks: 1,
            prefix_cache: true,
            n_sequences_max: 1,
            n_waiting_max: usize::MAX,
            chunk_tokens_max: usize::MAX,
            burst_tokens: 4096,
            n_sequences_per_principal_max: usize::MAX,
            n_waiting_per_principal_max: usize::MAX,
            n_blocks_per_principal_max: usize::MAX,
        }
    }
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
        /// All pages that the principal may have.
        available: usize,
    },
    /// Too many wait already.
    #[error("{waiting} sequences wait already, which is the limit")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// Too many of the principal wait already.
    #[error("{waiting} sequences of this principal wait already, which is its limit")]
    PrincipalQueueFull {
        /// How many of the principal wait.
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

/// A page whose content another one gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCopy {
    /// Where it is.
    pub from: BlockId,
    /// Where it goes.
    pub to: BlockId,
}

/// What a step computes. Pages are overwritten with zeros first, then copied, then the entries are computed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Pages that come from another group.
    pub zeroise: Vec<BlockId>,
    /// Pages of prompts that are not whole, for sequences that go on from them in their own ways.
    pub copies: Vec<BlockCopy>,
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
    /// Its deadline came before its end.
    Deadline,
}

/// What has come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sequence ended; its pages are released.
    Finished {
        /// The sequence.
        sequence: SequenceId,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of its prompt that were found in the cache when it first ran, and not computed for it.
        n_cached: usize,
    },
}

/// What is computed in the present step.
#[derive(Clone, Debug)]
struct Planned {
    work: Vec<(Slot, usize)>,
    /// Pages that are copied from, held until the step is done.
    sources: Vec<BlockId>,
    budget: usize,
}

/// A plan while it is made.
#[derive(Debug, Default)]
struct Draft {
    budget: usize,
    work: Vec<(Slot, usize)>,
    zeroise: Vec<BlockId>,
    copies: Vec<(Slot, BlockCopy)>,
    /// Whether no further sequence may start in this step: pages are saved for one that needs many.
    starts_are_blocked: bool,
    /// Whether no principal has to give a place to another: who has none needs not ask.
    places_are_taken: bool,
    /// Weights of all principals that have work.
    weight_sum: u64,
}

/// Decides what each step computes.
#[derive(Clone, Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    pool: BlockPool,
    sequences: Sequences,
    principals: Principals,
    running: Vec<Slot>,
    planned: Option<Planned>,
    /// Steps that were planned.
    step: u64,
    next_id: u64,
    n_preempted: u64,
    deadlines: BTreeSet<(u64, SequenceId)>,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    ///
    /// # Panics
    /// If a bound of the configuration is zero: then nothing could ever run.
    pub fn new(config: SchedulerConfig) -> Self {
        let SchedulerConfig { n_blocks, n_sequences_max, chunk_tokens_max, .. } = config;
        assert!(n_blocks > 0 && n_sequences_max > 0 && chunk_tokens_max > 0);
        assert!(config.n_sequences_per_principal_max > 0 && config.n_blocks_per_principal_max > 0);
        Self {
            pool: BlockPool::new(n_blocks, config.prefix_cache),
            principals: Principals::new(config.burst_tokens),
            config,
            sequences: Sequences::default(),
            running: Vec::new(),
            planned: None,
            step: 0,
            next_id: 0,
            n_preempted: 0,
            deadlines: BTreeSet::new(),
        }
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
        let available = self.pool.n_blocks().min(self.config.n_blocks_per_principal_max);
        if needed > available {
            return Err(AdmissionError::NeverFits { needed, available });
        }
        let (_, waiting) = self.n_sequences();
        if waiting >= self.config.n_waiting_max {
            return Err(AdmissionError::QueueFull { waiting });
        }
        let waiting = self.principals.of(spec.client.principal).map_or(0, |principal| principal.n_waiting);
        if waiting >= self.config.n_waiting_per_principal_max {
            return Err(AdmissionError::PrincipalQueueFull { waiting });
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        let source = spec.same_prompt_as.and_then(|id| self.sequences.slot(id));
        let source = source.filter(|&slot| shares_prompt(&self.sequences[slot], &spec));
        let first = source.map_or(id, |slot| {
            let Scope { request, .. } = self.sequences[slot].scope;
            request.map_or(self.sequences[slot].id, SequenceId)
        });
        let scope = Scope {
            group: spec.client.group,
            variant: spec.variant,
            request: (!self.config.prefix_cache).then_some(first.0),
        };
        let must_wait = source.filter(|&slot| !has_prompt(&self.sequences[slot]));
        let sequence = Sequence {
            id,
            client: spec.client,
            priority: spec.priority,
            deadline: spec.deadline,
            scope,
            takes_hits: spec.takes_hits,
            state: if must_wait.is_some() { State::Parked } else { State::Waiting },
            is_paused: false,
            is_cancelled: false,
            n_prompt: spec.prompt.len(),
            tokens: spec.prompt,
            n_tokens_max,
            n_computed: 0,
            blocks: Vec::new(),
            n_registered: 0,
            parent: Parent::Start(scope),
            same_prompt_as: source.map(|slot| self.sequences[slot].id),
            followers: Vec::new(),
            n_cached: None,
            n_preempted: 0,
            last_step: self.step,
        };
        self.deadlines.extend(sequence.deadline.map(|deadline| (deadline, id)));
        let slot = self.sequences.insert(sequence);
        if let Some(source) = must_wait {
            self.sequences[source].followers.push(id);
        }
        let principal = self.principals.entry(spec.client.principal);
        principal.weight = spec.client.weight.clamp(1, WEIGHT_MAX);
        principal.n_waiting += 1;
        self.update_ready(slot);
        Ok(id)
    }

    /// Drops a sequence and releases its pages, at the end of the step if one is planned. Returns whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let Some(slot) = self.sequences.slot(id).filter(|&slot| !self.sequences[slot].is_cancelled) else {
            return false;
        };
        let is_planned = |planned: &Planned| planned.work.iter().any(|(planned, _)| *planned == slot);
        if self.planned.as_ref().is_some_and(is_planned) {
            self.sequences[slot].is_cancelled = true;
        } else {
            self.remove(slot);
        }
        true
    }

    /// Ends the sequences whose deadline is not after `now`; the unit is the caller's.
    ///
    /// # Panics
    /// If a step is planned and not committed.
    pub fn expire(&mut self, now: u64) -> Vec<Event> {
        assert!(self.planned.is_none(), "deadlines are looked after between steps");
        let mut events = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            events.extend(self.sequences.slot(id).map(|slot| self.finish(slot, FinishReason::Deadline)));
        }
        events
    }

    /// Lets a sequence stand still, or go on. What it has computed stays in its pages unless others need them. Returns
    /// whether there is one.
    pub fn set_paused(&mut self, id: SequenceId, is_paused: bool) -> bool {
        let Some(slot) = self.sequences.slot(id) else { return false };
        self.sequences[slot].is_paused = is_paused;
        self.update_ready(slot);
        true
    }

    /// Sequences that run and sequences that wait.
    pub fn n_sequences(&self) -> (usize, usize) {
        (self.running.len(), self.sequences.len() - self.running.len())
    }

    /// How many times a sequence lost its pages to another.
    pub fn n_preempted(&self) -> u64 {
        self.n_preempted
    }

    /// Whether the next plan holds something: not every sequence is paused, or waits for one that is.
    pub fn is_runnable(&self) -> bool {
        let is_ready = |slot: &Slot| !self.sequences[*slot].is_paused;
        self.running.iter().any(is_ready)
            || self.principals.iter().any(|(_, principal)| principal.n_ready() > 0)
    }

    /// Whether no sequence waits or runs.
    pub fn is_idle(&self) -> bool {
        self.sequences.len() == 0
    }

    /// All tokens of a sequence: its prompt and what was generated.
    pub fn tokens(&self, id: SequenceId) -> Option<&[TokenId]> {
        self.sequences.by_id(id).map(|sequence| sequence.tokens.as_slice())
    }

    /// The pages.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Plans the next step, of at most `budget` tokens. The plan is empty only if nothing can be computed:
    /// see [`Scheduler::is_runnable`].
    ///
    /// # Panics
    /// If the last plan was not committed, or `budget` is zero.
    pub fn schedule(&mut self, budget: usize) -> StepPlan {
        assert!(self.planned.is_none(), "the last plan was not committed");
        assert!(budget > 0, "a step without tokens");
        self.step += 1;
        let weight_sum = self.principals.weight_sum().max(1);
        let mut draft = Draft { budget, weight_sum, ..Draft::default() };
        self.draft_decodes(&mut draft);
        self.draft_prompts(&mut draft);
        self.give_credit(&draft, budget);
        let entries = draft.work.iter().map(|&(slot, n_tokens)| self.entry(slot, n_tokens)).collect();
        let copies = draft.copies.into_iter().map(|(_, copy)| copy).collect::<Vec<_>>();
        let sources = copies.iter().map(|copy| copy.from).collect();
        self.planned = Some(Planned { work: draft.work, sources, budget });
        StepPlan { zeroise: draft.zeroise, copies, entries }
    }

    /// Gives principals their shares of what a step computes. One that has room for more gives everybody all of it: there
    /// was nothing to share, and whoever had much before is not held back for it later.
    fn give_credit(&mut self, draft: &Draft, budget: usize) {
        let waits = self.principals.iter().any(|(_, principal)| principal.n_ready() > 0);
        if draft.budget > 0 && !waits {
            self.principals.give(budget, 1);
        } else {
            self.principals.give(budget - draft.budget, draft.weight_sum);
        }
    }

    fn entry(&self, slot: Slot, n_tokens: usize) -> StepEntry {
        let sequence = &self.sequences[slot];
        let end = sequence.n_computed + n_tokens;
        StepEntry {
            sequence: sequence.id,
            start: sequence.n_computed,
            tokens: sequence.tokens[sequence.n_computed..end].to_vec(),
            block_table: sequence.blocks.clone(),
            samples: end == sequence.tokens.len() && end < sequence.n_tokens_max,
        }
    }

    /// One token of each sequence that generates; if the budget has not room for all, of those that waited longest. A
    /// token is left for a prompt where there is one, so that prompts are not held up for ever.
    fn draft_decodes(&mut self, draft: &mut Draft) {
        let awake = self.running.iter().copied().filter(|&slot| !self.sequences[slot].is_paused);
        let (mut decodes, prompts): (Vec<_>, Vec<_>) =
            awake.partition(|&slot| self.sequences[slot].decodes());
        if decodes.len() >= draft.budget {
            let has_ready = || self.principals.iter().any(|(_, principal)| principal.n_ready() > 0);
            let has_place = self.running.len() < self.config.n_sequences_max;
            let has_prompts = !prompts.is_empty() || (has_place && has_ready());
            decodes.sort_by_key(|&slot| (self.sequences[slot].last_step, self.sequences[slot].id));
            decodes.truncate((draft.budget - usize::from(has_prompts)).max(1));
        }
        for slot in decodes.into_iter().take(draft.budget) {
            if self.sequences[slot].state == State::Running {
                self.draft_chunk(slot, 1, draft);
            }
        }
    }

    /// Plans the next `n_tokens` of a sequence that runs, if there are pages for them. Returns whether there are.
    fn draft_chunk(&mut self, slot: Slot, n_tokens: usize, draft: &mut Draft) -> bool {
        if !self.reserve(slot, self.sequences[slot].n_computed + n_tokens, draft) {
            return false;
        }
        draft.work.push((slot, n_tokens));
        draft.budget -= n_tokens;
        self.principals.charge(self.sequences[slot].client.principal, n_tokens as i64);
        true
    }

    /// Takes the outcome of the planned step: `outputs` has one element for each entry that samples, in any order. Of a
    /// sequence that was cancelled meanwhile there may be one.
    ///
    /// # Panics
    /// If no step is planned, or an entry that samples has no output.
    pub fn commit(&mut self, outputs: &[StepOutput]) -> Vec<Event> {
        let planned = self.planned.take().expect("a step is committed after it was planned");
        planned.sources.iter().for_each(|&block| self.pool.release(block));
        let mut events = Vec::new();
        let mut next_output = 0;
        for (slot, n_tokens) in planned.work {
            let sequence = &mut self.sequences[slot];
            if sequence.is_cancelled {
                self.remove(slot);
                continue;
            }
            sequence.n_computed += n_tokens;
            sequence.last_step = self.step;
            self.register_whole_pages(slot);
            let sequence = &mut self.sequences[slot];
            let mut reason = None;
            if sequence.n_open() == 0 {
                if sequence.tokens.len() < sequence.n_tokens_max {
                    // Outputs mostly stand in the order of the plan.
                    let is_mine = |output: &&StepOutput| output.sequence == sequence.id;
                    let output = outputs.get(next_output).filter(is_mine);
                    let output = output.or_else(|| outputs.iter().find(is_mine));
                    let output = output.expect("a sequence that samples has an output");
                    next_output += 1;
                    sequence.tokens.push(output.token);
                    reason = output.stop.then_some(FinishReason::Stop);
                }
                if sequence.tokens.len() >= sequence.n_tokens_max {
                    reason = reason.or(Some(FinishReason::Length));
                }
            }
            if !sequence.followers.is_empty() && has_prompt(sequence) {
                self.release_followers(slot);
            }
            if let Some(reason) = reason {
                events.push((slot, reason));
            }
        }
        events.into_iter().map(|(slot, reason)| self.finish(slot, reason)).collect()
    }

    /// Makes pages known that have become whole.
    fn register_whole_pages(&mut self, slot: Slot) {
        let sequence = &mut self.sequences[slot];
        let n_whole = sequence.n_computed / PAGE_TOKENS;
        let pages = sequence.tokens.as_chunks::<PAGE_TOKENS>().0;
        for (&block, tokens) in sequence.blocks.iter().zip(pages).take(n_whole).skip(sequence.n_registered) {
            sequence.parent = Parent::Page(self.pool.register(block, sequence.parent, tokens));
        }
        sequence.n_registered = n_whole;
    }

    /// Puts a sequence where it is looked for, or away, after a change of what it waits for.
    fn update_ready(&mut self, slot: Slot) {
        let sequence = &self.sequences[slot];
        let is_ready = sequence.state == State::Waiting && !sequence.is_paused;
        self.principals.entry(sequence.client.principal).set_ready(
            sequence.priority,
            sequence.id,
            slot,
            is_ready,
        );
    }

    /// Lets the sequences go on that waited for the prompt of this one.
    fn release_followers(&mut self, slot: Slot) {
        for id in std::mem::take(&mut self.sequences[slot].followers) {
            if let Some(slot) =
                self.sequences.slot(id).filter(|&slot| self.sequences[slot].state == State::Parked)
            {
                self.sequences[slot].state = State::Waiting;
                self.update_ready(slot);
            }
        }
    }

    fn finish(&mut self, slot: Slot, reason: FinishReason) -> Event {
        let sequence = self.remove(slot);
        Event::Finished { sequence: sequence.id, reason, n_cached: sequence.n_cached.unwrap_or(0) }
    }

    fn remove(&mut self, slot: Slot) -> Box<Sequence> {
        self.release_followers(slot);
        self.release_blocks(slot);
        let sequence = self.sequences.remove(slot);
        if let Some(deadline) = sequence.deadline {
            self.deadlines.remove(&(deadline, sequence.id));
        }
        let principal = self.principals.entry(sequence.client.principal);
        principal.set_ready(sequence.priority, sequence.id, slot, false);
        if sequence.state == State::Running {
            principal.n_running -= 1;
            self.running.retain(|&running| running != slot);
        } else {
            principal.n_waiting -= 1;
        }
        sequence
    }

    /// Releases the pages of a sequence, the last first, so that of a cached prefix the end is given up before the start.
    fn release_blocks(&mut self, slot: Slot) {
        let sequence = &mut self.sequences[slot];
        let blocks = std::mem::take(&mut sequence.blocks);
        (sequence.n_computed, sequence.n_registered) = (0, 0);
        sequence.parent = Parent::Start(sequence.scope);
        self.principals.entry(sequence.client.principal).n_blocks -= blocks.len();
        blocks.iter().rev().for_each(|&block| self.pool.release(block));
    }
}

/// Whether all of a prompt is computed that another sequence with the same prompt can use.
fn has_prompt(sequence: &Sequence) -> bool {
    sequence.n_computed >= sequence.n_prompt - 1
}

/// Whether a sequence may go on from the prompt of another.
fn shares_prompt(source: &Sequence, spec: &SequenceSpec) -> bool {
    spec.takes_hits
        && (source.scope.group, source.scope.variant) == (spec.client.group, spec.variant)
        && source.tokens.get(..source.n_prompt) == Some(&spec.prompt)
}
