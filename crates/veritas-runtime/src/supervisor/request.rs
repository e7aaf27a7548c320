//! A request as the supervisor sees it.

use std::time::{Duration, Instant};

use veritas_proto::{Frame, Kind, Message, limits, v1};

use super::core::SessionKey;
use super::model_state::Work;
use crate::failure::Failure;

/// What a client asks of a model.
pub(crate) enum Ask {
    Generate(Box<Generate>),
    Tokenize { model: String },
    Detokenize { model: String },
    Embed { model: String },
}

/// What the supervisor needs to know of a request to generate; its prompt stays in the body.
pub(crate) struct Generate {
    model: String,
    n_choices: u32,
    stream: bool,
    priority: v1::Priority,
    deadline_ms: u64,
    credit: u32,
}

impl Ask {
    /// Reads the body of a frame.
    pub(crate) fn read(frame: &Frame) -> Result<Self, Failure> {
        Ok(match frame.kind {
            Kind::GENERATE => {
                let wire: v1::GenerateRequest = frame.message()?;
                Self::Generate(Box::new(Generate {
                    n_choices: wire.n_choices.max(1),
                    stream: wire.stream,
                    priority: wire.priority(),
                    deadline_ms: wire.deadline_ms,
                    credit: match wire.credit {
                        0 => limits::CREDIT_DEFAULT,
                        credit => credit.min(limits::CREDIT_MAX),
                    },
                    model: wire.model,
                }))
            }
            Kind::TOKENIZE => Self::Tokenize { model: frame.message::<v1::TokenizeRequest>()?.model },
            Kind::DETOKENIZE => Self::Detokenize { model: frame.message::<v1::DetokenizeRequest>()?.model },
            _ => Self::Embed { model: frame.message::<v1::EmbedRequest>()?.model },
        })
    }

    pub(crate) fn model(&self) -> &str {
        match self {
            Self::Generate(generate) => &generate.model,
            Self::Tokenize { model } | Self::Detokenize { model } | Self::Embed { model } => model,
        }
    }

    /// Sequences that it occupies in the worker's batch.
    pub(crate) fn n_sequences(&self) -> u32 {
        match self {
            Self::Generate(generate) => generate.n_choices,
            _ => 0,
        }
    }

    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Generate(generate) if generate.stream)
    }

    pub(crate) fn priority(&self) -> v1::Priority {
        match self {
            Self::Generate(generate) => generate.priority,
            // They cost next to nothing, and somebody waits for them to go on.
            _ => v1::Priority::Critical,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Generate(generate) if generate.deadline_ms > 0 => {
                Some(Duration::from_millis(generate.deadline_ms))
            }
            _ => None,
        }
    }

    fn credit(&self) -> u32 {
        match self {
            Self::Generate(generate) => generate.credit,
            _ => 0,
        }
    }
}

/// Who has a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The supervisor: it waits for its turn, or the worker has let go of it.
    Queued,
    /// The worker.
    Running,
}

pub(crate) struct Request {
    /// The client; `None` when it is gone, or has been told an error.
    pub(crate) session: Option<SessionKey>,
    pub(crate) client_id: u64,
    pub(crate) model: String,
    pub(crate) principal: String,
    pub(crate) ask: Ask,
    pub(crate) kind: Kind,
    /// As the client sent it, and as it goes to the worker; kept to be sent again.
    pub(crate) body: Vec<u8>,
    pub(crate) stage: Stage,
    pub(crate) retried: bool,
    /// Whether the client has been sent a part of the answer.
    pub(crate) streamed: bool,
    pub(crate) cancelled: bool,
    /// Whether its failure has been counted.
    pub(crate) counted: bool,
    pub(crate) credit: u32,
    pub(crate) pending: v1::Delta,
    pub(crate) paused: bool,
    pub(crate) stalled_since: Option<Instant>,
    pub(crate) finish: Option<v1::Finish>,
    pub(crate) submitted: Instant,
    pub(crate) sent: Option<Instant>,
    pub(crate) first_delta: Option<Instant>,
    pub(crate) last_delta: Option<Instant>,
    /// Tokens of deltas that have been counted.
    pub(crate) n_delta_tokens: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
}

impl Request {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        session: SessionKey,
        client_id: u64,
        model: String,
        principal: String,
        ask: Ask,
        frame: Frame,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Self {
        Self {
            session: Some(session),
            client_id,
            model,
            principal,
            kind: frame.kind,
            body: frame.body,
            stage: Stage::Queued,
            retried: false,
            streamed: false,
            cancelled: false,
            counted: false,
            credit: ask.credit(),
            ask,
            pending: v1::Delta::default(),
            paused: false,
            stalled_since: None,
            finish: None,
            submitted: now,
            sent: None,
            first_delta: None,
            last_delta: None,
            n_delta_tokens: 0,
            timeout,
            deadline: timeout.and_then(|timeout| now.checked_add(timeout)),
        }
    }

    /// What it asks of a worker.
    pub(crate) fn work(&self) -> Work {
        Work {
            principal: self.principal.clone(),
            priority: self.ask.priority(),
            n_sequences: self.ask.n_sequences() as usize,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Puts a delta behind what waits to be sent.
    ///
    /// # Errors
    /// If it is of an answer that was not asked for.
    pub(crate) fn merge(&mut self, delta: v1::Delta) -> Result<(), Failure> {
        for choice in delta.choices {
            if choice.index >= self.ask.n_sequences() {
                return Err(Failure::internal("the worker sent an answer that was not asked for"));
            }
            match self.pending.choices.iter_mut().find(|waiting| waiting.index == choice.index) {
                None => self.pending.choices.push(choice),
                Some(waiting) => {
                    waiting.text.push_str(&choice.text);
                    waiting.ids.extend(choice.ids);
                    waiting.logprobs.extend(choice.logprobs);
                    waiting.top_logprobs.extend(choice.top_logprobs);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.encoded_len()
    }

    /// The end of a request that the worker has nothing of.
    pub(crate) fn cancelled_finish(&self) -> v1::Finish {
        let reason = v1::FinishReason::FinishCancelled.into();
        let choices = (0..self.ask.n_sequences()).map(|index| v1::Choice {
            index,
            finish_reason: reason,
            ..v1::Choice::default()
        });
        v1::Finish {
            choices: choices.collect(),
            usage: Some(v1::Usage::default()),
            timings: Some(v1::Timings::default()),
            ..v1::Finish::default()
        }
    }
}
