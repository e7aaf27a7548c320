//! What differs between two configurations, and what of it a reload applies.

use super::keys::keys;
use super::load::model_keys;
use super::{Config, ModelConfig};

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting: `limits.queue_max`, `models.NAME.path`, or `models.NAME` for a model that came or went.
    pub key: String,
    /// Whether a reload applies it; otherwise the daemon must be started again.
    pub reloadable: bool,
}

/// Whether a reload applies a setting, given by table and name; `models` stands for models that come or go. What is no
/// setting is not reloadable.
pub fn reloadable(key: &str) -> bool {
    key == "models" || keys().iter().any(|known| known.reloadable && known.path() == key)
}

impl Config {
    /// What differs, in the order of the documentation. Models are compared by name; their order does not count.
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        let (mut old, mut new) = (old.clone(), new.clone());
        let mut changes = Vec::new();
        for key in keys() {
            let values = [&mut old, &mut new].map(|config| key.slot(config).map(|slot| slot.shown()));
            // Sources of a token that are no files have no value that is shown.
            let has_other_token = key.path() == "auth.token_file" && old.auth != new.auth;
            if values[0] != values[1] || has_other_token {
                changes.push(Change { key: key.path(), reloadable: key.reloadable });
            }
        }
        for model in &mut old.models {
            match new.models.iter_mut().find(|other| other.name == model.name) {
                Some(other) => changes.extend(model_changes(model, other)),
                None => changes.push(model_change(&model.name)),
            }
        }
        let is_new = |model: &&ModelConfig| !old.models.iter().any(|other| other.name == model.name);
        changes.extend(new.models.iter().filter(is_new).map(|model| model_change(&model.name)));
        changes
    }
}

fn model_change(name: &str) -> Change {
    Change { key: format!("models.{name}"), reloadable: reloadable("models") }
}

fn model_changes(old: &mut ModelConfig, new: &mut ModelConfig) -> Vec<Change> {
    let mut changes = Vec::new();
    for key in model_keys() {
        let values = [&mut *old, &mut *new].map(|model| key.model_slot(model).map(|slot| slot.shown()));
        if values[0] != values[1] {
            let path = format!("models.{}.{}", old.name, key.name);
            changes.push(Change { key: path, reloadable: key.reloadable });
        }
    }
    changes
}
