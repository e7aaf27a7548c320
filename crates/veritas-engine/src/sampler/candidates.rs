//! The tokens still in play, with their logits.
//!
//! The list is always in one of two orders that are functions of its contents alone: by ascending id, or by descending
//! logit with ties to the lower id. Sums over it are therefore sums in one defined order, in f64, whatever the
//! samplers before did and however a selection algorithm moved things about.

use std::cmp::Ordering;

use veritas_base::TokenId;
use veritas_kernels::math;

/// A token and its logit after the samplers so far. Never NaN, never infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: TokenId,
    pub(super) logit: f32,
}

/// More likely first, ties to the lower id. A total order: logits are not NaN and ids differ.
pub(super) fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Rounds a processed logit once, to the nearest f32, and keeps it finite: parameters may be extreme.
pub(super) fn to_logit(x: f64) -> f32 {
    (x as f32).clamp(f32::MIN, f32::MAX)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ById,
    ByLogit,
}

/// The maximum logit and the sum of `exp(logit - max)`, from which a candidate's probability follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normaliser {
    pub(super) max: f64,
    pub(super) sum: f64,
}

impl Normaliser {
    /// Probability of a candidate.
    pub(super) fn probability(&self, candidate: &Candidate) -> f64 {
        math::exp(f64::from(candidate.logit) - self.max) / self.sum
    }
}

/// The candidates of one draw. Buffers are reused from token to token.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    list: Vec<Candidate>,
    order: Order,
    scratch: Vec<Candidate>,
    weights: Vec<f64>,
}

/// Largest k for which the k most likely are kept in a small buffer during one pass over the list.
const SMALL_K: usize = 1024;

impl Candidates {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), order: Order::ById, scratch: Vec::new(), weights: Vec::new() }
    }

    /// Starts over with all tokens of a row of logits.
    pub(super) fn fill(&mut self, logits: &[f32]) {
        self.list.clear();
        self.list.extend((0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
        self.order = Order::ById;
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Candidate> {
        self.list.iter()
    }

    /// Replaces the logits of the given tokens, where they are among the candidates; `None` leaves the token out.
    pub(super) fn change(
        &mut self,
        ids: impl Iterator<Item = TokenId>,
        f: impl Fn(TokenId, f64) -> Option<f64>,
    ) {
        self.sort_by_id();
        let mut drops = false;
        for id in ids {
            if let Ok(at) = self.list.binary_search_by_key(&id, |c| c.id) {
                let logit = f(id, f64::from(self.list[at].logit)).map(to_logit);
                drops |= logit.is_none();
                self.list[at].logit = logit.unwrap_or(f32::NEG_INFINITY);
            }
        }
        if drops {
            self.list.retain(|c| c.logit > f32::NEG_INFINITY);
        }
    }

    /// Changes logits by a function that keeps their order, ties apart (which rounding may add).
    pub(super) fn scale(&mut self, mut f: impl FnMut(f32) -> f32) {
        for c in &mut self.list {
            c.logit = f(c.logit);
        }
        if self.order == Order::ByLogit {
            self.list.sort_unstable_by(by_logit);
        }
    }

    /// Keeps the candidates that satisfy `keep`, in their order.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Candidate) -> bool) {
        self.list.retain(keep);
    }

    /// The most likely candidate.
    pub(super) fn best(&self) -> Option<Candidate> {
        match self.order {
            Order::ByLogit => self.list.first().copied(),
            Order::ById => {
                self.list.iter().copied().reduce(|best, c| if c.logit > best.logit { c } else { best })
            }
        }
    }

    /// Keeps the `k` most likely (all, if there are fewer; at least one) and puts them in order of likelihood.
    pub(super) fn keep_best(&mut self, k: usize) {
        let k = k.max(1);
        if self.order == Order::ById && k < self.list.len() {
            if k <= SMALL_K {
                self.select_small(k);
            } else {
                self.list.select_nth_unstable_by(k - 1, by_logit);
                self.list.truncate(k);
            }
        }
        self.sort();
        self.list.truncate(k);
    }

    /// One pass over a list in id order with a buffer of 2k: most tokens fail the first comparison. A token equal to
    /// the threshold has a higher id than k others that are at least as likely, hence is rightly left out.
    fn select_small(&mut self, k: usize) {
        let best = &mut self.scratch;
        best.clear();
        let mut threshold = f32::NEG_INFINITY;
        for c in &self.list {
            if c.logit > threshold {
                best.push(*c);
                if best.len() == 2 * k {
                    threshold = best.select_nth_unstable_by(k - 1, by_logit).1.logit;
                    best.truncate(k);
                }
            }
        }
        if best.len() > k {
            best.select_nth_unstable_by(k - 1, by_logit);
            best.truncate(k);
        }
        self.list.clear();
        self.list.extend_from_slice(&self.scratch);
    }

    /// Puts all candidates in order of likelihood.
    pub(super) fn sort(&mut self) {
        if self.order == Order::ById {
            self.list.sort_unstable_by(by_logit);
            self.order = Order::ByLogit;
        }
    }

    /// Keeps the shortest run of most likely candidates of at least `min_keep` that `enough` accepts; it is asked with
    /// each candidate from the likeliest on. Sorts no more of the list than it needs.
    pub(super) fn keep_prefix(&mut self, min_keep: usize, mut enough: impl FnMut(&Candidate) -> bool) {
        let n = self.list.len();
        let (mut done, mut sorted) = (0, if self.order == Order::ByLogit { n } else { 0 });
        while done < n {
            if done == sorted {
                sorted = n.min(if sorted == 0 { 256 } else { sorted * 8 }); // few tokens carry nearly all probability
                let rest = &mut self.list[done..];
                if sorted < n {
                    rest.select_nth_unstable_by(sorted - done - 1, by_logit);
                }
                rest[..sorted - done].sort_unstable_by(by_logit);
            }
            done += 1;
            if enough(&self.list[done - 1]) && done >= min_keep {
                break;
            }
        }
        self.list.truncate(done);
        self.order = Order::ByLogit;
    }

    /// Drops the `n` most likely of a list in order of likelihood.
    pub(super) fn drop_best(&mut self, n: usize) {
        self.list.drain(..n);
    }

    /// Replaces the list.
    pub(super) fn replace(&mut self, with: impl Iterator<Item = Candidate>) {
        self.list.clear();
        self.list.extend(with);
        self.list.sort_unstable_by_key(|c| c.id);
        self.order = Order::ById;
    }

    fn sort_by_id(&mut self) {
        if self.order == Order::ByLogit {
            self.list.sort_unstable_by_key(|c| c.id);
            self.order = Order::ById;
        }
    }

    /// What turns logits into probabilities, or `None` of an empty list.
    pub(super) fn normaliser(&self) -> Option<Normaliser> {
        let max = f64::from(self.best()?.logit);
        let sum = self.list.iter().map(|c| math::exp(f64::from(c.logit) - max)).sum();
        Some(Normaliser { max, sum })
    }

    /// Draws by inversion: the first candidate, in order of ids, at which the cumulative probability exceeds `uniform`
    /// in [0, 1). Gives its probability too.
    pub(super) fn draw(&mut self, uniform: f64) -> Option<(Candidate, f64)> {
        self.sort_by_id();
        let max = f64::from(self.best()?.logit);
        self.weights.clear();
        self.weights.extend(self.list.iter().map(|c| math::exp(f64::from(c.logit) - max)));
        let sum: f64 = self.weights.iter().sum();
        let target = uniform * sum;
        let mut cumulative = 0.0;
        let chosen = self.weights.iter().position(|w| {
            cumulative += w;
            cumulative > target
        });
        // uniform ≤ 1 − 2⁻⁵³, so the last sum, which is `sum` itself, exceeds the target; `best` guards the argument.
        match chosen {
            Some(at) => Some((self.list[at], self.weights[at] / sum)),
            None => self.best().map(|c| (c, 1.0 / sum)),
        }
    }

    /// Capacities of the buffers.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> [usize; 3] {
        [self.list.capacity(), self.scratch.capacity(), self.weights.capacity()]
    }
}
