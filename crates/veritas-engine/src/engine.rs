//! Requests: prompts in, tokens and text out, several at once.

use std::collections::HashMap;
use std::sync::Arc;

use veritas_base::TokenId;
use veritas_sched::{Client, Event, FinishReason as SequenceEnd, Priority, SequenceId, SequenceSpec};
use veritas_tokenizer::{StreamDecoder, Tokenizer};

use crate::error::Error;
use crate::model::{EngineVocabulary, Model};
use crate::runner::{Drawn, LogitsRow, Occupancy, Runner, RunnerConfig};
use crate::sampler::{Sampled, Sampler, SamplingParams, StopMatcher, TokenLogprobs, token_logprobs};

/// Names a request; never used twice by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tokens to continue.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn, when to stop, which log-probabilities to report. Unless the parameters are greedy, the seed
    /// must be set. Without `max_tokens` the answer may fill the context.
    pub sampling: SamplingParams,
    /// Answers to give.
    pub n_choices: u32,
    /// Whether the log-probabilities of the prompt's tokens are reported.
    pub prompt_logprobs: bool,
    /// For whom it is computed.
    pub client: Client,
    /// How urgently.
    pub priority: Priority,
    /// When it fails unanswered, in the unit of [`Engine::expire`].
    pub deadline: Option<u64>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string appeared.
    Stop,
    /// The number of tokens that was asked for, or the context, is full.
    Length,
}

impl FinishReason {
    /// The word that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// What an engine tells while it works.
#[derive(Debug)]
pub enum Output {
    /// The log-probability of a token of the prompt (any but the first).
    PromptLogprob {
        /// The request.
        request: RequestId,
        /// Log-probability of the token, and the most likely ones at its position.
        logprobs: TokenLogprobs,
    },
    /// A token was drawn.
    Token {
        /// The request.
        request: RequestId,
        /// Which answer.
        choice: u32,
        /// The token.
        token: Sampled,
        /// Text that is certain now: whole characters, and no beginning of a stop string. It may be empty.
        text: String,
    },
    /// An answer ended.
    Finished {
        /// The request.
        request: RequestId,
        /// Which answer.
        choice: u32,
        /// Why.
        reason: FinishReason,
        /// Text that was held back until now.
        text: String,
        /// Tokens of the prompt that were found in the cache, and not computed for this answer.
        cached_tokens: usize,
    },
    /// A request failed; none of its answers goes on. Other requests are not affected.
    Failed {
        /// The request.
        request: RequestId,
        /// Why, for example because the model computed what is no number.
        error: Error,
    },
}

impl Output {
    /// The request that it belongs to.
    pub fn request(&self) -> RequestId {
        match self {
            Self::PromptLogprob { request, .. }
            | Self::Token { request, .. }
            | Self::Finished { request, .. }
            | Self::Failed { request, .. } => *request,
        }
    }
}

struct Choice {
    request: RequestId,
    index: u32,
    n_prompt: usize,
    sampler: Sampler,
    decoder: StreamDecoder<Arc<Tokenizer>>,
    stops: StopMatcher,
    stopped: bool,
    failed: bool,
    prompt_logprobs: bool,
    n_top: usize,
}

/// Answers requests with one model.
pub struct Engine {
    runner: Runner,
    vocabulary: EngineVocabulary,
    choices: HashMap<SequenceId, Choice>,
    next_request: u64,
}

impl Engine {
    /// Reserves the KV cache and starts the threads.
    ///
    /// # Errors
    /// As [`Runner::new`].
    pub fn new(model: Arc<Model>, config: &RunnerConfig) -> Result<Self, Error> {
        let vocabulary = EngineVocabulary::new(&model);
        Ok(Self { runner: Runner::new(model, config)?, vocabulary, choices: HashMap::new(), next_request: 0 })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.runner.model()
    }

    /// Tokens that prompt and answer may have together.
    pub fn n_context(&self) -> usize {
        self.runner.n_context()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// If its parameters make no sense or its prompt does not fit.
    pub fn submit(&mut self, request: &Request) -> Result<RequestId, Error> {
        let id = RequestId(self.next_request);
        let context = self.n_context();
        let n_prompt = request.prompt.len();
        let n_new_max = match request.sampling.max_tokens {
            Some(max) => max as usize,
            None if n_prompt >= context => return Err(Error::ContextExceeded { prompt: n_prompt, context }),
            None => context - n_prompt,
        };
        self.next_request += 1;
        let mut first = None;
        for index in 0..request.n_choices.max(1) {
            match self.add_choice(id, request, index, n_new_max, first) {
                Ok(sequence) => first = first.or(Some(sequence)),
                Err(error) => {
                    // A request is taken whole or not at all.
                    self.cancel(id);
                    return Err(error);
                }
            }
        }
        Ok(id)
    }

    fn add_choice(
        &mut self,
        id: RequestId,
        request: &Request,
        index: u32,
        n_new_max: usize,
        same_prompt_as: Option<SequenceId>,
    ) -> Result<SequenceId, Error> {
        let tokenizer = Arc::clone(self.runner.model().tokenizer());
        let prompt_logprobs = request.prompt_logprobs && index == 0;
        let choice = Choice {
            request: id,
            index,
            n_prompt: request.prompt.len(),
            sampler: Sampler::new(request.sampling.clone(), &self.vocabulary, index)?,
            decoder: StreamDecoder::after(tokenizer, false, &request.prompt)?,
            stops: StopMatcher::new(&request.sampling.stop)?,
            stopped: false,
            failed: false,
            prompt_logprobs,
            n_top: request.sampling.logprobs.unwrap_or(0) as usize,
        };
        let spec = SequenceSpec {
            same_prompt_as,
            client: request.client,
            priority: request.priority,
            deadline: request.deadline,
            ..SequenceSpec::new(request.prompt.clone(), n_new_max)
        };
        let sequence = self.runner.add(spec, prompt_logprobs)?;
        self.choices.insert(sequence, choice);
        Ok(sequence)
    }

    /// Ends the requests whose deadline is not after `now`, as [`Output::Failed`].
    pub fn expire(&mut self, now: u64, tell: &mut dyn FnMut(Output)) {
        for Event::Finished { sequence, .. } in self.runner.expire(now) {
            if let Some(choice) = self.choices.remove(&sequence) {
                self.cancel(choice.request);
                tell(Output::Failed { request: choice.request, error: Error::DeadlineExceeded });
            }
        }
    }

    /// Ends a request now, without further output.
    pub fn cancel(&mut self, id: RequestId) {
        let sequences =
            self.choices.iter().filter(|(_, choice)| choice.request == id).map(|(sequence, _)| *sequence);
        for sequence in sequences.collect::<Vec<_>>() {
            self.runner.cancel(sequence);
            self.choices.remove(&sequence);
        }
    }

    /// Lets a request stand still, or go on.
    pub fn set_paused(&mut self, id: RequestId, paused: bool) {
        for (sequence, _) in self.choices.iter().filter(|(_, choice)| choice.request == id) {
            self.runner.set_paused(*sequence, paused);
        }
    }

    /// How much of the engine is in use.
    pub fn occupancy(&self) -> Occupancy {
        self.runner.occupancy()
    }

    /// Whether a step would compute something: a request is neither answered nor paused.
    pub fn is_runnable(&self) -> bool {
        self.runner.is_runnable()
    }

    /// Whether every request is answered.
    pub fn is_idle(&self) -> bool {
        self.runner.is_idle()
    }

    /// Computes one step and tells what it gave; `false` if there was nothing to compute, since every request is
    /// answered or paused.
    ///
    /// # Errors
    /// If a stage fails. The engine is of no use afterwards. What concerns one request alone is told as
    /// [`Output::Failed`].
    pub fn step(&mut self, tell: &mut dyn FnMut(Output)) -> Result<bool, Error> {
        let Self { runner, choices, .. } = self;
        let tokenizer = Arc::clone(runner.model().tokenizer());
        let mut failures = Vec::new();
        let events = runner.step(&mut |row| {
            let choice = choices.get_mut(&row.sequence);
            let choice = choice.ok_or(Error::Internal { what: "a step runs the sequences of requests" })?;
            let taken = if choice.failed { Ok(None) } else { choice.take_row(&row, &tokenizer, tell) };
            Ok(taken
                .unwrap_or_else(|error| {
                    choice.failed = true;
                    failures.push((choice.request, error));
                    None
                })
                // The scheduler is due a token; this one ends the sequence and is told nobody.
                .or_else(|| row.samples.then_some(Drawn { token: 0, stop: true })))
        })?;
        let Some(events) = events else { return Ok(false) };
        for Event::Finished { sequence, reason, n_cached } in events {
            let choice = self.choices.remove(&sequence);
            let choice =
                choice.ok_or(Error::Internal { what: "a sequence that ends belonged to a request" })?;
            if failures.iter().all(|(request, _)| *request != choice.request) {
                tell(choice.finish(reason, n_cached));
            }
        }
        failures.sort_by_key(|(request, _)| *request);
        failures.dedup_by_key(|(request, _)| *request);
        for (request, error) in failures {
            self.cancel(request);
            tell(Output::Failed { request, error });
        }
        Ok(true)
    }
}

impl Choice {
    fn take_row(
        &mut self,
        row: &LogitsRow<'_>,
        tokenizer: &Tokenizer,
        tell: &mut dyn FnMut(Output),
    ) -> Result<Option<Drawn>, Error> {
        if self.prompt_logprobs
            && let Some(&next) = row.tokens[..self.n_prompt].get(row.position + 1)
        {
            let logprobs = token_logprobs(row.logits, next, self.n_top)?;
            tell(Output::PromptLogprob { request: self.request, logprobs });
        }
        if !row.samples {
            return Ok(None);
        }
        let token = self.sampler.sample(row.logits, row.tokens, self.n_prompt)?;
        let is_end = tokenizer.is_end_of_generation(token.id);
        // An end token is not part of the text, and neither is a row of the logits that has no token.
        let has_text = !is_end && (token.id as usize) < tokenizer.n_vocab();
        let text = if has_text { self.decoder.push(token.id)? } else { String::new() };
        let text = self.stops.push(&text);
        self.stopped = is_end || self.stops.matched().is_some();
        let drawn = Drawn { token: token.id, stop: self.stopped };
        tell(Output::Token { request: self.request, choice: self.index, token, text });
        Ok(Some(drawn))
    }

    fn finish(mut self, reason: SequenceEnd, cached_tokens: usize) -> Output {
        let mut text = String::new();
        if self.stops.matched().is_none() {
            text = self.stops.push(&self.decoder.finish());
            if self.stops.matched().is_none() {
                text.push_str(&self.stops.finish());
            }
        }
        let stopped = self.stopped || self.stops.matched().is_some() || reason == SequenceEnd::Stop;
        Output::Finished {
            request: self.request,
            choice: self.index,
            reason: if stopped { FinishReason::Stop } else { FinishReason::Length },
            text,
            cached_tokens,
        }
    }
}
