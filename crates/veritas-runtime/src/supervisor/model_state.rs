//! A model as the supervisor sees it: its worker, its queue, what is known of it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use veritas_proto::v1;
use veritas_sandbox::Report;

use super::request::Request;
use crate::failure::{Code, Failure};
use crate::link::{Loaded, Pong};

/// What a model is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its first worker is being started.
    Loading,
    /// Its worker serves.
    Ready,
    /// Its worker died, and another follows.
    Restarting,
    /// It has no worker, and gets one when it is asked for.
    Unloaded,
    /// Its workers died too often.
    Quarantined,
    /// It cannot be loaded.
    Failed,
}

impl Phase {
    /// The word that users see.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Unloaded => "unloaded",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        }
    }
}

/// What is asked of the task that keeps a model's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The model is not wanted now.
    Unload,
    /// The model is not wanted any more.
    Remove,
}

/// Priorities, the most urgent first.
const PRIORITIES: [v1::Priority; 4] =
    [v1::Priority::Critical, v1::Priority::High, v1::Priority::Normal, v1::Priority::Low];

fn place_of(priority: v1::Priority) -> usize {
    PRIORITIES.iter().position(|&known| known == priority).unwrap_or(2)
}

/// What a request asks of a worker, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) principal: String,
    pub(crate) priority: v1::Priority,
    pub(crate) n_sequences: usize,
}

pub(crate) struct ModelState {
    pub(crate) path: Option<PathBuf>,
    pub(crate) file_bytes: u64,
    pub(crate) digest: Option<String>,
    pub(crate) max_sequences: usize,
    pub(crate) phase: Phase,
    /// Why the phase is what it is, where something went wrong.
    pub(crate) reason: Option<Failure>,
    pub(crate) pid: Option<u32>,
    pub(crate) report: Option<Report>,
    /// What is known of the model, from when it was first loaded.
    pub(crate) loaded: Option<Loaded>,
    /// Whether the present worker has loaded it.
    pub(crate) is_loaded: bool,
    pub(crate) no_digest: bool,
    pub(crate) restarts: u32,
    pub(crate) deaths_in_row: u32,
    pub(crate) ready_since: Option<Instant>,
    pub(crate) last_used: Instant,
    pub(crate) idle_unload: Option<Duration>,
    pub(crate) pong: Pong,
    pub(crate) pong_at: Instant,
    pub(crate) stop: Option<Stop>,
    /// Bytes for the worker.
    pub(crate) outbox: Vec<u8>,
    preempted_before: u64,
    /// Requests that wait and their sequences, by principal and priority.
    queues: BTreeMap<String, [VecDeque<(u64, usize)>; PRIORITIES.len()]>,
    in_hand: BTreeMap<u64, Work>,
    /// Sequences of the requests in hand, by principal and priority.
    windows: BTreeMap<String, [usize; PRIORITIES.len()]>,
}

impl ModelState {
    pub(crate) fn new(
        path: Option<PathBuf>,
        file_bytes: u64,
        max_sequences: usize,
        idle_unload: Option<Duration>,
        no_digest: bool,
        now: Instant,
    ) -> Self {
        Self {
            path,
            file_bytes,
            digest: None,
            max_sequences,
            phase: Phase::Loading,
            reason: None,
            pid: None,
            report: None,
            loaded: None,
            is_loaded: false,
            no_digest,
            restarts: 0,
            deaths_in_row: 0,
            ready_since: None,
            last_used: now,
            idle_unload,
            pong: Pong::default(),
            pong_at: now,
            stop: None,
            outbox: Vec::new(),
            preempted_before: 0,
            queues: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            windows: BTreeMap::new(),
        }
    }

    /// Whether a request may wait for this model.
    pub(crate) fn accepts(&self) -> Result<(), Failure> {
        let reason = || self.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        match self.phase {
            Phase::Loading | Phase::Ready | Phase::Restarting | Phase::Unloaded => Ok(()),
            Phase::Quarantined => Err(Failure::new(
                Code::ModelQuarantined,
                format!("the model is quarantined, since its worker died too often: {}", reason()),
            )),
            Phase::Failed => {
                Err(self.reason.clone().unwrap_or_else(|| Failure::internal("the model could not be loaded")))
            }
        }
    }

    /// Whether the model waits for its digest.
    pub(crate) fn lacks_digest(&self) -> bool {
        self.digest.is_none() && !self.no_digest
    }

    /// Whether the model is unloaded when nobody asks for it.
    pub(crate) fn may_be_unloaded(&self) -> bool {
        self.idle_unload.is_some()
    }

    /// Whether nobody has asked for the model for as long as it is kept.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        let is_unused = self.phase == Phase::Ready && self.in_hand.is_empty() && self.n_queued() == 0;
        is_unused && self.idle_unload.is_some_and(|most| now - self.last_used >= most)
    }

    // ---------------------------------------------------------------------------------------------------- queue

    pub(crate) fn enqueue(&mut self, id: u64, work: Work) {
        self.queue_mut(&work).push_back((id, work.n_sequences));
    }

    /// Puts a request at the front: it has waited already.
    pub(crate) fn requeue(&mut self, id: u64, work: Work) {
        self.queue_mut(&work).push_front((id, work.n_sequences));
    }

    fn queue_mut(&mut self, work: &Work) -> &mut VecDeque<(u64, usize)> {
        let queues = self.queues.entry(work.principal.clone()).or_default();
        &mut queues[place_of(work.priority)]
    }

    pub(crate) fn n_queued(&self) -> usize {
        self.queues.values().flatten().map(VecDeque::len).sum()
    }

    pub(crate) fn n_queued_of(&self, principal: &str) -> usize {
        self.queues.get(principal).map_or(0, |queues| queues.iter().map(VecDeque::len).sum())
    }

    /// Whether the worker has a request of the principal.
    pub(crate) fn has_work_of(&self, principal: &str) -> bool {
        self.in_hand.values().any(|work| work.principal == principal)
    }

    /// The request that the worker gets next: the most urgent, of equals the oldest, of those whose principal has room.
    pub(crate) fn next_queued(&self) -> Option<u64> {
        (0..PRIORITIES.len()).find_map(|place| {
            let fronts = self.queues.iter().filter_map(|(principal, queues)| {
                let &(id, n_sequences) = queues[place].front()?;
                self.has_room(principal, place, n_sequences).then_some(id)
            });
            fronts.min()
        })
    }

    /// Whether a principal may have so many sequences more in the worker: as many as it computes together, those of lower
    /// priority not counted. The worker's scheduler decides whose turn it is, also between principals.
    fn has_room(&self, principal: &str, place: usize, n_sequences: usize) -> bool {
        let in_hand = self.windows.get(principal).map_or(0, |window| window[..=place].iter().sum());
        in_hand == 0 || in_hand + n_sequences <= self.max_sequences
    }

    pub(crate) fn drop_queued(&mut self, id: u64) {
        self.queues.retain(|_, queues| {
            queues.iter_mut().for_each(|queue| queue.retain(|&(queued, _)| queued != id));
            queues.iter().any(|queue| !queue.is_empty())
        });
    }

    pub(crate) fn take_queue(&mut self) -> Vec<u64> {
        let queues = std::mem::take(&mut self.queues);
        let mut ids = queues.into_values().flatten().flatten().map(|(id, _)| id).collect::<Vec<_>>();
        ids.sort_unstable();
        ids
    }

    // --------------------------------------------------------------------------------------------------- worker

    pub(crate) fn start(&mut self, id: u64, work: Work) {
        let window = self.windows.entry(work.principal.clone()).or_default();
        window[place_of(work.priority)] += work.n_sequences;
        self.in_hand.insert(id, work);
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.in_hand.contains_key(&id)
    }

    pub(crate) fn n_in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// The worker has let go of a request, if it had it.
    pub(crate) fn end(&mut self, id: u64) {
        let Some(work) = self.in_hand.remove(&id) else { return };
        if let Some(window) = self.windows.get_mut(&work.principal) {
            window[place_of(work.priority)] -= work.n_sequences;
            if window.iter().all(|&n_sequences| n_sequences == 0) {
                self.windows.remove(&work.principal);
            }
        }
    }

    /// How many times a sequence lost its pages to another, in any worker of this model.
    pub(crate) fn n_preempted(&self) -> usize {
        (self.preempted_before + self.pong.preempted) as usize
    }

    /// The worker is gone; returns the requests that it had in hand, in the order in which they came.
    pub(crate) fn lose_worker(&mut self, why: &Failure, now: Instant) -> Vec<u64> {
        // A worker that has served for a while did not die in a row with the one before.
        const GOOD_WHILE: Duration = Duration::from_secs(60);
        if self.ready_since.is_some_and(|since| now - since >= GOOD_WHILE) {
            self.deaths_in_row = 0;
        }
        self.reason = Some(why.clone());
        self.pid = None;
        self.ready_since = None;
        self.is_loaded = false;
        self.preempted_before += self.pong.preempted;
        self.pong = Pong::default();
        self.outbox.clear();
        self.windows.clear();
        std::mem::take(&mut self.in_hand).into_keys().collect()
    }

    /// Adds to an answer what the worker does not know.
    pub(crate) fn complete(&self, finish: &mut v1::Finish, request: &Request) {
        finish.model_digest = self.digest.clone().unwrap_or_default();
        let loaded = self.loaded.as_ref();
        let timings = finish.timings.get_or_insert_default();
        timings.load_ms = loaded.map_or(0.0, |loaded| loaded.load_ms);
        timings.queue_ms = request.sent.map_or(0.0, |sent| (sent - request.submitted).as_secs_f64() * 1e3);
        finish.effective = Some(v1::Effective {
            isa: loaded.map(|loaded| loaded.isa.clone()).unwrap_or_default(),
            threads: loaded.map_or(0, |loaded| loaded.threads as u32),
            sandbox: self.report.as_ref().map(layer_states).unwrap_or_default(),
        });
    }

    /// The model as clients see it.
    pub(crate) fn describe(&self, name: &str) -> v1::Model {
        let loaded = self.loaded.clone().unwrap_or_default();
        let is_well = matches!(self.phase, Phase::Ready | Phase::Loading | Phase::Unloaded);
        v1::Model {
            name: name.to_owned(),
            digest: self.digest.clone().unwrap_or_default(),
            version: String::new(),
            state: self.phase.name().to_owned(),
            worker: Some(v1::Worker {
                pid: self.pid,
                rss_bytes: self.pid.map_or(0, super::status::rss_bytes_of),
                restarts: self.restarts,
                sandbox: self.report.as_ref().map(layer_states).unwrap_or_default(),
                sandbox_reasons: self.report.as_ref().map(layer_reasons).unwrap_or_default(),
            }),
            file_bytes: self.file_bytes,
            architecture: loaded.architecture,
            n_context: loaded.n_context as u64,
            n_params: loaded.n_params,
            reason: self.reason.as_ref().filter(|_| !is_well).map(ToString::to_string).unwrap_or_default(),
            path: self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            n_vocab: loaded.n_vocab as u64,
            has_chat_template: loaded.has_chat_template,
        }
    }
}

/// The states of a sandbox's layers, by name.
pub(crate) fn layer_states(report: &Report) -> std::collections::BTreeMap<String, String> {
    report.iter().map(|(layer, state, _)| (layer.name().to_owned(), state.name().to_owned())).collect()
}

fn layer_reasons(report: &Report) -> std::collections::BTreeMap<String, String> {
    let reasons = report.iter().filter_map(|(layer, _, reason)| Some((layer.name(), reason?)));
    reasons.map(|(layer, reason)| (layer.to_owned(), reason.to_owned())).collect()
}
