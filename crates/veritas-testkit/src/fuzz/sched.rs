//! What must hold for any sequence of calls to the scheduler.

use veritas_sched::{Scheduler, SchedulerConfig, SequenceId, SequenceSpec, StepOutput};

const CONFIG: SchedulerConfig = SchedulerConfig {
    n_blocks: 8,
    n_sequences_max: 3,
    n_waiting_max: 4,
    step_tokens_max: 20,
    chunk_tokens_max: 7,
};

/// Steps after which everything that was taken must have ended: more than all pages hold tokens for all who may wait.
const STEPS_MAX: usize = 2000;

/// Takes the bytes as calls (two bytes each), checks the invariants after each, and runs what is left to its end.
///
/// # Panics
/// If an invariant is broken or something never ends.
pub fn check(bytes: &[u8]) {
    let mut scheduler = Scheduler::new(CONFIG);
    let mut last: Option<(SequenceId, usize)> = None;
    for call in bytes.as_chunks::<2>().0 {
        let [kind, value] = call.map(usize::from);
        match kind % 4 {
            0 => {
                let twin = last.filter(|_| kind > 127);
                let n_prompt = twin.map_or(value % 80, |(_, len)| len);
                let spec = SequenceSpec {
                    prompt: (0..n_prompt as u32).collect(),
                    n_new_max: kind / 4,
                    same_prompt_as: twin.map(|(id, _)| id),
                };
                last = scheduler.add(spec).ok().map(|id| (id, n_prompt)).or(last);
            }
            1 => {
                scheduler.cancel(SequenceId(value as u64));
            }
            _ => step(&mut scheduler, value),
        }
        scheduler.check().expect("the invariants hold after every call");
    }
    for _ in 0..STEPS_MAX {
        step(&mut scheduler, usize::MAX);
    }
    assert!(scheduler.is_idle(), "a sequence never ends");
    assert_eq!(scheduler.pool().n_free(), CONFIG.n_blocks as usize, "pages are lost");
}

/// One step in which a sequence stops once it knows `stop_at` tokens.
fn step(scheduler: &mut Scheduler, stop_at: usize) {
    let plan = scheduler.schedule();
    let n_tokens = plan.entries.iter().map(|entry| entry.tokens.len()).sum::<usize>();
    assert!(n_tokens <= CONFIG.step_tokens_max, "the plan is beyond its budget");
    let outputs = plan.entries.iter().filter(|entry| entry.samples).map(|entry| {
        let known = entry.start + entry.tokens.len();
        StepOutput { sequence: entry.sequence, token: known as u32, stop: known == stop_at }
    });
    let outputs = outputs.collect::<Vec<_>>();
    scheduler.commit(&outputs);
}
