//! What principals have in hand and what they are owed: deficit round-robin on tokens computed, with weights.
//!
//! A principal has *credit*. Every token that is computed for it costs some, the less the greater its weight, and every
//! token that is computed for anybody gives each its share. Whoever has most credit is served first. Who is served gets
//! no further than zero, and who is not, up to a bound, where a new principal begins: whoever has been still, or has
//! waited for long, is served at once, however much others ask for.

use std::collections::{BTreeMap, BTreeSet};

use crate::sequence::{PrincipalId, Priority, SequenceId, Slot};

/// Credit that a token costs at weight 1. Weights up to it are told apart.
const TOKEN_COST: i64 = 1 << 12;

/// The greatest weight.
pub(crate) const WEIGHT_MAX: u32 = TOKEN_COST as u32;

#[derive(Clone, Debug)]
pub(crate) struct Principal {
    pub(crate) weight: u32,
    pub(crate) credit: i64,
    /// Sequences that wait and could start, by priority.
    ready: [BTreeSet<(SequenceId, Slot)>; Priority::COUNT],
    pub(crate) n_running: usize,
    /// Waiting or parked.
    pub(crate) n_waiting: usize,
    /// Entries in the block tables of its sequences.
    pub(crate) n_blocks: usize,
}

impl Principal {
    pub(crate) fn set_ready(&mut self, priority: Priority, id: SequenceId, slot: Slot, is_ready: bool) {
        let ready = &mut self.ready[priority as usize];
        if is_ready {
            ready.insert((id, slot));
        } else {
            ready.remove(&(id, slot));
        }
    }

    /// The oldest sequence of each priority that could start.
    pub(crate) fn first_ready(&self) -> impl Iterator<Item = Slot> {
        self.ready.iter().filter_map(|ready| ready.first()).map(|&(_, slot)| slot)
    }

    pub(crate) fn n_ready(&self) -> usize {
        self.ready.iter().map(BTreeSet::len).sum()
    }

    pub(crate) fn has_work(&self) -> bool {
        self.n_running + self.n_waiting > 0
    }
}

/// All principals that have work or owe some.
#[derive(Clone, Debug)]
pub(crate) struct Principals {
    by_id: BTreeMap<PrincipalId, Principal>,
    credit_max: i64,
}

impl Principals {
    /// `burst_tokens` is what a principal that was still may have computed before others are served again.
    pub(crate) fn new(burst_tokens: usize) -> Self {
        let burst_tokens = i64::try_from(burst_tokens).unwrap_or(i64::MAX).clamp(1, 1 << 40);
        Self { by_id: BTreeMap::new(), credit_max: burst_tokens * TOKEN_COST }
    }

    pub(crate) fn entry(&mut self, id: PrincipalId) -> &mut Principal {
        let credit = self.credit_max;
        self.by_id.entry(id).or_insert_with(|| Principal {
            weight: 1,
            credit,
            ready: Default::default(),
            n_running: 0,
            n_waiting: 0,
            n_blocks: 0,
        })
    }

    pub(crate) fn of(&self, id: PrincipalId) -> Option<&Principal> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PrincipalId, &Principal)> {
        self.by_id.iter().map(|(&id, principal)| (id, principal))
    }

    /// Weights of all that have work.
    pub(crate) fn weight_sum(&self) -> u64 {
        self.by_id.values().filter(|known| known.has_work()).map(|known| u64::from(known.weight)).sum()
    }

    /// Takes the cost of tokens that are computed for a principal; a negative number gives it back.
    pub(crate) fn charge(&mut self, id: PrincipalId, n_tokens: i64) {
        let credit_max = self.credit_max;
        let principal = self.entry(id);
        let cost = n_tokens * (TOKEN_COST / i64::from(principal.weight));
        principal.credit = (principal.credit - cost).clamp(-credit_max, credit_max);
    }

    /// Gives each its share of the tokens of a step. Who has no work and as much credit as there can be is forgotten: a
    /// new principal is no different.
    pub(crate) fn give(&mut self, n_tokens: usize, weight_sum: u64) {
        let credit =
            (n_tokens as i64).saturating_mul(TOKEN_COST) / i64::try_from(weight_sum).unwrap_or(i64::MAX);
        let credit_max = self.credit_max;
        self.by_id.retain(|_, known| {
            let most = if known.n_running > 0 { 0 } else { credit_max };
            known.credit = known.credit.max((known.credit + credit).min(most));
            known.has_work() || known.credit < credit_max
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PrincipalId = PrincipalId(1);
    const TWO: PrincipalId = PrincipalId(2);

    /// Serves the richest of two that always have work; returns what each got.
    fn serve(weights: [u32; 2], n_tokens: i64, n_times: usize) -> [i64; 2] {
        let mut principals = Principals::new(4096);
        for (id, weight) in [ONE, TWO].into_iter().zip(weights) {
            let principal = principals.entry(id);
            (principal.weight, principal.n_running) = (weight, 1);
        }
        let mut served = [0, 0];
        for _ in 0..n_times {
            let richest = if principals.entry(ONE).credit >= principals.entry(TWO).credit { 0 } else { 1 };
            principals.charge([ONE, TWO][richest], n_tokens);
            principals.give(n_tokens as usize, principals.weight_sum());
            served[richest] += n_tokens;
        }
        served
    }

    #[test]
    fn tokens_are_shared_by_weight() {
        let [one, two] = serve([1, 1], 512, 1000);
        assert!((one - two).abs() <= 2 * 512, "{one} {two}");
        let [one, two] = serve([3, 1], 100, 4000);
        assert!((one - 3 * two).abs() <= 3 * 4096, "{one} {two}");
    }

    #[test]
    fn who_is_served_has_no_more_than_nothing_and_who_is_not_gets_up_to_the_burst() {
        let mut principals = Principals::new(1000);
        principals.entry(ONE).n_running = 1;
        principals.entry(TWO).n_waiting = 1;
        principals.charge(TWO, 2000);
        for _ in 0..10 {
            principals.charge(ONE, 512);
            principals.give(512, 2);
        }
        assert!(principals.of(ONE).unwrap().credit <= 0);
        assert_eq!(principals.of(TWO).unwrap().credit, 1000 * TOKEN_COST, "it has waited long enough");
        principals.entry(TWO).n_waiting = 0;
        principals.give(1, 2);
        assert!(principals.of(TWO).is_none(), "it has no work, and is as good as new");
        assert_eq!(principals.entry(TWO).credit, 1000 * TOKEN_COST);
    }
}
