//! What must hold for any sequence of calls to the scheduler.
//!
//! The calls drive a world in which each page remembers what was written to it: for each position a number that depends
//! on every token up to it, as keys and values do, and the group that it was written for. A step that reads anything
//! else than what its own sequence would have written, or is given a page with a trace of another group, is caught, and
//! so is a sequence whose tokens differ from those that the naive scheduler gives it: one sequence after the other, each
//! computed from its first token.

use std::collections::{BTreeMap, BTreeSet};

use veritas_base::TokenId;
use veritas_sched::{
    Client, Event, FinishReason, GroupId, PAGE_TOKENS, PrincipalId, Priority, Scheduler, SchedulerConfig,
    SequenceId, SequenceSpec, StepEntry, StepOutput,
};

/// Steps after which everything that was taken must have ended: many times what the tokens of all need.
const STEPS_MAX: usize = 20_000;

/// Sequences that are in the scheduler at once.
const SEQUENCES_MAX: usize = 24;

/// What the model of these tests knows of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u64);

impl State {
    fn start(variant: u64) -> Self {
        Self(0xcbf2_9ce4_8422_2325 ^ variant)
    }

    fn then(self, token: TokenId) -> Self {
        let mixed = (self.0 ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 29))
    }

    /// The token that is drawn after the text, of few, so that texts have beginnings in common; and whether it ends.
    fn draw(self) -> (TokenId, bool) {
        ((self.0 >> 40) as TokenId % 3, (self.0 >> 20).is_multiple_of(37))
    }
}

#[derive(Debug)]
struct Sequence {
    spec: SequenceSpec,
    tokens: Vec<TokenId>,
}

impl Sequence {
    /// What is known after each token.
    fn states(&self) -> Vec<State> {
        let start = State::start(self.spec.variant);
        let states = self.tokens.iter().scan(start, |state, &token| {
            *state = state.then(token);
            Some(*state)
        });
        states.collect()
    }
}

/// The naive scheduler: a sequence by itself, from its first token to its last.
fn alone(spec: &SequenceSpec) -> (Vec<TokenId>, FinishReason) {
    let mut tokens = spec.prompt.clone();
    let mut state = tokens.iter().fold(State::start(spec.variant), |state, &token| state.then(token));
    for _ in 0..spec.n_new_max {
        let (token, stop) = state.draw();
        tokens.push(token);
        state = state.then(token);
        if stop {
            return (tokens, FinishReason::Stop);
        }
    }
    (tokens, FinishReason::Length)
}

/// A scheduler, and what its plans do to memory.
struct World {
    scheduler: Scheduler,
    /// What each position of each page holds, and for whom it was written.
    pages: Vec<[Option<(GroupId, State)>; PAGE_TOKENS]>,
    sequences: BTreeMap<SequenceId, Sequence>,
    last: Option<SequenceId>,
    now: u64,
}

impl World {
    fn new(config: SchedulerConfig) -> Self {
        Self {
            scheduler: Scheduler::new(config),
            pages: vec![[None; PAGE_TOKENS]; config.n_blocks as usize],
            sequences: BTreeMap::new(),
            last: None,
            now: 0,
        }
    }

    fn add(&mut self, spec: SequenceSpec) {
        if self.sequences.len() < SEQUENCES_MAX
            && let Ok(id) = self.scheduler.add(spec.clone())
        {
            self.sequences.insert(id, Sequence { tokens: spec.prompt.clone(), spec });
            self.last = Some(id);
        }
    }

    fn nth(&self, n: usize) -> Option<SequenceId> {
        self.sequences.keys().nth(n % self.sequences.len().max(1)).copied()
    }

    fn cancel(&mut self, id: SequenceId) {
        assert!(self.scheduler.cancel(id));
        self.sequences.remove(&id);
    }

    fn expire(&mut self) {
        let events = self.scheduler.expire(self.now);
        for Event::Finished { sequence, reason, .. } in events {
            let gone = self.sequences.remove(&sequence).expect("it was there");
            assert_eq!(reason, FinishReason::Deadline);
            assert!(gone.spec.deadline.is_some_and(|deadline| deadline <= self.now));
        }
        let is_late =
            |sequence: &Sequence| sequence.spec.deadline.is_some_and(|deadline| deadline <= self.now);
        assert!(!self.sequences.values().any(is_late), "a deadline was passed over");
    }

    /// One step; `cancelled` is cancelled while it is computed.
    fn step(&mut self, budget: usize, cancelled: Option<SequenceId>) {
        let may_plan = self.scheduler.is_runnable();
        let plan = self.scheduler.schedule(budget);
        self.check();
        assert_eq!(may_plan, !plan.entries.is_empty(), "work is left undone, or was not announced");
        let n_tokens = plan.entries.iter().map(|entry| entry.tokens.len()).sum::<usize>();
        assert!(n_tokens <= budget, "the plan is beyond its budget");
        let entries = plan.entries.iter().map(|entry| entry.sequence).collect::<BTreeSet<_>>();
        assert_eq!(entries.len(), plan.entries.len(), "a sequence is planned twice");
        plan.zeroise.iter().for_each(|block| self.pages[block.0 as usize] = [None; PAGE_TOKENS]);
        for copy in &plan.copies {
            self.pages[copy.to.0 as usize] = self.pages[copy.from.0 as usize];
        }
        plan.entries.iter().for_each(|entry| self.read(entry));
        let mut written = BTreeSet::new();
        plan.entries.iter().for_each(|entry| self.write(entry, &mut written));
        if let Some(id) = cancelled.filter(|id| self.sequences.contains_key(id)) {
            self.cancel(id);
            self.check();
        }
        let mut outputs = plan.entries.iter().filter(|entry| entry.samples).map(|entry| {
            let known = self.sequences.get(&entry.sequence).map(|sequence| sequence.states());
            let (token, stop) = known.map_or((0, false), |states| states[states.len() - 1].draw());
            StepOutput { sequence: entry.sequence, token, stop }
        });
        let mut outputs = outputs.by_ref().collect::<Vec<_>>();
        outputs.reverse();
        for output in &outputs {
            if let Some(sequence) = self.sequences.get_mut(&output.sequence) {
                sequence.tokens.push(output.token);
            }
        }
        for Event::Finished { sequence: id, reason, n_cached } in self.scheduler.commit(&outputs) {
            let sequence = self.sequences.remove(&id).expect("it ends once");
            assert_eq!(
                (sequence.tokens, reason),
                alone(&sequence.spec),
                "{id:?} has other tokens than alone"
            );
            assert!(n_cached < sequence.spec.prompt.len() && (sequence.spec.takes_hits || n_cached == 0));
        }
        self.check();
    }

    /// All that an entry reads is what its sequence would have written, and nothing in its pages is another group's.
    fn read(&self, entry: &StepEntry) {
        let sequence = &self.sequences[&entry.sequence];
        let group = sequence.spec.client.group;
        assert_eq!(entry.tokens, sequence.tokens[entry.start..][..entry.tokens.len()]);
        let states = sequence.states();
        for (position, &state) in states[..entry.start].iter().enumerate() {
            let block = entry.block_table[position / PAGE_TOKENS].0 as usize;
            assert_eq!(self.pages[block][position % PAGE_TOKENS], Some((group, state)), "{entry:?}");
        }
        for block in &entry.block_table {
            let traces = self.pages[block.0 as usize].iter().flatten();
            assert!(traces.clone().all(|(owner, _)| *owner == group), "{block:?} is not zeroised: {entry:?}");
        }
    }

    fn write(&mut self, entry: &StepEntry, written: &mut BTreeSet<(usize, usize)>) {
        let sequence = &self.sequences[&entry.sequence];
        let states = sequence.states();
        let computed = states.iter().enumerate().skip(entry.start).take(entry.tokens.len());
        for (position, &state) in computed {
            let place = (entry.block_table[position / PAGE_TOKENS].0 as usize, position % PAGE_TOKENS);
            assert!(written.insert(place), "two sequences write to one place: {entry:?}");
            self.pages[place.0][place.1] = Some((sequence.spec.client.group, state));
        }
    }

    fn check(&self) {
        if let Err(error) = self.scheduler.check() {
            panic!("{error}");
        }
    }
}

/// Takes the bytes as a configuration and calls (four bytes each), checks everything after each, and runs what is left to
/// its end.
///
/// # Panics
/// If an invariant is broken, a sequence gets other tokens than alone, or something never ends.
pub fn check(bytes: &[u8]) {
    let Some((&[pages, places, chunk, limits], calls)) = bytes.split_first_chunk() else { return };
    let limit = |bits: u8, most: usize| if bits == 0 { usize::MAX } else { most };
    let config = SchedulerConfig {
        n_blocks: u32::from(pages % 16) + 1,
        prefix_cache: pages < 192,
        n_sequences_max: usize::from(places % 5) + 1,
        n_waiting_max: 16,
        chunk_tokens_max: usize::from(chunk % 40) + 1,
        burst_tokens: usize::from(chunk) * 4,
        n_sequences_per_principal_max: limit(limits & 1, 2),
        n_waiting_per_principal_max: limit(limits & 2, 8),
        n_blocks_per_principal_max: limit(limits & 4, 5),
    };
    let mut world = World::new(config);
    for call in calls.as_chunks::<4>().0 {
        let [kind, a, b, c] = call.map(usize::from);
        match kind % 8 {
            0 | 1 => {
                let twin = world.last.filter(|_| a & 128 != 0);
                let twin = twin.and_then(|id| Some((id, world.sequences.get(&id)?.spec.clone())));
                world.add(match twin {
                    Some((id, spec)) => {
                        SequenceSpec { same_prompt_as: Some(id), n_new_max: kind / 8, ..spec }
                    }
                    None => spec(kind / 8, a, b, c, world.now),
                });
            }
            2 => {
                if let Some(id) = world.nth(a) {
                    world.cancel(id);
                }
            }
            3 => {
                if let Some(id) = world.nth(a) {
                    assert!(world.scheduler.set_paused(id, b % 2 == 0));
                }
            }
            4 => {
                world.now += a as u64 / 4;
                world.expire();
            }
            5 => world.step(b % 40 + 1, world.nth(a)),
            _ => (0..a % 4 + 1).for_each(|_| world.step(b % 40 + 1, None)),
        }
        world.check();
    }
    for &id in world.sequences.keys() {
        world.scheduler.set_paused(id, false);
    }
    for _ in 0..STEPS_MAX {
        if world.sequences.is_empty() {
            break;
        }
        assert!(world.scheduler.is_runnable(), "what is left cannot run");
        world.step(20, None);
    }
    assert!(world.scheduler.is_idle() && world.sequences.is_empty(), "a sequence never ends");
    assert_eq!(world.scheduler.pool().n_free(), config.n_blocks as usize, "pages are lost");
}

fn spec(n_new_max: usize, a: usize, b: usize, c: usize, now: u64) -> SequenceSpec {
    let principal = a as u32 % 4;
    // The first two principals share, the others do not.
    let client =
        Client { principal: PrincipalId(principal), group: GroupId(principal.max(1)), weight: 1 + principal };
    let priority = [Priority::Low, Priority::Normal, Priority::High, Priority::Critical][(a >> 2) % 4];
    // Prompts have beginnings of different lengths in common.
    let differs_from = (b % 4) * 17;
    let prompt = (0..1 + c % 90).map(|i| if i >= differs_from { (b / 4 % 4) as TokenId } else { 7 });
    SequenceSpec {
        client,
        priority,
        deadline: (a & 64 != 0).then_some(now + b as u64 / 2),
        variant: u64::from(c > 200),
        takes_hits: b < 230,
        ..SequenceSpec::new(prompt.collect(), n_new_max)
    }
}
