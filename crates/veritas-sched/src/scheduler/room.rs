//! Who gives way when places or pages run out.
//!
//! A sequence that runs and needs a page takes it from the principal that has most pages for its weight, and there from
//! the sequence of lowest priority, of equals the youngest; that may be itself. With one principal this is the lowest
//! priority and the youngest of all.
//!
//! A sequence that waits takes something only if its principal has less than its share, from principals that have more
//! than theirs and were served more lately, but never the last sequence that runs of one; or from its own principal's sequences of lower priority, or paused ones.
//!
//! What was preempted [`PREEMPTIONS_MAX`] times gives way to older such sequences alone, so that everything ends. Paused
//! sequences are not spared.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{AGING_STEPS, BlockCopy, Draft, Scheduler};
use crate::PAGE_TOKENS;
use crate::sequence::{PrincipalId, Sequence, Slot, State};

/// How many times a sequence gives way before it is spared.
const PREEMPTIONS_MAX: u32 = 3;

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Places among the sequences that run.
    Places,
    /// Pages.
    Blocks,
}

impl Scheduler {
    /// Gives a sequence the pages for its first `n_tokens` tokens. Returns `false` if it had to give way itself.
    pub(super) fn reserve(&mut self, slot: Slot, n_tokens: usize, draft: &mut Draft) -> bool {
        while self.sequences[slot].blocks.len() < n_tokens.div_ceil(PAGE_TOKENS) {
            let principal = self.sequences[slot].client.principal;
            let n_blocks = self.principals.entry(principal).n_blocks;
            let is_at_limit = n_blocks >= self.config.n_blocks_per_principal_max;
            if !is_at_limit && self.take_block(slot, draft) {
                continue;
            }
            let victim = self.victim(slot, is_at_limit.then_some(principal));
            self.preempt(victim, draft);
            if victim == slot {
                return false;
            }
        }
        true
    }

    /// Appends a free page to the table of a sequence, if there is one.
    pub(super) fn take_block(&mut self, slot: Slot, draft: &mut Draft) -> bool {
        let sequence = &mut self.sequences[slot];
        let Some(allocated) = self.pool.allocate(sequence.client.group) else { return false };
        if allocated.zeroise {
            draft.zeroise.push(allocated.block);
        }
        sequence.blocks.push(allocated.block);
        self.principals.entry(sequence.client.principal).n_blocks += 1;
        true
    }

    /// Who gives way so that a sequence that runs gets a page.
    fn victim(&self, slot: Slot, within: Option<PrincipalId>) -> Slot {
        let claimant = self.sequences[slot].client.principal;
        let blocks_per_weight = |sequence: &Sequence| {
            let id = sequence.client.principal;
            let n_blocks = self.principals.of(id).map_or(0, |principal| principal.n_blocks);
            let n_blocks = (n_blocks + usize::from(id == claimant)) as u64;
            (n_blocks << 32) / u64::from(sequence.client.weight.max(1))
        };
        let rank = |candidate: Slot| {
            let sequence = &self.sequences[candidate];
            // Among those that are spared, age alone decides.
            let is_spared = sequence.n_preempted >= PREEMPTIONS_MAX;
            let rank = (!is_spared).then(|| (blocks_per_weight(sequence), Reverse(sequence.priority)));
            (rank, sequence.id)
        };
        let candidates = self.running.iter().copied().filter(|&candidate| {
            let sequence = &self.sequences[candidate];
            candidate == slot
                || (!sequence.blocks.is_empty()
                    && within.is_none_or(|principal| principal == sequence.client.principal))
        });
        candidates.max_by_key(|&candidate| rank(candidate)).unwrap_or(slot)
    }

    /// Who gives way so that a sequence which waits gets `n_needed` of what there is too little of; `None` if that
    /// would not be fair, or not enough. With `only_own`, nobody but the principal's own sequences.
    pub(super) fn claim(
        &self,
        slot: Slot,
        resource: Resource,
        n_needed: usize,
        only_own: bool,
        draft: &Draft,
    ) -> Option<Vec<Slot>> {
        let claimant = &self.sequences[slot];
        let id = claimant.client.principal;
        let credit = self.principals.of(id)?.credit;
        let total = match resource {
            Resource::Places => self.config.n_sequences_max,
            Resource::Blocks => self.pool.n_blocks(),
        } as u64;
        let share_of = |weight: u32| (total * u64::from(weight) / draft.weight_sum).max(1) as usize;
        let used_by = |id: PrincipalId| {
            self.principals.of(id).map_or(0, |principal| match resource {
                Resource::Places => principal.n_running,
                Resource::Blocks => principal.n_blocks,
            })
        };
        let is_below = !only_own && used_by(id) + n_needed <= share_of(claimant.client.weight);
        let mut candidates = Vec::new();
        for &running in &self.running {
            let other = &self.sequences[running];
            let is_own = other.client.principal == id;
            let is_spared = other.n_preempted >= PREEMPTIONS_MAX;
            let may_take = if is_own {
                let (level, _) = other.urgency(self.step, AGING_STEPS);
                let is_lesser = level < claimant.priority as u64 && !is_spared;
                is_lesser || (other.is_paused && other.priority <= claimant.priority)
            } else {
                is_below
                    && !is_spared
                    && self.principals.of(other.client.principal).is_some_and(|other| other.n_running > 1)
                    && used_by(other.client.principal) > share_of(other.client.weight)
                    && self.principals.of(other.client.principal).is_none_or(|other| other.credit <= credit)
            };
            if may_take && (resource == Resource::Places || !other.blocks.is_empty()) {
                let used = used_by(other.client.principal) as u64;
                let excess = (used << 32) / u64::from(other.client.weight.max(1));
                candidates.push(((!is_own, excess, Reverse(other.priority), other.id), running));
            }
        }
        candidates.sort_unstable_by_key(|(rank, _)| Reverse(*rank));
        let (mut victims, mut n_freed) = (Vec::new(), 0);
        let mut left = BTreeMap::new();
        for (_, running) in candidates {
            if n_freed >= n_needed {
                break;
            }
            let other = &self.sequences[running];
            let left = left.entry(other.client.principal).or_insert_with(|| used_by(other.client.principal));
            if other.client.principal != id && *left <= share_of(other.client.weight) {
                continue;
            }
            let n = match resource {
                Resource::Places => 1,
                Resource::Blocks => {
                    other.blocks.iter().filter(|&&block| self.pool.n_holders(block) == 1).count()
                }
            };
            *left -= match resource {
                Resource::Places => 1,
                Resource::Blocks => other.blocks.len(),
            };
            n_freed += n;
            victims.push(running);
        }
        (n_freed >= n_needed).then_some(victims)
    }

    /// Takes a sequence's pages and its place. It waits, and goes on from what is still cached then.
    pub(super) fn preempt(&mut self, slot: Slot, draft: &mut Draft) {
        if let Some(index) = draft.work.iter().position(|(planned, _)| *planned == slot) {
            let (_, n_tokens) = draft.work.remove(index);
            draft.budget += n_tokens;
            self.principals.charge(self.sequences[slot].client.principal, -(n_tokens as i64));
        }
        let (dropped, kept) =
            std::mem::take(&mut draft.copies).into_iter().partition(|(copying, _)| *copying == slot);
        draft.copies = kept;
        let dropped: Vec<(Slot, BlockCopy)> = dropped;
        dropped.iter().for_each(|(_, copy)| self.pool.release(copy.from));
        self.release_blocks(slot);
        self.running.retain(|&running| running != slot);
        let sequence = &mut self.sequences[slot];
        sequence.state = State::Waiting;
        sequence.n_preempted = sequence.n_preempted.saturating_add(1);
        let principal = self.principals.entry(sequence.client.principal);
        principal.n_running -= 1;
        principal.n_waiting += 1;
        self.n_preempted += 1;
        self.update_ready(slot);
    }
}
