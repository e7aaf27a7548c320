//! Thousands of virtual users on one scheduler: throughput, waiting times and fairness, from fixed seeds.
//!
//! `cargo run --release -p veritas-sched --example simulate [USERS]`
//!
//! Time is made up: a step costs a constant, and a constant for each token. Users are principals of their own. Each
//! begins a conversation, waits for the answer, thinks, and goes on with all that was said; after some turns it begins
//! another one. In the second run a further principal keeps two hundred requests waiting at all times, and in the third
//! eight principals with different weights do, and nobody else asks for anything.
#![allow(clippy::print_stdout)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use veritas_sched::{
    Client, Event, GroupId, PrincipalId, Scheduler, SchedulerConfig, SequenceId, SequenceSpec, StepOutput,
};

/// Microseconds that a step costs, whatever it computes: the weights are read once.
const STEP_US: u64 = 12_000;

/// Microseconds that a token costs besides.
const TOKEN_US: u64 = 40;

/// Tokens of a step.
const BUDGET: usize = 512;

/// Simulated time of a run.
const RUN_US: u64 = 600_000_000;

/// Requests that a principal which floods keeps in the scheduler.
const FLOOD: usize = 200;

fn config() -> SchedulerConfig {
    SchedulerConfig {
        n_blocks: 32 * 4096 / 16,
        n_sequences_max: 64,
        chunk_tokens_max: BUDGET,
        ..SchedulerConfig::default()
    }
}

/// A generator of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Small numbers more often than large ones: `least` plus a geometric number with the mean `mean`, at most ten
    /// times that.
    fn skewed(&mut self, least: u64, mean: u64) -> u64 {
        let mut sum = 0;
        while sum < 10 * mean && !self.next().is_multiple_of(8) {
            sum += mean / 7;
        }
        least + sum
    }
}

struct User {
    tokens: Vec<u32>,
    n_turns: u64,
}

struct Open {
    user: usize,
    came_us: u64,
    first_us: Option<u64>,
}

#[derive(Default)]
struct Report {
    n_prompt: u64,
    n_cached: u64,
    n_computed: u64,
    n_generated: u64,
    n_answers: u64,
    ttft_us: Vec<u64>,
    per_token_us: Vec<u64>,
    /// Tokens computed, by principal.
    computed: BTreeMap<PrincipalId, u64>,
}

struct World {
    scheduler: Scheduler,
    numbers: Numbers,
    now_us: u64,
    users: Vec<User>,
    arrivals: BinaryHeap<Reverse<(u64, usize)>>,
    open: BTreeMap<SequenceId, Open>,
    /// Principals that flood, with their weights and the requests that they have open.
    floods: Vec<(Client, usize)>,
    of: BTreeMap<SequenceId, PrincipalId>,
    report: Report,
}

fn client(index: usize, weight: u32) -> Client {
    Client { principal: PrincipalId(index as u32), group: GroupId(index as u32), weight }
}

impl World {
    fn new(n_users: usize, weights: &[u32]) -> Self {
        let mut numbers = Numbers(n_users as u64);
        let arrivals = (0..n_users).map(|user| Reverse((numbers.next() % RUN_US, user))).collect();
        let users = (0..n_users).map(|_| User { tokens: Vec::new(), n_turns: 0 }).collect();
        let floods = weights.iter().enumerate();
        let floods = floods.map(|(index, &weight)| (client(n_users + index, weight), 0)).collect();
        Self {
            scheduler: Scheduler::new(config()),
            numbers,
            now_us: 0,
            users,
            arrivals,
            open: BTreeMap::new(),
            floods,
            of: BTreeMap::new(),
            report: Report::default(),
        }
    }

    fn tokens(&mut self, n: u64) -> Vec<u32> {
        (0..n).map(|_| self.numbers.next() as u32).collect()
    }

    fn arrive(&mut self) {
        while let Some(&Reverse((at_us, user))) = self.arrivals.peek()
            && at_us <= self.now_us
        {
            self.arrivals.pop();
            if self.users[user].n_turns == 0 || self.users[user].tokens.len() > 3000 {
                self.users[user] = User { tokens: Vec::new(), n_turns: 1 + self.numbers.next() % 6 };
            }
            let n_message = self.numbers.skewed(20, 150);
            let message = self.tokens(n_message);
            self.users[user].tokens.extend(message);
            let n_new_max = self.numbers.skewed(10, 100) as usize;
            let prompt = self.users[user].tokens.clone();
            let spec = SequenceSpec { client: client(user, 1), ..SequenceSpec::new(prompt, n_new_max) };
            let id = self.scheduler.add(spec).expect("it fits");
            self.of.insert(id, PrincipalId(user as u32));
            self.open.insert(id, Open { user, came_us: at_us, first_us: None });
        }
        for index in 0..self.floods.len() {
            while self.floods[index].1 < FLOOD {
                let n_prompt = self.numbers.skewed(200, 600);
                let prompt = self.tokens(n_prompt);
                let client = self.floods[index].0;
                let spec = SequenceSpec { client, ..SequenceSpec::new(prompt, 200) };
                let id = self.scheduler.add(spec).expect("it fits");
                self.of.insert(id, client.principal);
                self.floods[index].1 += 1;
            }
        }
    }

    fn step(&mut self) {
        let plan = self.scheduler.schedule(BUDGET);
        let mut outputs = Vec::new();
        let mut n_tokens = 0;
        for entry in &plan.entries {
            n_tokens += entry.tokens.len() as u64;
            *self.report.computed.entry(self.of[&entry.sequence]).or_default() += entry.tokens.len() as u64;
            if entry.samples {
                let token = self.numbers.next() as u32;
                outputs.push(StepOutput { sequence: entry.sequence, token, stop: false });
            }
        }
        let step_us = STEP_US + TOKEN_US * n_tokens;
        self.now_us += step_us;
        self.report.n_computed += n_tokens;
        self.report.n_generated += outputs.len() as u64;
        for output in &outputs {
            let Some(open) = self.open.get_mut(&output.sequence) else { continue };
            match open.first_us {
                None => self.report.ttft_us.push(self.now_us - open.came_us),
                Some(_) => self.report.per_token_us.push(step_us),
            }
            open.first_us.get_or_insert(self.now_us);
            self.users[open.user].tokens.push(output.token);
        }
        for Event::Finished { sequence, n_cached, .. } in self.scheduler.commit(&outputs) {
            let principal = self.of.remove(&sequence).expect("it was added");
            let Some(open) = self.open.remove(&sequence) else {
                let flood = self.floods.iter_mut().find(|(client, _)| client.principal == principal);
                flood.expect("it floods").1 -= 1;
                continue;
            };
            self.report.n_answers += 1;
            self.report.n_cached += n_cached as u64;
            self.report.n_prompt += self.users[open.user].tokens.len() as u64;
            self.users[open.user].n_turns -= 1;
            let think_us = self.numbers.skewed(2_000_000, 60_000_000);
            self.arrivals.push(Reverse((self.now_us + think_us, open.user)));
        }
    }

    fn run(mut self) -> (Report, u64) {
        while self.now_us < RUN_US {
            self.arrive();
            if self.scheduler.is_runnable() {
                self.step();
            } else if let Some(&Reverse((at_us, _))) = self.arrivals.peek() {
                self.now_us = at_us;
            } else {
                break;
            }
        }
        if let Err(error) = self.scheduler.check() {
            panic!("{error}");
        }
        (self.report, self.scheduler.n_preempted())
    }
}

fn quantile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1));
    values.get(index - 1).map_or(0.0, |&us| us as f64 / 1e3)
}

fn show(what: &str, (mut report, n_preempted): (Report, u64)) {
    let seconds = RUN_US as f64 / 1e6;
    println!("{what}");
    println!(
        "  {:.0} tokens/s computed, {:.0} tokens/s generated, {} answers, {n_preempted} preemptions",
        report.n_computed as f64 / seconds,
        report.n_generated as f64 / seconds,
        report.n_answers
    );
    if report.n_answers > 0 {
        println!(
            "  time to first token: median {:.0} ms, 99 of 100 {:.0} ms; between tokens: median {:.0} ms, 99 of 100 {:.0} ms",
            quantile(&mut report.ttft_us, 0.5),
            quantile(&mut report.ttft_us, 0.99),
            quantile(&mut report.per_token_us, 0.5),
            quantile(&mut report.per_token_us, 0.99),
        );
        let share = report.n_cached as f64 / report.n_prompt as f64;
        println!("  {:.0} % of what users sent and got was found in the cache", share * 100.0);
    }
}

fn main() {
    let n_users = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(2000);
    println!("{n_users} users, {} s of simulated time", RUN_US / 1_000_000);
    show("nobody floods", World::new(n_users, &[]).run());
    show("one principal keeps 200 requests open", World::new(n_users, &[1]).run());
    let weights = [1, 1, 1, 1, 2, 2, 4, 4];
    let (report, n_preempted) = World::new(0, &weights).run();
    let shares = weights.iter().zip(report.computed.values());
    let shares = shares.map(|(&weight, &n)| n as f64 / f64::from(weight)).collect::<Vec<_>>();
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
    let jain = sum * sum / (shares.len() as f64 * squares);
    show("eight principals with the weights 1 1 1 1 2 2 4 4 flood", (report, n_preempted));
    println!("  Jain's index of tokens computed for each weight: {jain:.4}");
}
