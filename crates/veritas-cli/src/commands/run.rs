//! `run`: continue a prompt, or answer it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use veritas_base::TokenId;
use veritas_engine::{Engine, FinishReason, Model, Output, Request, RunnerConfig};
use veritas_tokenizer::EncodeOptions;

use crate::args::RunArgs;
use crate::commands::conversation::{Conversation, today};
use crate::failure::Failure;
use crate::load::{Loaded, load};
use crate::{interrupt, report, terminal};

/// Bytes of a prompt that is read from stdin: far beyond any context, so that a pipe that never ends is an error.
const PROMPT_BYTES_MAX: u64 = 256 << 20;

/// One answer as it grows.
#[derive(Default)]
struct Answer {
    text: String,
    ids: Vec<TokenId>,
    logprobs: Vec<f32>,
    top_logprobs: Vec<Vec<(TokenId, f32)>>,
    finish_reason: Option<FinishReason>,
}

/// What the moments of a run were.
struct Clock {
    start: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    interrupt::install()?;
    let prompt_text = read_prompt(args)?;
    let loaded = load(&args.model, args.output.quiet || args.output.json)?;
    let mut sampling = args.sampling.apply(loaded.model.sampling_defaults()?)?;
    // The report lists the log-probability of each token, so they are always computed for it.
    if args.output.json {
        sampling.logprobs = sampling.logprobs.or(Some(0));
    }
    let prompt = encode_prompt(args, &loaded.model, prompt_text.as_deref())?;
    let config = args.engine.runner_config(args.n_choices as usize)?;
    let seed = sampling.seed.unwrap_or(0);
    let request =
        Request { prompt, sampling, n_choices: args.n_choices, prompt_logprobs: args.prompt_logprobs };
    let mut engine = Engine::new(Arc::clone(&loaded.model), &config)?;
    let clock = Clock { start: Instant::now(), first_token: None, last_token: None };
    let mut progress = Progress { clock, prompt_logprobs: Vec::new(), answers: Vec::new(), cached_tokens: 0 };
    progress.answers.resize_with(args.n_choices as usize, Answer::default);
    let streams = !args.output.json && args.n_choices == 1;
    let interrupted = progress.answer(&mut engine, &request, streams)?;
    if args.output.json {
        let report = progress.report(args, &loaded, &config, &request, seed);
        writeln!(std::io::stdout().lock(), "{}", report::line(&report))?;
    } else {
        progress.print(streams, args.output.quiet, &request, seed)?;
    }
    if interrupted { Err(Failure::interrupted()) } else { Ok(()) }
}

fn read_prompt(args: &RunArgs) -> Result<Option<String>, Failure> {
    match args.prompt.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().lock().take(PROMPT_BYTES_MAX).read_to_string(&mut text)?;
            // The line's end belongs to the way the text was sent, not to the text.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
        }
        Some(text) => Ok(Some(text.to_owned())),
        None if args.ids.is_some() => Ok(None),
        None => Err(Failure::usage("there is no prompt")
            .hint("give it as an argument, as `-` to read stdin, or as --ids 1,5,9")),
    }
}

fn encode_prompt(args: &RunArgs, model: &Model, text: Option<&str>) -> Result<Vec<TokenId>, Failure> {
    if let Some(ids) = &args.ids {
        return Ok(ids.clone());
    }
    let text = text.unwrap_or_default();
    let template = if args.raw { None } else { model.chat_template()? };
    match template {
        Some(template) => {
            let today = args.now.as_deref().map_or_else(|| Ok(today()), super::conversation::parse_date)?;
            let mut conversation = Conversation::new(model, template, args.system.as_deref(), today)?;
            conversation.push("user", text);
            conversation.encode()
        }
        None if args.chat || args.system.is_some() => Err(veritas_engine::Error::NoChatTemplate.into())
            .map_err(|failure: Failure| failure.hint("continue the prompt as it is with --raw")),
        None => {
            let options = EncodeOptions { add_special: true, parse_special: args.special };
            Ok(model.tokenizer().encode(text, options)?)
        }
    }
}

/// Everything that a run gives.
struct Progress {
    clock: Clock,
    prompt_logprobs: Vec<Option<f32>>,
    answers: Vec<Answer>,
    cached_tokens: usize,
}

impl Progress {
    /// Runs the engine until every answer has ended or the user interrupts, which it returns.
    fn answer(&mut self, engine: &mut Engine, request: &Request, streams: bool) -> Result<bool, Failure> {
        let mut stdout = std::io::stdout().lock();
        engine.submit(request)?;
        while !engine.is_idle() {
            if interrupt::requested() {
                return Ok(true);
            }
            let mut written = Ok(());
            engine.step(&mut |output| {
                let text = self.take(output);
                if streams && written.is_ok() && !text.is_empty() {
                    written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
                }
            })?;
            written?;
        }
        Ok(false)
    }

    /// Records an output and returns the text that it adds.
    fn take(&mut self, output: Output) -> String {
        match output {
            Output::PromptLogprob { logprobs, .. } => {
                // Nothing predicts the first token.
                if self.prompt_logprobs.is_empty() {
                    self.prompt_logprobs.push(None);
                }
                self.prompt_logprobs.push(Some(logprobs.logprob));
                String::new()
            }
            Output::Token { choice, token, text, .. } => {
                let now = Instant::now();
                self.clock.first_token.get_or_insert(now);
                self.clock.last_token = Some(now);
                let answer = &mut self.answers[choice as usize];
                answer.ids.push(token.id);
                answer.logprobs.extend(token.logprob);
                answer.top_logprobs.push(token.top);
                answer.text.push_str(&text);
                text
            }
            Output::Finished { choice, reason, text, cached_tokens, .. } => {
                let answer = &mut self.answers[choice as usize];
                answer.finish_reason = Some(reason);
                answer.text.push_str(&text);
                self.cached_tokens += cached_tokens;
                text
            }
        }
    }

    fn n_generated(&self) -> usize {
        self.answers.iter().map(|answer| answer.ids.len()).sum()
    }

    fn ttft_ms(&self) -> Option<f64> {
        Some((self.clock.first_token? - self.clock.start).as_secs_f64() * 1e3)
    }

    fn prompt_tokens_per_s(&self, n_prompt: usize) -> Option<f64> {
        Some(n_prompt as f64 / (self.ttft_ms()? / 1e3))
    }

    /// Tokens after the first of each answer, over the time from the first token to the last.
    fn generation_tokens_per_s(&self) -> Option<f64> {
        let seconds = (self.clock.last_token? - self.clock.first_token?).as_secs_f64();
        let n = self.answers.iter().map(|answer| answer.ids.len().saturating_sub(1)).sum::<usize>();
        (n > 0 && seconds > 0.0).then(|| n as f64 / seconds)
    }

    fn report(
        &self,
        args: &RunArgs,
        loaded: &Loaded,
        config: &RunnerConfig,
        request: &Request,
        seed: u64,
    ) -> Value {
        let n_prompt = request.prompt.len();
        let answers = self.answers.iter().map(answer_report).collect::<Vec<_>>();
        let mut report = match <[Value; 1]>::try_from(answers) {
            Ok([answer]) => answer,
            Err(answers) => json!({"choices": answers}),
        };
        report["prompt_ids"] = json!(request.prompt);
        if args.prompt_logprobs {
            report["prompt_logprobs"] = json!(self.prompt_logprobs);
        }
        report["seed"] = json!(seed);
        report["model_digest"] = json!(loaded.digest);
        report["usage"] = json!({
            "prompt_tokens": n_prompt,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.n_generated(),
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        });
        report["timings"] = json!({
            "load_ms": loaded.load_ms,
            "ttft_ms": self.ttft_ms(),
            "prompt_tokens_per_s": self.prompt_tokens_per_s(n_prompt),
            "generation_tokens_per_s": self.generation_tokens_per_s(),
        });
        report["effective"] = report::effective(config);
        report
    }

    /// Ends the text on stdout with a line's end, and says on stderr how fast it came.
    fn print(&self, streamed: bool, quiet: bool, request: &Request, seed: u64) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        if streamed {
            writeln!(stdout)?;
        } else {
            for (index, answer) in self.answers.iter().enumerate() {
                writeln!(stdout, "[{}]\n{}", index + 1, answer.text)?;
            }
        }
        if !quiet {
            let speed =
                |speed: Option<f64>| speed.map_or("–".to_owned(), |speed| format!("{speed:.1} tokens/s"));
            let n_prompt = request.prompt.len();
            terminal::say(format_args!(
                "prompt: {n_prompt} tokens, {}; answer: {} tokens, {}; first token after {}; seed {seed}",
                speed(self.prompt_tokens_per_s(n_prompt)),
                self.n_generated(),
                speed(self.generation_tokens_per_s()),
                self.ttft_ms().map_or("–".to_owned(), |ms| format!("{ms:.0} ms")),
            ));
        }
        Ok(())
    }
}

fn answer_report(answer: &Answer) -> Value {
    json!({
        "text": answer.text,
        "ids": answer.ids,
        "logprobs": answer.logprobs,
        "top_logprobs": answer.top_logprobs,
        "finish_reason": answer.finish_reason.map_or("cancelled", FinishReason::name),
    })
}
