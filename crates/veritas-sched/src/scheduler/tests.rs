use super::*;
use crate::block_pool::GroupId;
use crate::sequence::{Client, PrincipalId, Priority};

const CONFIG: SchedulerConfig = SchedulerConfig {
    n_blocks: 8,
    prefix_cache: true,
    n_sequences_max: 3,
    n_waiting_max: 100,
    chunk_tokens_max: 7,
    burst_tokens: 256,
    n_sequences_per_principal_max: usize::MAX,
    n_waiting_per_principal_max: usize::MAX,
    n_blocks_per_principal_max: usize::MAX,
};

const BUDGET: usize = 20;

/// A prompt of its own for each `salt`.
fn spec(salt: u32, n_prompt: usize, n_new_max: usize) -> SequenceSpec {
    SequenceSpec::new((0..n_prompt as u32).map(|i| salt * 1000 + i).collect(), n_new_max)
}

fn client(principal: u32) -> Client {
    Client { principal: PrincipalId(principal), group: GroupId(principal), weight: 1 }
}

/// Runs the planned step: each sequence draws the number of tokens it knows.
fn run_step(scheduler: &mut Scheduler, budget: usize, stop_at: usize) -> (StepPlan, Vec<Event>) {
    let plan = scheduler.schedule(budget);
    scheduler.check().unwrap();
    let outputs = plan.entries.iter().filter(|entry| entry.samples).map(|entry| {
        let known = entry.start + entry.tokens.len();
        StepOutput { sequence: entry.sequence, token: known as u32, stop: known == stop_at }
    });
    let outputs = outputs.collect::<Vec<_>>();
    let events = scheduler.commit(&outputs);
    scheduler.check().unwrap();
    (plan, events)
}

fn step(scheduler: &mut Scheduler) -> StepPlan {
    run_step(scheduler, BUDGET, usize::MAX).0
}

/// Runs to the end; what each step computed, as (sequence, start, tokens).
fn run(scheduler: &mut Scheduler) -> Vec<Vec<(SequenceId, usize, usize)>> {
    let mut steps = Vec::new();
    while !scheduler.is_idle() {
        assert!(steps.len() < 10_000, "it never ends");
        steps.push(shape(&step(scheduler)));
    }
    steps
}

fn shape(plan: &StepPlan) -> Vec<(SequenceId, usize, usize)> {
    plan.entries.iter().map(|entry| (entry.sequence, entry.start, entry.tokens.len())).collect()
}

#[test]
fn a_prompt_is_computed_in_chunks_and_then_token_by_token() {
    let mut scheduler = Scheduler::new(CONFIG);
    let id = scheduler.add(spec(1, 16, 3)).unwrap();
    let expected = [(0, 7), (7, 7), (14, 2), (16, 1), (17, 1)];
    assert_eq!(run(&mut scheduler), expected.map(|(start, n)| vec![(id, start, n)]));
}

#[test]
fn generation_comes_before_prompts_within_the_budget() {
    let mut scheduler = Scheduler::new(CONFIG);
    let first = scheduler.add(spec(1, 4, 8)).unwrap();
    run_step(&mut scheduler, 5, usize::MAX);
    let second = scheduler.add(spec(2, 9, 1)).unwrap();
    let (plan, _) = run_step(&mut scheduler, 5, usize::MAX);
    assert_eq!(shape(&plan), [(first, 4, 1), (second, 0, 4)]);
}

#[test]
fn the_first_prompt_is_answered_before_the_last_is_computed() {
    let mut scheduler = Scheduler::new(SchedulerConfig { chunk_tokens_max: 20, n_blocks: 20, ..CONFIG });
    let ids = [1, 2, 3].map(|salt| scheduler.add(spec(salt, 40, 2)).unwrap());
    let steps = run(&mut scheduler);
    assert_eq!(steps[0], [(ids[0], 0, 20)]);
    assert_eq!(steps[1], [(ids[0], 20, 20)]);
    assert_eq!(steps[2], [(ids[0], 40, 1), (ids[1], 0, 19)]);
}

#[test]
fn a_small_budget_serves_everybody_in_turn() {
    let mut scheduler = Scheduler::new(CONFIG);
    let ids = [1, 2, 3].map(|salt| scheduler.add(spec(salt, 1, 30)).unwrap());
    for _ in 0..10 {
        run_step(&mut scheduler, 1, usize::MAX);
    }
    let lens = ids.map(|id| scheduler.tokens(id).unwrap().len());
    assert_eq!(lens.iter().sum::<usize>(), 13);
    while !scheduler.is_idle() {
        run_step(&mut scheduler, 2, usize::MAX);
    }
}

#[test]
fn a_sequence_that_can_never_fit_is_refused_at_once() {
    let mut scheduler = Scheduler::new(CONFIG);
    let refused = scheduler.add(spec(1, 100, 29));
    assert_eq!(refused, Err(AdmissionError::NeverFits { needed: 9, available: 8 }));
    assert_eq!(scheduler.add(spec(1, 0, 1)), Err(AdmissionError::EmptyPrompt));
    let mut scheduler = Scheduler::new(SchedulerConfig { n_blocks_per_principal_max: 2, ..CONFIG });
    let refused = scheduler.add(spec(1, 32, 1));
    assert_eq!(refused, Err(AdmissionError::NeverFits { needed: 3, available: 2 }));
}

#[test]
fn urgent_sequences_start_first_and_take_the_place_of_lesser_ones() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_sequences_max: 1, ..CONFIG });
    let add = |scheduler: &mut Scheduler, salt, priority| {
        scheduler.add(SequenceSpec { priority, ..spec(salt, 3, 4) }).unwrap()
    };
    let low = add(&mut scheduler, 1, Priority::Low);
    let normal = add(&mut scheduler, 2, Priority::Normal);
    let high = add(&mut scheduler, 3, Priority::High);
    assert_eq!(shape(&step(&mut scheduler)), [(high, 0, 3)]);
    let critical = add(&mut scheduler, 4, Priority::Critical);
    assert_eq!(shape(&step(&mut scheduler)), [(critical, 0, 3)], "it takes the only place");
    let order = run(&mut scheduler).concat().into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
    let mut order = order;
    order.dedup();
    assert_eq!(order, [critical, high, normal, low]);
    assert_eq!(scheduler.n_preempted(), 1);
}

#[test]
fn nothing_waits_for_ever_behind_what_is_more_urgent() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_sequences_max: 1, ..CONFIG });
    let low = scheduler.add(SequenceSpec { priority: Priority::Low, ..spec(1, 3, 1) }).unwrap();
    for salt in 0.. {
        assert!(salt < 5 * AGING_STEPS as u32, "it never starts");
        let critical = SequenceSpec { priority: Priority::Critical, ..spec(2 + salt, 3, 1) };
        scheduler.add(critical).unwrap();
        if step(&mut scheduler).entries.iter().any(|entry| entry.sequence == low) {
            break;
        }
    }
}

#[test]
fn a_later_sequence_finds_the_whole_pages_that_an_earlier_one_has_left() {
    let mut scheduler = Scheduler::new(CONFIG);
    scheduler.add(spec(1, 40, 4)).unwrap();
    run(&mut scheduler);
    assert_eq!((scheduler.pool().n_free(), scheduler.pool().n_cached()), (8, 2));
    let second = scheduler.add(spec(1, 40, 1)).unwrap();
    let (plan, _) = run_step(&mut scheduler, BUDGET, usize::MAX);
    assert_eq!(shape(&plan), [(second, 32, 7)]);
    let (_, events) = run_step(&mut scheduler, BUDGET, usize::MAX);
    let finished = Event::Finished { sequence: second, reason: FinishReason::Length, n_cached: 32 };
    assert_eq!(events, [finished]);
    // An answer is a prefix of the next turn as much as its prompt is: known are 0..=39, then 40, 41, 42.
    let turn = (0..40).map(|i| 1000 + i).chain(40..48).collect::<Vec<_>>();
    scheduler.add(SequenceSpec::new(turn, 1)).unwrap();
    assert_eq!(step(&mut scheduler).entries[0].start, 32, "43 were known, so that two pages are whole");
}

#[test]
fn the_last_token_of_a_prompt_is_computed_in_any_case() {
    let mut scheduler = Scheduler::new(CONFIG);
    scheduler.add(spec(1, 32, 1)).unwrap();
    run(&mut scheduler);
    scheduler.add(spec(1, 32, 1)).unwrap();
    assert_eq!(step(&mut scheduler).entries[0].start, 16);
}

#[test]
fn a_prefix_is_found_by_its_group_and_variant_alone() {
    let mut scheduler = Scheduler::new(CONFIG);
    let mut start_of = |client, variant, takes_hits| {
        let spec = SequenceSpec { client, variant, takes_hits, ..spec(1, 33, 1) };
        scheduler.add(spec).unwrap();
        let start = step(&mut scheduler).entries[0].start;
        run(&mut scheduler);
        start
    };
    assert_eq!(start_of(client(1), 0, true), 0);
    assert_eq!(start_of(client(1), 0, true), 32);
    assert_eq!(start_of(client(1), 0, false), 0, "a request that takes no hits computes everything");
    assert_eq!(start_of(client(1), 1, true), 0, "another variant has other numbers");
    assert_eq!(start_of(client(2), 0, true), 0, "another principal");
    assert_eq!(
        start_of(Client { group: GroupId(1), ..client(3) }, 0, true),
        32,
        "one that shares with the first"
    );
}

#[test]
fn a_page_of_another_group_is_zeroised_before_it_is_used() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_blocks: 2, ..CONFIG });
    let mut zeroised = |principal| {
        scheduler.add(SequenceSpec { client: client(principal), ..spec(principal, 30, 1) }).unwrap();
        let mut zeroised = Vec::new();
        while !scheduler.is_idle() {
            zeroised.extend(step(&mut scheduler).zeroise);
        }
        zeroised.len()
    };
    assert_eq!([1, 1, 2, 2, 1].map(&mut zeroised), [0, 0, 2, 0, 2]);
}

#[test]
fn answers_to_one_prompt_compute_it_once_and_share_its_whole_pages() {
    for prefix_cache in [true, false] {
        let mut scheduler = Scheduler::new(SchedulerConfig { prefix_cache, ..CONFIG });
        let first = scheduler.add(spec(1, 40, 4)).unwrap();
        let second = scheduler.add(SequenceSpec { same_prompt_as: Some(first), ..spec(1, 40, 4) }).unwrap();
        let (mut starts, mut copies) = (Vec::new(), Vec::new());
        while !scheduler.is_idle() {
            let plan = step(&mut scheduler);
            starts.extend(
                plan.entries.iter().filter(|entry| entry.sequence == second).map(|entry| entry.start),
            );
            copies.extend(plan.copies);
        }
        assert_eq!(starts[0], 39, "all but the last token of the prompt is there");
        assert_eq!(copies.len(), 1, "the page that is not whole is copied");
        assert_eq!(scheduler.pool().n_free(), 8);
        assert_eq!(scheduler.pool().n_cached(), if prefix_cache { 2 } else { 0 });
    }
}

#[test]
fn who_waits_for_a_prompt_goes_on_when_its_sequence_is_gone() {
    let mut scheduler = Scheduler::new(CONFIG);
    let first = scheduler.add(spec(1, 40, 4)).unwrap();
    let second = scheduler.add(SequenceSpec { same_prompt_as: Some(first), ..spec(1, 40, 1) }).unwrap();
    step(&mut scheduler);
    assert!(scheduler.cancel(first));
    assert_eq!(shape(&step(&mut scheduler)), [(second, 0, 7)]);
    run(&mut scheduler);
}

#[test]
fn a_stop_ends_the_sequence_and_frees_its_pages() {
    let mut scheduler = Scheduler::new(CONFIG);
    let id = scheduler.add(spec(1, 3, 50)).unwrap();
    let (_, events) = run_step(&mut scheduler, BUDGET, 3);
    assert_eq!(events, [Event::Finished { sequence: id, reason: FinishReason::Stop, n_cached: 0 }]);
    assert_eq!(scheduler.pool().n_free(), 8);
}

#[test]
fn a_sequence_that_is_cancelled_within_a_step_returns_its_pages_with_it() {
    let mut scheduler = Scheduler::new(CONFIG);
    let id = scheduler.add(spec(1, 3, 50)).unwrap();
    let plan = scheduler.schedule(BUDGET);
    assert!(plan.entries[0].samples && scheduler.cancel(id) && !scheduler.cancel(id));
    assert_eq!(scheduler.pool().n_free(), 7, "the step may still write to its page");
    assert_eq!(scheduler.commit(&[]), []);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.pool().n_free(), 8);
}

#[test]
fn a_deadline_ends_a_sequence_wherever_it_is() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_sequences_max: 1, ..CONFIG });
    let late = |salt, deadline| SequenceSpec { deadline: Some(deadline), ..spec(salt, 3, 9) };
    let running = scheduler.add(late(1, 20)).unwrap();
    let waiting = scheduler.add(late(2, 10)).unwrap();
    step(&mut scheduler);
    let end = |sequence| Event::Finished { sequence, reason: FinishReason::Deadline, n_cached: 0 };
    assert_eq!(scheduler.expire(9), []);
    assert_eq!(scheduler.expire(10), [end(waiting)]);
    assert_eq!(scheduler.expire(25), [end(running)]);
    assert!(scheduler.is_idle());
    scheduler.check().unwrap();
}

#[test]
fn when_pages_run_out_the_youngest_of_the_lowest_priority_gives_way() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_blocks: 7, ..CONFIG });
    let add = |scheduler: &mut Scheduler, salt, priority| {
        scheduler.add(SequenceSpec { priority, ..spec(salt, 10, 60) }).unwrap()
    };
    let high = add(&mut scheduler, 1, Priority::High);
    let old = add(&mut scheduler, 2, Priority::Normal);
    let young = add(&mut scheduler, 3, Priority::Normal);
    let mut preempted = Vec::new();
    let mut runs = [high, old, young].map(|id| (id, false));
    while !scheduler.is_idle() {
        step(&mut scheduler);
        for (id, was_running) in &mut runs {
            let slot = scheduler.sequences.slot(*id);
            let is_running = slot.is_some_and(|slot| scheduler.sequences[slot].state == State::Running);
            if *was_running && !is_running && slot.is_some() {
                preempted.push(*id);
            }
            *was_running = is_running;
        }
    }
    assert_eq!(preempted[..2], [young, old]);
    assert!(!preempted.contains(&high));
    assert_eq!(scheduler.pool().n_free(), 7);
}

#[test]
fn cached_prefixes_are_given_up_before_anybody_is_preempted() {
    let mut scheduler = Scheduler::new(CONFIG);
    scheduler.add(spec(1, 60, 2)).unwrap();
    run(&mut scheduler);
    assert_eq!(scheduler.pool().n_cached(), 3);
    scheduler.add(spec(2, 60, 60)).unwrap();
    run(&mut scheduler);
    assert_eq!(scheduler.n_preempted(), 0);
}

#[test]
fn who_asks_for_much_does_not_hold_up_another() {
    // One principal has every place, every page and a long queue.
    let config = SchedulerConfig { n_blocks: 40, n_sequences_max: 4, chunk_tokens_max: 20, ..CONFIG };
    let mut scheduler = Scheduler::new(config);
    for salt in 0..50 {
        scheduler.add(SequenceSpec { client: client(1), ..spec(10 + salt, 100, 50) }).unwrap();
    }
    for _ in 0..37 {
        step(&mut scheduler);
    }
    let victim = scheduler.add(SequenceSpec { client: client(2), ..spec(1, 19, 5) }).unwrap();
    let plan = step(&mut scheduler);
    let mine = plan.entries.iter().find(|entry| entry.sequence == victim).unwrap();
    assert!(mine.start + mine.tokens.len() >= 17, "only those that generate come before it: {mine:?}");
    step(&mut scheduler);
    assert!(scheduler.tokens(victim).unwrap().len() > 19, "it has its first token");
    run(&mut scheduler);
}

#[test]
fn a_sequence_that_needs_many_pages_gets_them_although_others_keep_coming() {
    let config = SchedulerConfig { n_blocks: 16, n_sequences_max: 4, ..CONFIG };
    let mut scheduler = Scheduler::new(config);
    let big = scheduler.add(SequenceSpec { client: client(2), ..spec(1, 200, 40) }).unwrap();
    for n in 0..4000 {
        if scheduler.tokens(big).is_none() {
            return;
        }
        let (_, waiting) = scheduler.n_sequences();
        if waiting < 4 {
            scheduler.add(SequenceSpec { client: client(1), ..spec(10 + n, 30, 20) }).unwrap();
        }
        step(&mut scheduler);
    }
    panic!("it never ends");
}

#[test]
fn a_principal_has_no_more_than_its_limits() {
    let config = SchedulerConfig {
        n_sequences_per_principal_max: 2,
        n_waiting_per_principal_max: 3,
        n_blocks_per_principal_max: 4,
        ..CONFIG
    };
    let mut scheduler = Scheduler::new(config);
    for salt in 0..3 {
        scheduler.add(SequenceSpec { client: client(1), ..spec(salt, 10, 40) }).unwrap();
    }
    let refused = scheduler.add(SequenceSpec { client: client(1), ..spec(9, 10, 40) });
    assert_eq!(refused, Err(AdmissionError::PrincipalQueueFull { waiting: 3 }));
    scheduler.add(SequenceSpec { client: client(2), ..spec(9, 10, 40) }).unwrap();
    step(&mut scheduler);
    assert_eq!(scheduler.n_sequences(), (3, 1), "two of the first principal and one of the second");
    run(&mut scheduler);
}

#[test]
fn a_paused_sequence_stands_still_and_holds_up_nobody() {
    let mut scheduler = Scheduler::new(CONFIG);
    let first = scheduler.add(spec(1, 3, 20)).unwrap();
    step(&mut scheduler);
    assert!(scheduler.set_paused(first, true) && !scheduler.is_runnable());
    assert!(step(&mut scheduler).entries.is_empty());
    let second = scheduler.add(spec(2, 3, 2)).unwrap();
    assert!(scheduler.is_runnable());
    while scheduler.is_runnable() {
        assert!(step(&mut scheduler).entries.iter().all(|entry| entry.sequence == second));
    }
    assert_eq!(scheduler.tokens(first).map(<[_]>::len), Some(4));
    scheduler.set_paused(first, false);
    run(&mut scheduler);
    assert_eq!(scheduler.pool().n_free(), 8);
}

#[test]
fn paused_sequences_give_their_places_up() {
    let mut scheduler = Scheduler::new(SchedulerConfig { n_sequences_max: 1, ..CONFIG });
    let first = scheduler.add(spec(1, 3, 20)).unwrap();
    step(&mut scheduler);
    scheduler.set_paused(first, true);
    let second = scheduler.add(spec(2, 3, 2)).unwrap();
    assert_eq!(shape(&step(&mut scheduler)), [(second, 0, 3)]);
    step(&mut scheduler);
    assert!(!scheduler.is_runnable() && !scheduler.is_idle());
    scheduler.set_paused(first, false);
    assert_eq!(scheduler.tokens(first).map(<[_]>::len), Some(4), "what was drawn stays");
    run(&mut scheduler);
}
