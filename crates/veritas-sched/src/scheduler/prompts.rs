//! What is left of a step's budget after the sequences that generate: prompts, and what preempted sequences have lost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::room::Resource;
use super::{AGING_STEPS, BlockCopy, Draft, Scheduler};
use crate::PAGE_TOKENS;
use crate::block_pool::{BlockId, Parent};
use crate::sequence::{PrincipalId, SequenceId, Slot, State};

/// Pages that are left to each sequence that runs when another one starts: with none, the next token would preempt it
/// again; with many, pages stand idle.
const HEADROOM_BLOCKS: usize = 2;

/// Why a sequence cannot start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    /// Its principal has as much as it may, or there is no place for it.
    Itself,
    /// There are not enough pages. They are saved for it: nobody else starts in this step.
    Everybody,
}

/// The start of a sequence that is in the cache.
struct Hits {
    blocks: Vec<BlockId>,
    parent: Parent,
    /// How many of the pages nobody holds.
    n_free: usize,
}

impl Scheduler {
    /// Gives the budget to principals, the one with most credit first; of equals the one whose turn comes from the oldest
    /// sequence.
    pub(super) fn draft_prompts(&mut self, draft: &mut Draft) {
        let mut open = self.running.clone();
        open.retain(|&slot| {
            let sequence = &self.sequences[slot];
            !sequence.is_paused && !sequence.decodes() && sequence.n_open() > 0
        });
        let mut contenders = BinaryHeap::new();
        for (id, principal) in self.principals.iter() {
            let has_open = || open.iter().any(|&slot| self.sequences[slot].client.principal == id);
            if principal.n_ready() > 0 || has_open() {
                contenders.push(self.contender(id, &open));
            }
        }
        while draft.budget > 0
            && let Some((_, _, id)) = contenders.pop()
        {
            let Some(slot) = self.next_prompt(id, &mut open, draft) else { continue };
            self.draft_next(slot, draft);
            contenders.push(self.contender(id, &open));
        }
        if draft.work.is_empty() {
            self.draft_something(draft);
        }
    }

    /// Where everybody gave way to somebody who gave way as well, or paused sequences have all there is: computes
    /// something of the most urgent sequence that runs, or starts the most urgent one at the cost of paused ones.
    fn draft_something(&mut self, draft: &mut Draft) {
        let urgency = |this: &Self, slot: Slot| this.sequences[slot].urgency(this.step, AGING_STEPS);
        loop {
            let awake = self.running.iter().copied().filter(|&slot| !self.sequences[slot].is_paused);
            let Some(slot) = awake.max_by_key(|&slot| urgency(self, slot)) else { break };
            if self.draft_next(slot, draft) {
                return;
            }
        }
        let ready = self.principals.iter().flat_map(|(_, principal)| principal.first_ready());
        let Some(slot) = ready.max_by_key(|&slot| urgency(self, slot)) else { return };
        while self.start(slot, draft).is_err() {
            let paused = self.running.iter().copied().filter(|&slot| self.sequences[slot].is_paused);
            let Some(victim) = paused.max_by_key(|&slot| self.sequences[slot].id) else { return };
            self.preempt(victim, draft);
        }
        self.draft_next(slot, draft);
    }

    /// Plans as much of a sequence as a step may compute.
    fn draft_next(&mut self, slot: Slot, draft: &mut Draft) -> bool {
        let n_open = self.sequences[slot].n_open();
        self.draft_chunk(slot, n_open.min(draft.budget).min(self.config.chunk_tokens_max), draft)
    }

    fn contender(&self, id: PrincipalId, open: &[Slot]) -> (i64, Reverse<SequenceId>, PrincipalId) {
        let principal = self.principals.of(id);
        let ready = principal.into_iter().flat_map(|principal| principal.first_ready());
        let open = open.iter().copied().filter(|&slot| self.sequences[slot].client.principal == id);
        let oldest = ready.chain(open).map(|slot| self.sequences[slot].id).min();
        let oldest = oldest.unwrap_or(SequenceId(u64::MAX));
        (principal.map_or(0, |principal| principal.credit), Reverse(oldest), id)
    }

    /// The sequence of a principal whose turn it is, started if it waited; `None` if the principal has none that can
    /// compute something in this step.
    fn next_prompt(&mut self, id: PrincipalId, open: &mut Vec<Slot>, draft: &mut Draft) -> Option<Slot> {
        open.retain(|&slot| self.sequences[slot].state == State::Running);
        let urgency = |slot: Slot| self.sequences[slot].urgency(self.step, AGING_STEPS);
        let own = open.iter().copied().filter(|&slot| self.sequences[slot].client.principal == id);
        let running = own.max_by_key(|&slot| urgency(slot));
        let principal = self.principals.of(id).filter(|_| !draft.starts_are_blocked);
        let waiting =
            principal.and_then(|principal| principal.first_ready().max_by_key(|&slot| urgency(slot)));
        if let Some(slot) = waiting
            && running.is_none_or(|running| urgency(running) < urgency(slot))
        {
            match self.start(slot, draft) {
                Ok(()) => return Some(slot),
                Err(Blocked::Everybody) => draft.starts_are_blocked = true,
                Err(Blocked::Itself) => {}
            }
        }
        // Who starts may have made others give way.
        let slot = running.filter(|&slot| self.sequences[slot].state == State::Running)?;
        open.retain(|&other| other != slot);
        Some(slot)
    }

    fn start(&mut self, slot: Slot, draft: &mut Draft) -> Result<(), Blocked> {
        self.find_place(slot, draft)?;
        let hits = self.find_pages(slot, draft)?;
        let sequence = &mut self.sequences[slot];
        let id = sequence.client.principal;
        hits.blocks.iter().for_each(|&block| self.pool.share(block));
        sequence.n_registered = hits.blocks.len();
        sequence.n_computed = hits.blocks.len() * PAGE_TOKENS;
        sequence.parent = hits.parent;
        sequence.blocks = hits.blocks;
        sequence.state = State::Running;
        let n_blocks = sequence.blocks.len();
        let principal = self.principals.entry(id);
        principal.n_blocks += n_blocks;
        principal.n_running += 1;
        principal.n_waiting -= 1;
        self.running.push(slot);
        self.update_ready(slot);
        self.copy_rest(slot, draft);
        let sequence = &mut self.sequences[slot];
        sequence.n_cached.get_or_insert(sequence.n_computed);
        Ok(())
    }

    /// Makes a place among the sequences that run.
    fn find_place(&mut self, slot: Slot, draft: &mut Draft) -> Result<(), Blocked> {
        let id = self.sequences[slot].client.principal;
        let n_running = self.principals.entry(id).n_running;
        let is_at_limit = n_running >= self.config.n_sequences_per_principal_max;
        if is_at_limit || self.running.len() >= self.config.n_sequences_max {
            if n_running == 0 && draft.places_are_taken {
                return Err(Blocked::Itself);
            }
            let only_own = is_at_limit || draft.places_are_taken;
            let Some(victims) = self.claim(slot, Resource::Places, 1, only_own, draft) else {
                // Those who ask later have less credit, and can claim no more than this one.
                draft.places_are_taken |= n_running == 0;
                return Err(Blocked::Itself);
            };
            victims.into_iter().for_each(|victim| self.preempt(victim, draft));
        }
        Ok(())
    }

    /// Sees to it that there are pages for all that the sequence knows, and some for those that run to go on.
    fn find_pages(&mut self, slot: Slot, draft: &mut Draft) -> Result<Hits, Blocked> {
        let id = self.sequences[slot].client.principal;
        let n_all = self.sequences[slot].tokens.len().div_ceil(PAGE_TOKENS);
        if self.principals.entry(id).n_blocks.saturating_add(n_all) > self.config.n_blocks_per_principal_max {
            return Err(Blocked::Itself);
        }
        let hits = self.hits(slot);
        let n_needed = n_all - hits.blocks.len();
        let n_available = self.pool.n_free() - hits.n_free;
        if n_available >= n_needed + self.n_promised() {
            return Ok(hits);
        }
        let n_missing = n_needed.saturating_sub(n_available).max(1);
        let victims =
            self.claim(slot, Resource::Blocks, n_missing, false, draft).ok_or(Blocked::Everybody)?;
        victims.into_iter().for_each(|victim| self.preempt(victim, draft));
        // What was preempted may have had pages in common with this one.
        let hits = self.hits(slot);
        let n_available = self.pool.n_free() - hits.n_free;
        if n_available >= n_all - hits.blocks.len() { Ok(hits) } else { Err(Blocked::Everybody) }
    }

    /// Pages that those who run are about to need: for the rest of their prompts, and some each.
    fn n_promised(&self) -> usize {
        let promised = self.running.iter().map(|&slot| {
            let sequence = &self.sequences[slot];
            let n_soon = sequence.tokens.len().div_ceil(PAGE_TOKENS) + HEADROOM_BLOCKS;
            let n_all = sequence.n_tokens_max.div_ceil(PAGE_TOKENS);
            n_soon.min(n_all).saturating_sub(sequence.blocks.len())
        });
        promised.sum()
    }

    /// The whole pages at the start of a sequence that are in the cache. Its last token is computed in any case: its
    /// logits are what the next token is drawn from.
    fn hits(&self, slot: Slot) -> Hits {
        let sequence = &self.sequences[slot];
        let mut hits = Hits { blocks: Vec::new(), parent: Parent::Start(sequence.scope), n_free: 0 };
        if !sequence.takes_hits {
            return hits;
        }
        let n_tokens = sequence.tokens.len() - 1;
        for tokens in sequence.tokens[..n_tokens].as_chunks::<PAGE_TOKENS>().0 {
            let Some((block, content)) = self.pool.find(hits.parent, tokens) else { break };
            hits.parent = Parent::Page(content);
            hits.n_free += usize::from(self.pool.n_holders(block) == 0);
            hits.blocks.push(block);
        }
        hits
    }

    /// Goes on from the prompt of another sequence within a page, by a copy of that page.
    fn copy_rest(&mut self, slot: Slot, draft: &mut Draft) {
        let sequence = &self.sequences[slot];
        let source = sequence.same_prompt_as.filter(|_| sequence.n_cached.is_none());
        let Some(source) = source.and_then(|id| self.sequences.by_id(id)) else { return };
        let (n_whole, n_prompt) = (sequence.blocks.len(), sequence.n_prompt);
        let n_computed = source.n_computed.min(n_prompt - 1);
        let Some(&from) = source.blocks.get(n_whole) else { return };
        if n_whole != (n_prompt - 1) / PAGE_TOKENS || n_computed <= n_whole * PAGE_TOKENS {
            return;
        }
        if self.take_block(slot, draft) {
            self.pool.share(from);
            let sequence = &mut self.sequences[slot];
            sequence.n_computed = n_computed;
            let to = sequence.blocks[n_whole];
            draft.copies.push((slot, BlockCopy { from, to }));
        }
    }
}
