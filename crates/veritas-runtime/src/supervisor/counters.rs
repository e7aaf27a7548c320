//! What the supervisor counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use veritas_proto::v1;

use super::request::Request;

/// Latencies that quantiles are taken of: the last so many.
const SAMPLES_MAX: usize = 4096;

/// Principals that are counted one by one; what others do is counted under [`OTHERS`].
const PRINCIPALS_MAX: usize = 1024;

/// The name of those who are not counted one by one.
const OTHERS: &str = "others";

/// What one principal has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OfPrincipal {
    pub(crate) open: usize,
    pub(crate) finished: u64,
    pub(crate) rejected: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
    pub(crate) tokens: v1::TokenCounts,
    pub(crate) sessions_total: u64,
    pub(crate) handshakes_refused: u64,
    principals: BTreeMap<String, OfPrincipal>,
    ttft_ms: Samples,
    per_token_ms: Samples,
}

impl Counters {
    fn of(&mut self, principal: &str) -> &mut OfPrincipal {
        let is_known = self.principals.contains_key(principal) || self.principals.len() < PRINCIPALS_MAX;
        self.principals.entry(if is_known { principal } else { OTHERS }.to_owned()).or_default()
    }

    pub(crate) fn open_of(&self, principal: &str) -> usize {
        self.principals.get(principal).map_or(0, |counts| counts.open)
    }

    pub(crate) fn principals(&self) -> impl Iterator<Item = (&str, OfPrincipal)> {
        self.principals.iter().map(|(name, counts)| (name.as_str(), *counts))
    }

    pub(crate) fn opened(&mut self, principal: &str) {
        self.of(principal).open += 1;
    }

    pub(crate) fn closed(&mut self, principal: &str) {
        let counts = self.of(principal);
        counts.open = counts.open.saturating_sub(1);
    }

    pub(crate) fn rejected(&mut self, principal: &str) {
        self.rejected += 1;
        self.of(principal).rejected += 1;
    }

    pub(crate) fn failed(&mut self, _principal: &str) {
        self.failed += 1;
    }

    /// A request other than to generate was answered.
    pub(crate) fn answered(&mut self, principal: &str) {
        self.finished += 1;
        self.of(principal).finished += 1;
    }

    /// Tokens of a stream came.
    pub(crate) fn delta(&mut self, request: &mut Request, delta: &v1::Delta, now: Instant) {
        let n_tokens = delta.choices.iter().map(|choice| choice.ids.len() as u64).sum::<u64>();
        if n_tokens == 0 {
            return;
        }
        self.tokens.generated += n_tokens;
        request.n_delta_tokens += n_tokens;
        match request.last_delta {
            None => {
                request.first_delta = Some(now);
                self.ttft_ms.push(now - request.submitted);
            }
            Some(last) => self.per_token_ms.push(now - last),
        }
        request.last_delta = Some(now);
    }

    /// A request to generate was answered.
    pub(crate) fn finished(&mut self, request: &Request, finish: &v1::Finish, now: Instant) {
        self.answered(&request.principal);
        let usage = finish.usage.unwrap_or_default();
        self.tokens.prompt += usage.prompt_tokens;
        self.tokens.cached += usage.cached_tokens;
        self.tokens.drafted += usage.drafted_tokens;
        self.tokens.accepted += usage.accepted_tokens;
        self.tokens.generated += usage.completion_tokens.saturating_sub(request.n_delta_tokens);
        let ttft_ms = finish.timings.as_ref().and_then(|timings| timings.ttft_ms);
        if request.first_delta.is_none()
            && let Some((ttft_ms, sent)) = ttft_ms.zip(request.sent)
        {
            let worker = Duration::from_secs_f64((ttft_ms / 1e3).clamp(0.0, 1e9));
            self.ttft_ms.push((sent - request.submitted) + worker.min(now - sent));
        }
    }

    pub(crate) fn latencies(&self) -> v1::Latencies {
        v1::Latencies {
            ttft_p50: self.ttft_ms.quantile(0.5),
            ttft_p99: self.ttft_ms.quantile(0.99),
            per_token_p50: self.per_token_ms.quantile(0.5),
            per_token_p99: self.per_token_ms.quantile(0.99),
        }
    }
}

/// The last latencies.
#[derive(Default)]
struct Samples {
    seconds: VecDeque<f64>,
}

impl Samples {
    fn push(&mut self, latency: Duration) {
        if self.seconds.len() == SAMPLES_MAX {
            self.seconds.pop_front();
        }
        self.seconds.push_back(latency.as_secs_f64());
    }

    /// The smallest latency in milliseconds that a share of the samples does not exceed.
    fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.seconds.iter().copied().collect::<Vec<_>>();
        sorted.sort_by(f64::total_cmp);
        let index = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(index.max(1) - 1).map(|seconds| seconds * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_smallest_sample_that_a_share_does_not_exceed() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile(0.5), None);
        (1..=100).rev().for_each(|ms| samples.push(Duration::from_millis(ms)));
        let near = |share: f64, ms: f64| (samples.quantile(share).unwrap() - ms).abs() < 1e-9;
        assert!(near(0.5, 50.0) && near(0.99, 99.0) && near(1.0, 100.0) && near(0.0, 1.0));
    }

    #[test]
    fn principals_beyond_the_bound_are_counted_together() {
        let mut counters = Counters::default();
        (0..PRINCIPALS_MAX + 5).for_each(|n| counters.rejected(&format!("uid:{n}")));
        assert_eq!(counters.principals().count(), PRINCIPALS_MAX + 1);
        assert_eq!(counters.principals.get(OTHERS).unwrap().rejected, 5);
    }
}
