//! A model as the supervisor sees it: its worker, its queue, what is known of it.

use std::collections::{BTreeSet, VecDeque};
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
    queues: [VecDeque<u64>; PRIORITIES.len()],
    in_hand: BTreeSet<u64>,
    /// Sequences of the requests in hand.
    pub(crate) n_sequences: usize,
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
            queues: Default::default(),
            in_hand: BTreeSet::new(),
            n_sequences: 0,
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

    fn queue_mut(&mut self, priority: v1::Priority) -> &mut VecDeque<u64> {
        let index = PRIORITIES.iter().position(|&known| known == priority);
        &mut self.queues[index.unwrap_or(2)]
    }

    pub(crate) fn enqueue(&mut self, id: u64, priority: v1::Priority) {
        self.queue_mut(priority).push_back(id);
    }

    /// Puts a request at the front: it has waited already.
    pub(crate) fn requeue(&mut self, id: u64, priority: v1::Priority) {
        self.queue_mut(priority).push_front(id);
    }

    pub(crate) fn n_queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn next_queued(&self) -> Option<u64> {
        self.queues.iter().find_map(|queue| queue.front().copied())
    }

    pub(crate) fn drop_queued(&mut self, id: u64) {
        self.queues.iter_mut().for_each(|queue| queue.retain(|&queued| queued != id));
    }

    pub(crate) fn take_queue(&mut self) -> Vec<u64> {
        self.queues.iter_mut().flat_map(std::mem::take).collect()
    }

    // --------------------------------------------------------------------------------------------------- worker

    pub(crate) fn start(&mut self, id: u64, n_sequences: usize) {
        self.in_hand.insert(id);
        self.n_sequences += n_sequences;
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.in_hand.contains(&id)
    }

    pub(crate) fn n_in_hand(&self) -> usize {
        self.in_hand.len()
    }

    /// The worker has let go of a request, if it had it.
    pub(crate) fn end(&mut self, id: u64, n_sequences: usize) {
        if self.in_hand.remove(&id) {
            self.n_sequences -= n_sequences;
        }
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
        self.pong = Pong::default();
        self.outbox.clear();
        self.n_sequences = 0;
        std::mem::take(&mut self.in_hand).into_iter().collect()
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
