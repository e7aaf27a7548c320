//! `tokenize` and `detokenize`: texts to token ids and back.
//!
//! Only the vocabulary is needed, so files without tensors, or of architectures that cannot be run, are fine.

use std::io::Write;

use serde::Deserialize;
use serde_json::json;
use veritas_base::TokenId;
use veritas_ipc::Unary;
use veritas_ipc::blocking::Client;
use veritas_proto::v1;
use veritas_runtime::Failure as RuntimeFailure;
use veritas_runtime::host::Confined;
use veritas_runtime::jobs::ServeJob;
use veritas_runtime::json_line;

use crate::args::{DetokenizeArgs, ModelArgs, OutputArgs, TokenizeArgs};
use crate::commands::input::{each_stdin_line, stdin_text};
use crate::commands::talk::CONNECT_TIMEOUT;
use crate::daemon_args::ConnectArgs;
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
    with_vocabulary(&args.model, &args.connect, args.output, |vocabulary| {
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
    with_vocabulary(&args.model, &args.connect, args.output, |vocabulary| {
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

/// Starts a worker that has read the vocabulary, or connects to the daemon, for as long as `work` needs it.
fn with_vocabulary(
    args: &ModelArgs,
    connect: &ConnectArgs,
    output: OutputArgs,
    work: impl FnOnce(&mut Vocabulary<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    interrupt::install_ending()?;
    if connect.connect {
        let options = connect.daemon.options(Some(CONNECT_TIMEOUT))?;
        let client = Client::connect(&connect.daemon.path(), &options)?;
        return work(&mut Vocabulary::Daemon { client: Box::new(client), model: args.name() });
    }
    let policy = args.sandbox.policy()?;
    let model = open_model(args)?;
    let job = ServeJob { engine: None };
    let (worker, _) = confined::serve(&model, &args.override_kv, job, &policy, output.verbose)?;
    work(&mut Vocabulary::Worker { worker: Box::new(worker), n_requests: 0 })
}

/// Who knows a vocabulary.
enum Vocabulary<'a> {
    /// A worker of one's own, and how often it was asked.
    Worker { worker: Box<Confined<'a>>, n_requests: u64 },
    /// The daemon, with the name of a model.
    Daemon { client: Box<Client>, model: String },
}

impl Vocabulary<'_> {
    fn encode(
        &mut self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<TokenId>, Failure> {
        let request = v1::TokenizeRequest { model: self.model(), text, add_special, parse_special };
        Ok(self.ask(&request)?.ids)
    }

    fn decode(&mut self, ids: Vec<TokenId>) -> Result<Vec<u8>, Failure> {
        let request = v1::DetokenizeRequest { model: self.model(), ids };
        Ok(self.ask(&request)?.text)
    }

    /// The name of the daemon's model; a worker has one without a name.
    fn model(&self) -> String {
        match self {
            Self::Worker { .. } => String::new(),
            Self::Daemon { model, .. } => model.clone(),
        }
    }

    fn ask<R: Unary>(&mut self, request: &R) -> Result<R::Reply, Failure> {
        let (worker, n_requests) = match self {
            Self::Daemon { client, .. } => return Ok(client.call(request)?),
            Self::Worker { worker, n_requests } => (worker, n_requests),
        };
        *n_requests += 1;
        worker.request(R::KIND, *n_requests, request)?;
        let frame = worker.receive()?;
        if frame.kind != R::REPLY_KIND || frame.request_id != *n_requests {
            let message = format!("the worker answered {} with {}", R::KIND, frame.kind);
            return Err(RuntimeFailure::internal(message).into());
        }
        Ok(frame.message().map_err(RuntimeFailure::from)?)
    }
}

fn in_line(number: usize, error: serde_json::Error) -> Failure {
    // serde_json counts lines within what it was given, which is one line.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    Failure::usage(format!("line {number}, column {}: {text}", error.column()))
}
