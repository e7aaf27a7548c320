//! `tokenize` and `detokenize`: texts to token ids and back.
//!
//! Only the vocabulary is needed, so files without tensors, or of architectures that cannot be run, are fine.

use std::io::Write;

use serde::Deserialize;
use serde_json::json;
use veritas_base::TokenId;
use veritas_proto::{Kind, Message, Name, v1};
use veritas_runtime::Failure as RuntimeFailure;
use veritas_runtime::host::Confined;
use veritas_runtime::jobs::ServeJob;
use veritas_runtime::json_line;

use crate::args::{DetokenizeArgs, ModelArgs, OutputArgs, TokenizeArgs};
use crate::commands::input::{each_stdin_line, stdin_text};
use crate::failure::Failure;
use crate::load::open_model;
use crate::screen::Screen;
use crate::{confined, interrupt};

/// A line of `tokenize --jsonl`.
#[derive(Deserialize)]
struct TextLine {
    text: String,
    special: Option<bool>,
}

/// A line of `detokenize --jsonl`.
#[derive(Deserialize)]
struct IdsLine {
    ids: Vec<TokenId>,
}

pub(crate) fn tokenize(args: &TokenizeArgs) -> Result<(), Failure> {
    with_vocabulary(&args.model, args.output, |vocabulary| {
        let mut encode = |text: String, special: bool| vocabulary.encode(text, !args.no_bos, special);
        let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
        if args.jsonl {
            each_stdin_line(|number, line| {
                let line: TextLine = serde_json::from_str(line).map_err(|error| in_line(number, error))?;
                let ids = encode(line.text, line.special.unwrap_or(args.special));
                let ids = ids.map_err(|failure| failure.within(format_args!("line {number}")))?;
                Ok(writeln!(stdout, "{}", json_line(&json!({"ids": ids})))?)
            })?;
        } else {
            writeln!(stdout, "{}", json!(encode(stdin_text()?, args.special)?))?;
        }
        Ok(stdout.flush()?)
    })
}

pub(crate) fn detokenize(args: &DetokenizeArgs) -> Result<(), Failure> {
    with_vocabulary(&args.model, args.output, |vocabulary| {
        let mut stdout = std::io::BufWriter::new(Screen::stdout(false));
        let text = |bytes: &[u8]| json_line(&json!({"text": String::from_utf8_lossy(bytes)}));
        if args.jsonl {
            each_stdin_line(|number, line| {
                let line: IdsLine = serde_json::from_str(line).map_err(|error| in_line(number, error))?;
                let bytes = vocabulary.decode(line.ids);
                let bytes = bytes.map_err(|failure| failure.within(format_args!("line {number}")))?;
                Ok(writeln!(stdout, "{}", text(&bytes))?)
            })?;
        } else {
            let ids: Vec<TokenId> = serde_json::from_str(&stdin_text()?)
                .map_err(|error| Failure::usage(format!("stdin is no JSON list of token ids: {error}")))?;
            let bytes = vocabulary.decode(ids)?;
            if args.output.json {
                writeln!(stdout, "{}", text(&bytes))?;
            } else {
                // Exactly the bytes, so that `tokenize --no-bos | detokenize` gives back what was sent.
                stdout.write_all(&bytes)?;
            }
        }
        Ok(stdout.flush()?)
    })
}

/// Starts a worker that has read the vocabulary, for as long as `work` needs it.
fn with_vocabulary(
    args: &ModelArgs,
    output: OutputArgs,
    work: impl FnOnce(&mut Vocabulary<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    interrupt::install_ending()?;
    let policy = args.sandbox.policy()?;
    let model = open_model(args)?;
    let job = ServeJob { engine: None };
    let (worker, _) = confined::serve(&model, &args.override_kv, job, &policy, output.verbose)?;
    work(&mut Vocabulary { worker, n_requests: 0 })
}

/// A worker that knows a vocabulary.
struct Vocabulary<'a> {
    worker: Confined<'a>,
    n_requests: u64,
}

impl Vocabulary<'_> {
    fn encode(
        &mut self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, Failure> {
        let request = v1::TokenizeRequest { model: String::new(), text, add_special, parse_special };
        let reply: v1::TokenizeReply = self.ask(Kind::TOKENIZE, &request, Kind::TOKENIZE_REPLY)?;
        Ok(reply.ids)
    }

    fn decode(&mut self, ids: Vec<TokenId>) -> Result<Vec<u8>, Failure> {
        let request = v1::DetokenizeRequest { model: String::new(), ids };
        let reply: v1::DetokenizeReply = self.ask(Kind::DETOKENIZE, &request, Kind::DETOKENIZE_REPLY)?;
        Ok(reply.text)
    }

    fn ask<R: Name + Default>(
        &mut self,
        kind: Kind,
        request: &impl Message,
        reply_kind: Kind,
    ) -> Result<R, Failure> {
        self.n_requests += 1;
        self.worker.request(kind, self.n_requests, request)?;
        let frame = self.worker.receive()?;
        if frame.kind != reply_kind || frame.request_id != self.n_requests {
            let message = format!("the worker answered {kind} with {}", frame.kind);
            return Err(RuntimeFailure::internal(message).into());
        }
        Ok(frame.message::<R>().map_err(RuntimeFailure::from)?)
    }
}

fn in_line(number: usize, error: serde_json::Error) -> Failure {
    // serde_json counts lines within what it was given, which is one line.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    Failure::usage(format!("line {number}, column {}: {text}", error.column()))
}
