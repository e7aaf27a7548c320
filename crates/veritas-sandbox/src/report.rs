//! What is in force, by layer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Layer, State};

/// The state of one layer, and why it is not enforced where it is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// What became of the layer.
    pub state: State,
    /// Why it is not enforced, or what weakens it although it is; `None` where there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The state of every layer, as the worker observed it.
///
/// It is serialised as a map from the layer's name to its observation. A layer that is missing is off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report {
    layers: BTreeMap<Layer, Observation>,
}

impl Report {
    /// The report of a process without a sandbox: every layer is off, for `reason`.
    #[must_use]
    pub fn off(reason: &str) -> Self {
        let mut report = Self::default();
        for layer in Layer::ALL {
            report.set(layer, State::Off, Some(reason.to_owned()));
        }
        report
    }

    /// Records the state of a layer, in place of what was recorded before.
    pub fn set(&mut self, layer: Layer, state: State, reason: Option<String>) {
        self.layers.insert(layer, Observation { state, reason });
    }

    /// The state of a layer.
    #[must_use]
    pub fn state(&self, layer: Layer) -> State {
        self.layers.get(&layer).map_or(State::Off, |observation| observation.state)
    }

    /// Why a layer is not enforced.
    #[must_use]
    pub fn reason(&self, layer: Layer) -> Option<&str> {
        self.layers.get(&layer)?.reason.as_deref()
    }

    /// All layers in their order, with state and reason.
    pub fn iter(&self) -> impl Iterator<Item = (Layer, State, Option<&str>)> {
        Layer::ALL.into_iter().map(|layer| (layer, self.state(layer), self.reason(layer)))
    }

    /// The layers of `wanted` that are not enforced.
    pub fn missing<'a>(
        &'a self,
        wanted: impl IntoIterator<Item = Layer> + 'a,
    ) -> impl Iterator<Item = Layer> + 'a {
        wanted.into_iter().filter(|layer| self.state(*layer) != State::Enforced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_serialisation_and_a_missing_layer_is_off() {
        let mut report = Report::default();
        report.set(Layer::Seccomp, State::Enforced, None);
        report.set(Layer::Cgroup, State::Unavailable, Some("version 1".to_owned()));
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"seccomp":{"state":"enforced"},"cgroup":{"state":"unavailable","reason":"version 1"}}"#
        );
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert_eq!(report.state(Layer::Landlock), State::Off);
        assert_eq!(report.missing(Layer::ALL).count(), 8);
    }

    #[test]
    fn a_report_with_an_unknown_layer_or_state_is_refused() {
        assert!(serde_json::from_str::<Report>(r#"{"moat":{"state":"enforced"}}"#).is_err());
        assert!(serde_json::from_str::<Report>(r#"{"seccomp":{"state":"maybe"}}"#).is_err());
    }
}
