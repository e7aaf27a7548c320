//! A conversation: messages, and the tokens that a model's chat template makes of them.
//!
//! Roles cannot be forged: control tokens come from the template's own text alone, whatever the messages say. The guarded
//! rendering of `veritas_tokenizer::chat` sees to it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use veritas_base::TokenId;
use veritas_engine::Model;
use veritas_tokenizer::Tokenizer;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate, Date};

use crate::failure::Failure;

/// A system message and the turns after it.
pub(crate) struct Conversation {
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    system: Option<String>,
    turns: Vec<Turn>,
    today: Date,
}

struct Turn {
    role: &'static str,
    text: String,
}

impl Conversation {
    /// A conversation without turns. `today` is what a template gets that asks for the date.
    pub(crate) fn new(
        model: &Model,
        template: &str,
        system: Option<&str>,
        today: Date,
    ) -> Result<Self, Failure> {
        Ok(Self {
            tokenizer: Arc::clone(model.tokenizer()),
            template: ChatTemplate::new(template)?,
            system: system.map(str::to_owned),
            turns: Vec::new(),
            today,
        })
    }

    /// Adds a turn.
    pub(crate) fn push(&mut self, role: &'static str, text: impl Into<String>) {
        self.turns.push(Turn { role, text: text.into() });
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

    /// The messages as templates see them: a list of `{"role", "content"}`.
    pub(crate) fn messages(&self) -> Value {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let turns = self.turns.iter().map(|turn| json!({"role": turn.role, "content": turn.text}));
        Value::Array(system.chain(turns).collect())
    }

    /// The tokens that ask the model for the next turn.
    pub(crate) fn encode(&self) -> Result<Vec<TokenId>, Failure> {
        let input = ChatInput {
            messages: self.messages(),
            tools: None,
            add_generation_prompt: true,
            enable_thinking: None,
            bos_token: token_text(&self.tokenizer, self.tokenizer.bos()),
            eos_token: token_text(&self.tokenizer, self.tokenizer.eos()),
            now: self.today,
            extra: Map::new(),
        };
        let controls = self.tokenizer.control_texts().collect::<Vec<_>>();
        let rendered = self.template.render_guarded(&input, &controls)?;
        Ok(self.tokenizer.encode_rendered(&rendered)?)
    }
}

/// The text of a token as templates write it; empty where there is no such token.
pub(crate) fn token_text(tokenizer: &Tokenizer, id: Option<TokenId>) -> String {
    id.and_then(|id| tokenizer.token_text(id).ok()).unwrap_or_default().to_owned()
}

/// Today in UTC.
pub(crate) fn today() -> Date {
    // A clock before 1970 or after 9999 is wrong; the first day of its count is as good as any other.
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Date::from_unix_seconds(seconds)
        .or_else(|_| Date::from_unix_seconds(0))
        .expect("the first day of 1970 is a date")
}

/// Reads a date such as `2026-01-02`.
pub(crate) fn parse_date(text: &str) -> Result<Date, Failure> {
    text.parse().map_err(|error| Failure::from(error).hint("write it as 2026-01-02"))
}
