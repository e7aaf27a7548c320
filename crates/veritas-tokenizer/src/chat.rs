//! Chat templates: from messages to the text that a model was trained on.
//!
//! A template is Jinja, and hostile until proven otherwise: it may loop, recurse and blow up strings. It runs on a
//! budget of steps, which bounds its time and its memory, has no clock, no files and no randomness, and its output is
//! limited. See [`ChatTemplate::render_guarded`] for what keeps messages from forging control tokens.

mod controls;
mod date;
mod environment;
mod error;
mod guard;
mod json;
pub mod limits;
mod names;
mod python;
mod size;
mod source;
#[cfg(test)]
mod tests;
mod thread;

use std::io;

pub use date::Date;
pub use error::Error;
use minijinja::{Environment, ErrorKind, Value};
use serde::{Deserialize, Serialize};
pub use thread::start_render_thread;

use self::environment::{Raised, environment, strftime_now};
use self::limits::{
    BYTES_PER_FUEL, COMPILE_STACK_BYTES, FUEL_BASE, FUEL_PER_VALUE, MAX_FUEL, MAX_OUTPUT_BYTES,
    MAX_TEMPLATE_BYTES, RENDER_STACK_BYTES, RENDER_STACK_BYTES_PER_FUEL,
};

/// What a template is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatInput {
    /// The messages: a list of objects with `role`, `content` and whatever else the template knows.
    pub messages: serde_json::Value,
    /// The tools, as a list of JSON schemas; `None` leaves them undefined.
    #[serde(default)]
    pub tools: Option<serde_json::Value>,
    /// Whether the text ends with what begins an answer.
    #[serde(default)]
    pub add_generation_prompt: bool,
    /// Whether the model is to think, where the template asks; `None` leaves it undefined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    /// Text of the token that begins a sequence.
    #[serde(default)]
    pub bos_token: String,
    /// Text of the token that ends one.
    #[serde(default)]
    pub eos_token: String,
    /// The day that a template may ask for.
    pub now: Date,
    /// More variables. They cannot replace those above.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A rendered chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text, with the guard character where it breaks something up.
    pub text: String,
    /// The character that keeps text of messages from being read as control tokens, and that is no part of the text:
    /// it is to be removed from every stretch that is not a control token. `None` if nothing needed it.
    pub guard: Option<char>,
}

impl Rendered {
    /// The text without the guard.
    pub fn plain_text(&self) -> String {
        match self.guard {
            Some(guard) => self.text.replace(guard, ""),
            None => self.text.clone(),
        }
    }
}

/// A compiled template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
}

/// The one template of an environment.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`Error::Syntax`] and [`Error::TemplateTooLong`].
    pub fn new(source: &str) -> Result<Self, Error> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(Error::TemplateTooLong { found: source.len() });
        }
        let source = source.to_owned();
        let in_our_dialect = source::in_our_dialect(&source).into_owned();
        let compile = || {
            let mut env = environment()?;
            env.add_template_owned(NAME, in_our_dialect)?;
            Ok(env)
        };
        let syntax =
            |e: minijinja::Error| Error::Syntax { line: e.line().unwrap_or(0), message: describe(&e) };
        let env = thread::with_stack(COMPILE_STACK_BYTES, move || compile().map_err(syntax))?;
        Ok(Self { env, source })
    }

    /// The source, as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a chat as it is: text of messages that looks like a control token is not told from one.
    ///
    /// # Errors
    /// [`Error::Raised`] with the template's own message; [`Error::Render`], [`Error::TooMuchWork`] and
    /// [`Error::OutputTooLong`]; what is wrong with the chat.
    pub fn render(&self, input: &ChatInput) -> Result<String, Error> {
        let (n_bytes, n_values) = size::check(input)?;
        let for_chat = n_values as u64 * FUEL_PER_VALUE + n_bytes as u64 / BYTES_PER_FUEL;
        let fuel = (FUEL_BASE + for_chat).min(MAX_FUEL);
        let stack_bytes = RENDER_STACK_BYTES + fuel as usize * RENDER_STACK_BYTES_PER_FUEL;
        let mut env = self.env.clone();
        env.set_fuel(Some(fuel));
        let variables = context(input);
        thread::with_stack(stack_bytes, move || render_within(&env, variables, fuel))
    }

    /// Renders a chat such that no string of the messages, the tools or `extra` can become a control token.
    ///
    /// `controls` are the texts of the vocabulary's control tokens. A Unicode noncharacter that occurs nowhere in the chat
    /// or in the template is put inside every stretch of the strings that is a control token, or that could be a part of
    /// one. In case the template joins parts that were apart, the chat is rendered once more with that character around
    /// *every* character that begins a control token; if the control tokens of both texts differ, the second is the
    /// answer.
    ///
    /// A template may put a role or a key between the halves of a control token. The roles `assistant`, `developer`,
    /// `function`, `system`, `tool` and `user`, and names that the template compares with its own, may become one so; any
    /// other role or key is kept from it in the same way.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], [`Error::InvalidRole`], [`Error::NoFreeGuard`] and [`Error::TooManyNames`].
    pub fn render_guarded(&self, input: &ChatInput, controls: &[&str]) -> Result<Rendered, Error> {
        guard::render(self, input, controls)
    }
}

/// Renders on the thread that this runs on.
fn render_within(env: &Environment, variables: Value, fuel: u64) -> Result<String, Error> {
    let mut out = Limited { text: Vec::new(), full: false };
    let rendered = env.get_template(NAME).and_then(|t| t.render_captured_to(variables, &mut out).map(drop));
    match rendered {
        Ok(()) => String::from_utf8(out.text).map_err(|e| Error::Render { line: 0, message: e.to_string() }),
        Err(_) if out.full => Err(Error::OutputTooLong),
        Err(e) => Err(classify(&e, fuel)),
    }
}

/// The variables of a template.
fn context(input: &ChatInput) -> Value {
    let mut variables: Vec<(String, Value)> =
        input.extra.iter().map(|(key, value)| (key.clone(), value_of(value))).collect();
    let mut set = |key: &str, value: Value| variables.push((key.to_owned(), value));
    set("messages", value_of(&input.messages));
    if let Some(tools) = &input.tools {
        set("tools", value_of(tools));
    }
    set("add_generation_prompt", Value::from(input.add_generation_prompt));
    set("bos_token", Value::from(input.bos_token.as_str()));
    set("eos_token", Value::from(input.eos_token.as_str()));
    set("strftime_now", strftime_now(input.now));
    if let Some(thinking) = input.enable_thinking {
        set("enable_thinking", Value::from(thinking));
    }
    Value::from_pairs(variables)
}

fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(x) => Value::from(*x),
        serde_json::Value::Number(x) => match (x.as_i64(), x.as_u64()) {
            (Some(x), _) => Value::from(x),
            (None, Some(x)) => Value::from(x),
            (None, None) => Value::from(x.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(x) => Value::from(x.as_str()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, x)| (key.as_str(), value_of(x))))
        }
    }
}

fn classify(error: &minijinja::Error, fuel: u64) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(Raised(message)) = e.downcast_ref() {
            return Error::Raised { message: message.clone() };
        }
        if e.downcast_ref::<minijinja::Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return Error::TooMuchWork { fuel };
        }
        source = e.source();
    }
    Error::Render { line: error.line().unwrap_or(0), message: describe(error) }
}

/// The innermost cause in words: the outer ones say only where it passed.
fn describe(error: &minijinja::Error) -> String {
    let mut inner = error;
    while let Some(e) = std::error::Error::source(inner).and_then(|e| e.downcast_ref()) {
        inner = e;
    }
    match inner.detail() {
        Some(detail) => format!("{}: {detail}", inner.kind()),
        None => inner.kind().to_string(),
    }
}

/// Collects output up to the limit.
struct Limited {
    text: Vec<u8>,
    full: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(io::Error::other("the output is full"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
