//! A conversation: a system message and the turns after it, kept in memory alone.

use serde_json::{Value, json};
use veritas_proto::v1;

use crate::failure::Failure;
use crate::prompt::message;

/// A system message and the turns after it.
pub(crate) struct Conversation {
    system: Option<String>,
    turns: Vec<v1::Message>,
}

impl Conversation {
    /// A conversation without turns.
    pub(crate) fn new(system: Option<&str>) -> Self {
        Self { system: system.map(str::to_owned), turns: Vec::new() }
    }

    /// Adds a turn.
    pub(crate) fn push(&mut self, role: &'static str, text: impl Into<String>) {
        self.turns.push(message(role, text));
    }

    /// Takes the last turn back.
    pub(crate) fn pop(&mut self) {
        self.turns.pop();
    }

    /// Forgets the turns; the system message stays.
    pub(crate) fn reset(&mut self) {
        self.turns.clear();
    }

    /// Sets the system message, or takes it away.
    pub(crate) fn set_system(&mut self, system: Option<String>) {
        self.system = system;
    }

    /// The messages of a request.
    pub(crate) fn to_wire(&self) -> Vec<v1::Message> {
        let system = self.system.iter().map(|text| message("system", text.clone()));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// The messages as templates see them: a list of `{"role", "content"}`.
    pub(crate) fn messages(&self) -> Value {
        let messages = self.to_wire();
        messages.iter().map(|message| json!({"role": message.role, "content": message.content})).collect()
    }
}

/// Refuses what is no date such as `2026-01-02`.
pub(crate) fn check_date(text: Option<&str>) -> Result<(), Failure> {
    let Some(text) = text else { return Ok(()) };
    veritas_runtime::worker::date_of(text)?;
    Ok(())
}
