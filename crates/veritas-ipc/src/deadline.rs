//! A bound on how long something may take.

use std::time::{Duration, Instant};

use crate::Error;

/// How long something may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// What is waited for, for the error.
    what: &'static str,
    limit: Duration,
    /// `None` for a bound beyond what a clock can count.
    end: Option<Instant>,
}

impl Deadline {
    /// From now on, `limit`; without one there is no bound.
    pub(crate) fn new(what: &'static str, limit: Option<Duration>) -> Self {
        Self::since(Instant::now(), what, limit)
    }

    /// From `start` on, `limit`.
    pub(crate) fn since(start: Instant, what: &'static str, limit: Option<Duration>) -> Self {
        let end = limit.and_then(|limit| start.checked_add(limit));
        Self { what, limit: limit.unwrap_or(Duration::MAX), end }
    }

    /// The time that is left; `None` if there is no bound.
    ///
    /// # Errors
    /// [`Error::Timeout`] if there is none.
    pub(crate) fn left(&self) -> Result<Option<Duration>, Error> {
        let Some(end) = self.end else { return Ok(None) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timeout());
        }
        Ok(Some(left))
    }

    /// The error that says that the time is over.
    pub(crate) fn timeout(&self) -> Error {
        Error::Timeout { what: self.what, limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_is_over_says_what_was_waited_for() {
        let deadline = Deadline::new("the test", Some(Duration::ZERO));
        assert!(matches!(deadline.left(), Err(Error::Timeout { what: "the test", .. })));
        assert!(Deadline::new("the test", None).left().unwrap().is_none());
        assert!(Deadline::new("the test", Some(Duration::MAX)).left().unwrap().is_none());
    }
}
