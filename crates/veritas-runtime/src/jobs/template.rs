//! `template`: what a chat template makes of messages.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use veritas_tokenizer::Tokenizer;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate};

use super::Context;
use crate::failure::Failure;
use crate::worker::{date, date_of, token_text};

/// Render a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateJob {
    /// What `template` reads from stdin.
    pub request: Map<String, Value>,
    /// A template in place of the model's own.
    pub template: Option<String>,
    /// Whether the model is opened: for its template, or for the texts of its tokens.
    pub uses_model: bool,
}

pub(super) fn run(job: &TemplateJob, context: &Context<'_>) -> Result<(), Failure> {
    let mut request = job.request.clone();
    let files = job.uses_model.then(|| context.open()).transpose()?;
    let source = match (&job.template, &files) {
        (Some(source), _) => Some(source.clone()),
        (None, Some(files)) => files.metadata().opt_str("tokenizer.chat_template")?.map(str::to_owned),
        (None, None) => None,
    };
    let source = source.ok_or(veritas_engine::Error::NoChatTemplate)?;
    let template = ChatTemplate::new(&source)?;
    let tokenizer = files.as_ref().map(|files| Tokenizer::from_gguf(files.metadata())).transpose()?;
    let of_model = |id: fn(&Tokenizer) -> Option<u32>| {
        tokenizer.as_ref().map(|tokenizer| token_text(tokenizer, id(tokenizer))).unwrap_or_default()
    };
    let input = ChatInput {
        messages: messages(&mut request)?,
        tools: request.remove("tools").filter(|tools| !tools.is_null()),
        add_generation_prompt: flag(&mut request, "add_generation_prompt")?.unwrap_or(false),
        enable_thinking: flag(&mut request, "enable_thinking")?,
        bos_token: text(&mut request, "bos_token")?.unwrap_or_else(|| of_model(Tokenizer::bos)),
        eos_token: text(&mut request, "eos_token")?.unwrap_or_else(|| of_model(Tokenizer::eos)),
        now: match text(&mut request, "now")? {
            Some(now) => date_of(&now)?,
            None => date("")?,
        },
        // What is left are variables that this template alone knows.
        extra: request,
    };
    let rendered = template.render(&input)?;
    let mut out = context.out();
    out.write_all(rendered.as_bytes())?;
    Ok(out.flush()?)
}

fn messages(request: &mut Map<String, Value>) -> Result<Value, Failure> {
    match request.remove("messages") {
        Some(messages @ Value::Array(_)) => Ok(messages),
        Some(_) => Err(Failure::usage("\"messages\" must be a list")),
        None => Err(Failure::usage("\"messages\" is missing")),
    }
}

fn flag(request: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, Failure> {
    match request.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(other) => Err(Failure::usage(format!("{key:?} is {other}, but must be true or false"))),
    }
}

fn text(request: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Failure> {
    match request.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Failure::usage(format!("{key:?} is {other}, but must be a text"))),
    }
}
