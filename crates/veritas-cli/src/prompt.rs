//! From the flags of a prompt to a request.

use veritas_proto::v1;
use veritas_proto::v1::generate_request::Prompt;

use crate::args::{PromptArgs, SamplingArgs};
use crate::commands::conversation::check_date;
use crate::commands::stdin_text;
use crate::failure::Failure;

/// The request that the flags describe. With `json` the log-probability of each token is asked for, since the report
/// lists it.
pub(crate) fn request(
    args: &PromptArgs,
    sampling: &SamplingArgs,
    json: bool,
) -> Result<v1::GenerateRequest, Failure> {
    let text = read(args)?;
    let mut sampling = sampling.to_wire();
    if json {
        sampling.logprobs = sampling.logprobs.or(Some(0));
    }
    check_date(args.now.as_deref())?;
    Ok(v1::GenerateRequest {
        prompt: Some(prompt(args, text)),
        sampling: Some(sampling),
        n_choices: args.n_choices,
        stream: true,
        prompt_logprobs: args.prompt_logprobs,
        now: args.now.clone().unwrap_or_default(),
        ..v1::GenerateRequest::default()
    })
}

fn read(args: &PromptArgs) -> Result<String, Failure> {
    match args.prompt.as_deref() {
        Some("-") => {
            let text = stdin_text()?;
            // The line's end belongs to the way the text was sent, not to the text.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
        Some(text) => Ok(text.to_owned()),
        None if args.ids.is_some() => Ok(String::new()),
        None => Err(Failure::usage("there is no prompt")
            .hint("give it as an argument, as `-` to read stdin, or as --ids 1,5,9")),
    }
}

fn prompt(args: &PromptArgs, text: String) -> Prompt {
    if let Some(ids) = &args.ids {
        return Prompt::Ids(v1::TokenIds { ids: ids.clone() });
    }
    if args.raw {
        return Prompt::Text(v1::TextPrompt { text, parse_special: args.special });
    }
    let mut messages = Vec::new();
    messages.extend(args.system.as_ref().map(|system| message("system", system.clone())));
    messages.push(message("user", text));
    let raw_without_template = !args.chat && args.system.is_none();
    Prompt::Chat(v1::ChatPrompt { messages, raw_without_template, enable_thinking: None })
}

/// A message of a conversation.
pub(crate) fn message(role: &str, content: impl Into<String>) -> v1::Message {
    v1::Message { role: role.to_owned(), content: content.into() }
}
