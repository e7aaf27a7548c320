//! What planning and committing a step costs: sequences that generate, one token each, in long contexts.
//!
//! `cargo run --release -p veritas-sched --example overhead`
#![allow(clippy::print_stdout)]

use std::time::Instant;

use veritas_sched::{
    Client, GroupId, PrincipalId, Scheduler, SchedulerConfig, SequenceSpec, StepOutput, StepPlan,
};

/// Steps that are measured.
const STEPS: usize = 2000;

fn outputs(plan: &StepPlan) -> Vec<StepOutput> {
    let samples = plan.entries.iter().filter(|entry| entry.samples);
    samples.map(|entry| StepOutput { sequence: entry.sequence, token: 1, stop: false }).collect()
}

/// Microseconds of a step, the median and the greatest of 99 of 100.
fn measure(n_sequences: usize, n_prompt: usize, n_waiting: usize, n_principals: usize) -> (f64, f64) {
    // The first has generated for as long as it took to compute the prompts of the others.
    let n_new_max = STEPS + n_sequences * (n_prompt / 256 + 2);
    let n_tokens = n_prompt + n_new_max;
    let mut scheduler = Scheduler::new(SchedulerConfig {
        n_blocks: (n_sequences * n_tokens.div_ceil(16)) as u32,
        n_sequences_max: n_sequences,
        chunk_tokens_max: 512,
        ..SchedulerConfig::default()
    });
    for index in 0..n_sequences + n_waiting {
        let principal = (index % n_principals) as u32;
        let client = Client { principal: PrincipalId(principal), group: GroupId(principal), weight: 1 };
        let prompt = (0..n_prompt).map(|i| (index * n_prompt + i) as u32).collect();
        scheduler.add(SequenceSpec { client, ..SequenceSpec::new(prompt, n_new_max) }).expect("it fits");
    }
    loop {
        let plan = scheduler.schedule(512);
        let n_drawn = outputs(&plan).len();
        scheduler.commit(&outputs(&plan));
        if n_drawn == n_sequences {
            break;
        }
    }
    let mut times = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        let start = Instant::now();
        let plan = scheduler.schedule(512);
        let planned = start.elapsed();
        assert_eq!(plan.entries.len(), n_sequences);
        let outputs = outputs(&plan);
        let start = Instant::now();
        scheduler.commit(&outputs);
        times.push((planned + start.elapsed()).as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn main() {
    println!("sequences  context  waiting  principals   median µs   99 of 100 µs");
    for (n_sequences, n_prompt, n_waiting, n_principals) in [
        (1, 512, 0, 1),
        (64, 16, 0, 1),
        (64, 1024, 0, 1),
        (64, 4096, 0, 1),
        (64, 1024, 1000, 1),
        (64, 1024, 1000, 1000),
    ] {
        let (median, most) = measure(n_sequences, n_prompt, n_waiting, n_principals);
        println!(
            "{n_sequences:>9} {n_prompt:>8} {n_waiting:>8} {n_principals:>11} {median:>11.1} {most:>14.1}"
        );
    }
}
