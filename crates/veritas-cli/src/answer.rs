//! Answers as they grow, and what is printed of them: the same for a worker of one's own and for the daemon.

use std::io::Write;

use serde_json::{Value, json};
use veritas_proto::v1;

use crate::failure::Failure;
use crate::screen::Screen;
use crate::{report, terminal};

/// The answers to one request.
pub(crate) struct Answers {
    choices: Vec<v1::Choice>,
}

impl Answers {
    pub(crate) fn new(n_choices: u32) -> Self {
        let choices = (0..n_choices.max(1)).map(|index| v1::Choice { index, ..v1::Choice::default() });
        Self { choices: choices.collect() }
    }

    /// Takes what has come; `show` gets the text that it adds to the first answer.
    pub(crate) fn take(
        &mut self,
        delta: v1::Delta,
        show: &mut dyn FnMut(&v1::ChoiceDelta) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        for part in delta.choices {
            show(&part)?;
            if let Some(choice) = self.choices.get_mut(part.index as usize) {
                choice.text.push_str(&part.text);
                choice.ids.extend(part.ids);
                choice.logprobs.extend(part.logprobs);
                choice.top_logprobs.extend(part.top_logprobs);
            }
        }
        Ok(())
    }

    /// Adds to the end of a request what the deltas carried.
    pub(crate) fn complete(self, mut finish: v1::Finish) -> v1::Finish {
        let ends = std::mem::take(&mut finish.choices);
        finish.choices = self.choices;
        for end in ends {
            if let Some(choice) = finish.choices.get_mut(end.index as usize) {
                choice.finish_reason = end.finish_reason;
                choice.text.push_str(&end.text);
                choice.ids.extend(end.ids);
                choice.logprobs.extend(end.logprobs);
                choice.top_logprobs.extend(end.top_logprobs);
            }
        }
        finish
    }
}

/// The object of `run --json`.
pub(crate) fn report(finish: &v1::Finish, with_prompt_logprobs: bool) -> Value {
    let answers = finish.choices.iter().map(answer_report).collect::<Vec<_>>();
    let mut report = match <[Value; 1]>::try_from(answers) {
        Ok([answer]) => answer,
        Err(answers) => json!({"choices": answers}),
    };
    report["prompt_ids"] = json!(finish.prompt_ids);
    if with_prompt_logprobs {
        // Nothing predicts the first token.
        let rest = finish.prompt_logprobs.iter().map(|&logprob| Some(logprob));
        report["prompt_logprobs"] = json!(std::iter::once(None).chain(rest).collect::<Vec<_>>());
    }
    report["seed"] = json!(finish.seed);
    report["model_digest"] = match finish.model_digest.as_str() {
        "" => Value::Null,
        digest => json!(digest),
    };
    let usage = finish.usage.unwrap_or_default();
    report["usage"] = json!({
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "drafted_tokens": usage.drafted_tokens,
        "accepted_tokens": usage.accepted_tokens,
    });
    let timings = finish.timings.unwrap_or_default();
    report["timings"] = json!({
        "load_ms": timings.load_ms,
        "queue_ms": timings.queue_ms,
        "ttft_ms": timings.ttft_ms,
        "prompt_tokens_per_s": timings.prompt_tokens_per_s,
        "generation_tokens_per_s": timings.generation_tokens_per_s,
    });
    let effective = finish.effective.clone().unwrap_or_default();
    report["effective"] =
        json!({"isa": effective.isa, "threads": effective.threads, "sandbox": effective.sandbox});
    report
}

fn answer_report(choice: &v1::Choice) -> Value {
    let top = choice.top_logprobs.iter().map(|top| top.ids.iter().zip(&top.logprobs).collect::<Vec<_>>());
    json!({
        "text": choice.text,
        "ids": choice.ids,
        "logprobs": choice.logprobs,
        "top_logprobs": top.collect::<Vec<_>>(),
        "finish_reason": reason_name(choice.finish_reason()),
    })
}

/// The word that users see.
pub(crate) fn reason_name(reason: v1::FinishReason) -> &'static str {
    match reason {
        v1::FinishReason::Stop => "stop",
        v1::FinishReason::Length => "length",
        v1::FinishReason::ContentFilter => "content_filter",
        v1::FinishReason::FinishCancelled | v1::FinishReason::Unspecified => "cancelled",
    }
}

/// Whether an answer ended because somebody cancelled it.
pub(crate) fn was_cancelled(finish: &v1::Finish) -> bool {
    finish.choices.iter().any(|choice| choice.finish_reason() == v1::FinishReason::FinishCancelled)
}

/// Prints the object of `run --json` on one line.
pub(crate) fn print_json(finish: &v1::Finish, with_prompt_logprobs: bool) -> Result<(), Failure> {
    let line = report::line(&report(finish, with_prompt_logprobs));
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Ends the text on stdout with a line's end, and says on stderr how fast it came.
pub(crate) fn print_text(finish: &v1::Finish, streamed: bool, quiet: bool) -> Result<(), Failure> {
    let mut stdout = Screen::stdout(false);
    if streamed {
        writeln!(stdout)?;
    } else {
        for choice in &finish.choices {
            writeln!(stdout, "[{}]\n{}", choice.index + 1, choice.text)?;
        }
    }
    if !quiet {
        let speed =
            |speed: Option<f64>| speed.map_or("–".to_owned(), |speed| format!("{speed:.1} tokens/s"));
        let (usage, timings) = (finish.usage.unwrap_or_default(), finish.timings.unwrap_or_default());
        terminal::say(format_args!(
            "prompt: {} tokens, {}; answer: {} tokens, {}; first token after {}; seed {}",
            usage.prompt_tokens,
            speed(timings.prompt_tokens_per_s),
            usage.completion_tokens,
            speed(timings.generation_tokens_per_s),
            timings.ttft_ms.map_or("–".to_owned(), |ms| format!("{ms:.0} ms")),
            finish.seed,
        ));
    }
    Ok(())
}
