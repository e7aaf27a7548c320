//! What must hold between calls, for tests and fuzzing.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::PAGE_TOKENS;
use crate::block_pool::BlockId;
use crate::sequence::{Sequence, State};

impl Scheduler {
    /// Checks what must hold between calls.
    ///
    /// # Errors
    /// What is wrong, for a test to print.
    pub fn check(&self) -> Result<(), String> {
        self.pool.check()?;
        self.check_sequences()?;
        self.check_holders()?;
        self.check_principals()?;
        if let Some(planned) = &self.planned {
            let n_tokens = planned.work.iter().map(|(_, n_tokens)| n_tokens).sum::<usize>();
            if n_tokens > planned.budget {
                return Err(format!("{n_tokens} tokens are planned, {} were allowed", planned.budget));
            }
            let ready = |(slot, n_tokens): &(_, usize)| {
                let sequence = &self.sequences[*slot];
                sequence.state == State::Running
                    && *n_tokens <= sequence.n_open()
                    && (sequence.n_computed + n_tokens).div_ceil(PAGE_TOKENS) <= sequence.blocks.len()
            };
            if !planned.work.iter().all(ready) {
                return Err(format!("the plan {planned:?} holds what cannot be computed"));
            }
        }
        Ok(())
    }

    fn check_sequences(&self) -> Result<(), String> {
        if self.running.len() > self.config.n_sequences_max {
            return Err(format!("{} sequences run", self.running.len()));
        }
        for (slot, sequence) in self.sequences.iter() {
            if sequence.n_computed > sequence.tokens.len() || sequence.tokens.len() > sequence.n_tokens_max {
                return Err(format!("{sequence:?} has computed or known too much"));
            }
            if sequence.blocks.len() * PAGE_TOKENS < sequence.n_computed
                || sequence.blocks.len() > sequence.n_tokens_max.div_ceil(PAGE_TOKENS)
            {
                return Err(format!("{sequence:?} has too few pages, or too many"));
            }
            let runs = self.running.iter().filter(|&&running| running == slot).count();
            if runs != usize::from(sequence.state == State::Running) {
                return Err(format!("{sequence:?} is listed {runs} times among those that run"));
            }
            if sequence.state != State::Running && !sequence.blocks.is_empty() {
                return Err(format!("{sequence:?} waits and has pages"));
            }
            if sequence.n_registered != sequence.n_computed / PAGE_TOKENS {
                return Err(format!("{sequence:?} has whole pages that are not known"));
            }
            if sequence.state == State::Parked {
                let source = sequence.same_prompt_as.and_then(|id| self.sequences.by_id(id));
                if !source.is_some_and(|source| source.followers.contains(&sequence.id)) {
                    return Err(format!("{sequence:?} waits for nobody"));
                }
            }
        }
        Ok(())
    }

    /// Each page has as many holders as tables that name it; one that two name is whole in both and of one group.
    fn check_holders(&self) -> Result<(), String> {
        let mut tables: BTreeMap<BlockId, Vec<(usize, &Sequence)>> = BTreeMap::new();
        for (_, sequence) in self.sequences.iter() {
            for (index, &block) in sequence.blocks.iter().enumerate() {
                tables.entry(block).or_default().push((index, sequence));
            }
        }
        let sources = self.planned.as_ref().map_or(&[][..], |planned| &planned.sources);
        for index in 0..self.pool.n_blocks() {
            let block = BlockId(index as u32);
            let holders = tables.get(&block).map_or(&[][..], Vec::as_slice);
            let n_copied = sources.iter().filter(|&&source| source == block).count();
            if self.pool.n_holders(block) as usize != holders.len() + n_copied {
                return Err(format!("{block:?} is in {} tables, the pool says otherwise", holders.len()));
            }
            if holders.len() < 2 {
                continue;
            }
            let (place, first) = holders[0];
            let is_sound = |(index, sequence): &(usize, &Sequence)| {
                *index == place
                    && sequence.scope == first.scope
                    && sequence.n_computed >= (place + 1) * PAGE_TOKENS
                    && sequence.tokens[..(place + 1) * PAGE_TOKENS]
                        == first.tokens[..(place + 1) * PAGE_TOKENS]
            };
            if !self.pool.has_content(block) || !holders.iter().all(is_sound) {
                return Err(format!("{block:?} is shared and may not be: {holders:?}"));
            }
        }
        Ok(())
    }

    fn check_principals(&self) -> Result<(), String> {
        let mut counts: BTreeMap<_, [usize; 4]> = BTreeMap::new();
        for (_, sequence) in self.sequences.iter() {
            let is_running = sequence.state == State::Running;
            let is_ready = sequence.state == State::Waiting && !sequence.is_paused;
            let counts = counts.entry(sequence.client.principal).or_default();
            counts[0] += usize::from(is_running);
            counts[1] += usize::from(!is_running);
            counts[2] += usize::from(is_ready);
            counts[3] += sequence.blocks.len();
        }
        for (id, principal) in self.principals.iter() {
            let found = [principal.n_running, principal.n_waiting, principal.n_ready(), principal.n_blocks];
            let expected = counts.remove(&id).unwrap_or_default();
            if found != expected {
                return Err(format!("{id:?} has {expected:?}, {found:?} were counted"));
            }
            if principal.n_running > self.config.n_sequences_per_principal_max
                || principal.n_blocks > self.config.n_blocks_per_principal_max
            {
                return Err(format!("{id:?} has more than it may: {found:?}"));
            }
        }
        if counts.is_empty() { Ok(()) } else { Err(format!("{counts:?} are of nobody")) }
    }
}
