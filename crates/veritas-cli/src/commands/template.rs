//! `template`: what a chat template makes of messages.

use std::io::Write;

use serde_json::{Map, Value};
use veritas_tokenizer::Tokenizer;
use veritas_tokenizer::chat::{ChatInput, ChatTemplate};

use crate::args::TemplateArgs;
use crate::commands::conversation::{parse_date, today, token_text};
use crate::commands::input::{file_text, stdin_text};
use crate::failure::Failure;
use crate::load::open_files;

pub(crate) fn run(args: &TemplateArgs) -> Result<(), Failure> {
    let mut request = match serde_json::from_str(&stdin_text()?) {
        Ok(Value::Object(request)) => request,
        Ok(_) => return Err(Failure::usage("stdin is no JSON object")),
        Err(error) => return Err(Failure::usage(format!("stdin is no JSON object: {error}"))),
    };
    // A template in a file stands alone, unless a model lends it the texts of its tokens.
    let files = match &args.template {
        Some(_) if args.model.model.is_none() => None,
        _ => Some(open_files(&args.model)?),
    };
    let source = match (&args.template, &files) {
        (Some(path), _) => Some(file_text(path)?),
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
            Some(now) => parse_date(&now)?,
            None => today(),
        },
        // What is left are variables that this template alone knows.
        extra: request,
    };
    let rendered = template.render(&input)?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(rendered.as_bytes())?;
    Ok(stdout.flush()?)
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
