//! What a principal waits for while others ask for as much as they can.

use proptest::prelude::*;
use veritas_sched::{
    Client, GroupId, PrincipalId, Scheduler, SchedulerConfig, SequenceId, SequenceSpec, StepOutput, StepPlan,
};

const BUDGET: usize = 64;
const PLACES: usize = 6;
const BURST: usize = 1024;

fn client(principal: u32) -> Client {
    Client { principal: PrincipalId(principal), group: GroupId(principal), weight: 1 }
}

fn add(scheduler: &mut Scheduler, principal: u32, salt: u32, n_prompt: usize, n_new: usize) -> SequenceId {
    let prompt = (0..n_prompt as u32).map(|i| salt * 10_000 + i).collect();
    let spec = SequenceSpec { client: client(principal), ..SequenceSpec::new(prompt, n_new) };
    scheduler.add(spec).unwrap()
}

fn step(scheduler: &mut Scheduler) -> StepPlan {
    let plan = scheduler.schedule(BUDGET);
    let samples = plan.entries.iter().filter(|entry| entry.samples);
    let outputs = samples.map(|entry| StepOutput { sequence: entry.sequence, token: 0, stop: false });
    let outputs = outputs.collect::<Vec<_>>();
    scheduler.commit(&outputs);
    plan
}

proptest! {
    /// Hunts for a way to keep another from its first token: whatever a principal has waiting and running that has used
    /// up its burst, on however few pages, from the arrival of another's prompt to its first token no more of the first
    /// one's prompts is computed than one chunk.
    #[test]
    fn a_flood_raises_the_time_to_first_token_of_another_by_no_more_than_a_chunk(
        flood in prop::collection::vec((1usize..400, 1usize..60), 10..60),
        n_steps in 0usize..200,
        n_prompt in 1usize..300,
        n_blocks in 60u32..200,
    ) {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            n_blocks,
            n_sequences_max: PLACES,
            chunk_tokens_max: BUDGET,
            burst_tokens: BURST,
            ..SchedulerConfig::default()
        });
        for (salt, &(n_prompt, n_new)) in flood.iter().enumerate() {
            add(&mut scheduler, 1, salt as u32, n_prompt, n_new);
        }
        let (mut n_used, mut n_before) = (0, 0);
        while n_used < BURST || n_before < n_steps {
            if scheduler.is_idle() {
                break;
            }
            n_used += step(&mut scheduler).entries.iter().map(|entry| entry.tokens.len()).sum::<usize>();
            n_before += 1;
        }
        let victim = add(&mut scheduler, 2, 1000, n_prompt, 1);
        let (mut n_others, mut n_steps) = (0, 0);
        while scheduler.tokens(victim).is_some() {
            let plan = step(&mut scheduler);
            let is_prompt = |tokens: usize| tokens > 1;
            let others = plan.entries.iter().filter(|entry| entry.sequence != victim);
            let others = others.map(|entry| entry.tokens.len()).filter(|&n| is_prompt(n)).sum::<usize>();
            n_steps += 1;
            // Beside the last part of the victim's prompt there may be room for others.
            if scheduler.tokens(victim).is_some() {
                n_others += others;
            }
        }
        prop_assert!(n_others <= BUDGET, "{} tokens of others' prompts in {} steps", n_others, n_steps);
        prop_assert!(n_steps <= n_prompt.div_ceil(BUDGET - PLACES) + 1, "{} steps", n_steps);
    }

    /// Hunts for drift: principals that always want more than there is get tokens by their weights.
    #[test]
    fn tokens_are_shared_by_weight_whatever_the_lengths_of_prompts(
        weights in prop::collection::vec(1u32..5, 2..5),
        lengths in prop::collection::vec((1usize..200, 1usize..30), 8),
    ) {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            n_blocks: 200,
            n_sequences_max: 12,
            chunk_tokens_max: BUDGET,
            burst_tokens: 256,
            ..SchedulerConfig::default()
        });
        let mut owner = std::collections::BTreeMap::new();
        let mut computed = vec![0_u64; weights.len()];
        let mut n_open = vec![0; weights.len()];
        let mut salt = 0;
        for _ in 0..3000 {
            for (index, &weight) in weights.iter().enumerate() {
                while n_open[index] < 20 {
                    let (n_prompt, n_new) = lengths[salt as usize % lengths.len()];
                    let prompt = (0..n_prompt as u32).map(|i| salt * 1000 + i).collect();
                    let client = Client { weight, ..client(index as u32) };
                    let id = scheduler.add(SequenceSpec { client, ..SequenceSpec::new(prompt, n_new) }).unwrap();
                    owner.insert(id, index);
                    n_open[index] += 1;
                    salt += 1;
                }
            }
            let plan = step(&mut scheduler);
            plan.entries.iter().for_each(|entry| computed[owner[&entry.sequence]] += entry.tokens.len() as u64);
            owner.retain(|&id, &mut index| {
                let is_open = scheduler.tokens(id).is_some();
                n_open[index] -= usize::from(!is_open);
                is_open
            });
        }
        let shares = computed.iter().zip(&weights).map(|(n, weight)| n / u64::from(*weight));
        let shares = shares.collect::<Vec<_>>();
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        prop_assert!(most - least <= most / 4, "{:?} of {:?}", computed, weights);
    }
}
