//! A request while it is computed: what it has given, what of that has been sent.

use std::time::Instant;

use veritas_engine::{FinishReason, Output};
use veritas_proto::{Kind, encode, v1};

use super::prompt::Prepared;

/// Tokens and text of a request, on their way to the supervisor.
pub(super) struct Answer {
    wire_id: u64,
    stream: bool,
    received: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    n_prompt: usize,
    n_generated: u64,
    cached_tokens: u64,
    with_logprobs: bool,
    /// What has not been sent: since the last delta of a stream, else from the beginning.
    choices: Vec<v1::Choice>,
    finish: v1::Finish,
}

impl Answer {
    pub(super) fn new(wire_id: u64, prepared: Prepared) -> Self {
        let Prepared { request, stream, received } = prepared;
        let choices = (0..request.n_choices).map(|index| v1::Choice { index, ..v1::Choice::default() });
        Self {
            wire_id,
            stream,
            received,
            first_token: None,
            last_token: None,
            n_prompt: request.prompt.len(),
            n_generated: 0,
            cached_tokens: 0,
            with_logprobs: request.sampling.logprobs.is_some(),
            choices: choices.collect(),
            finish: v1::Finish {
                prompt_ids: request.prompt,
                seed: request.sampling.seed.unwrap_or(0),
                ..v1::Finish::default()
            },
        }
    }

    pub(super) fn wire_id(&self) -> u64 {
        self.wire_id
    }

    pub(super) fn take(&mut self, output: Output) {
        match output {
            Output::PromptLogprob { logprobs, .. } => self.finish.prompt_logprobs.push(logprobs.logprob),
            Output::Token { choice, token, text, .. } => {
                let now = Instant::now();
                self.first_token.get_or_insert(now);
                self.last_token = Some(now);
                self.n_generated += 1;
                let choice = &mut self.choices[choice as usize];
                choice.text.push_str(&text);
                choice.ids.push(token.id);
                if self.with_logprobs {
                    choice.logprobs.extend(token.logprob);
                    let (ids, logprobs) = token.top.into_iter().unzip();
                    choice.top_logprobs.push(v1::TopLogprobs { ids, logprobs });
                }
            }
            Output::Finished { choice: index, reason, text, cached_tokens, .. } => {
                let choice = &mut self.choices[index as usize];
                choice.text.push_str(&text);
                choice.finish_reason = match reason {
                    FinishReason::Stop => v1::FinishReason::Stop,
                    FinishReason::Length => v1::FinishReason::Length,
                }
                .into();
                // The other answers go on from the prompt of the first, which counts once.
                if index == 0 {
                    self.cached_tokens = cached_tokens as u64;
                }
            }
            // The caller ends the request.
            Output::Failed { .. } => {}
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.choices.iter().all(|choice| choice.finish_reason() != v1::FinishReason::Unspecified)
    }

    /// Appends a delta of what has come since the last one, if the request streams.
    pub(super) fn flush(&mut self, frames: &mut Vec<u8>) {
        if !self.stream {
            return;
        }
        let changed =
            self.choices.iter_mut().filter(|choice| !choice.text.is_empty() || !choice.ids.is_empty());
        let choices = changed.map(|choice| v1::ChoiceDelta {
            index: choice.index,
            text: std::mem::take(&mut choice.text),
            ids: std::mem::take(&mut choice.ids),
            logprobs: std::mem::take(&mut choice.logprobs),
            top_logprobs: std::mem::take(&mut choice.top_logprobs),
        });
        let delta = v1::Delta { choices: choices.collect() };
        if !delta.choices.is_empty() {
            encode(frames, Kind::DELTA, self.wire_id, &delta);
        }
    }

    /// Appends the end of the request. Answers that have not ended were cancelled.
    pub(super) fn finish(&mut self, frames: &mut Vec<u8>) {
        let mut finish = std::mem::take(&mut self.finish);
        finish.choices = std::mem::take(&mut self.choices);
        for choice in &mut finish.choices {
            if choice.finish_reason() == v1::FinishReason::Unspecified {
                choice.finish_reason = v1::FinishReason::FinishCancelled.into();
            }
        }
        finish.usage = Some(v1::Usage {
            prompt_tokens: self.n_prompt as u64,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.n_generated,
            drafted_tokens: 0,
            accepted_tokens: 0,
        });
        finish.timings = Some(self.timings(finish.choices.len()));
        encode(frames, Kind::FINISH, self.wire_id, &finish);
    }

    fn timings(&self, n_choices: usize) -> v1::Timings {
        let ttft_s = self.first_token.map(|first| (first - self.received).as_secs_f64());
        let generation_s = self.first_token.zip(self.last_token).map(|(first, last)| last - first);
        let n_after_first = self.n_generated.saturating_sub(n_choices as u64);
        v1::Timings {
            load_ms: 0.0,
            ttft_ms: ttft_s.map(|seconds| seconds * 1e3),
            prompt_tokens_per_s: ttft_s.map(|seconds| self.n_prompt as f64 / seconds),
            // Tokens after the first of each answer, over the time from the first token to the last.
            generation_tokens_per_s: generation_s
                .map(|time| time.as_secs_f64())
                .filter(|&seconds| n_after_first > 0 && seconds > 0.0)
                .map(|seconds| n_after_first as f64 / seconds),
            queue_ms: 0.0,
        }
    }
}
