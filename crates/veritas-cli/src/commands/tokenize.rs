//! `tokenize` and `detokenize`: texts to token ids and back.
//!
//! Only the vocabulary is needed, so files without tensors, or of architectures that cannot be run, are fine.

use std::io::Write;

use serde::Deserialize;
use serde_json::json;
use veritas_base::TokenId;
use veritas_tokenizer::{EncodeOptions, Tokenizer};

use crate::args::{DetokenizeArgs, ModelArgs, TokenizeArgs};
use crate::commands::input::{each_stdin_line, stdin_text};
use crate::failure::Failure;
use crate::load::open_files;
use crate::report;

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
    let tokenizer = open_tokenizer(&args.model)?;
    let encode = |text: &str, special: bool| {
        let options = EncodeOptions { add_special: !args.no_bos, parse_special: special };
        tokenizer.encode(text, options)
    };
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    if args.jsonl {
        each_stdin_line(|number, line| {
            let line: TextLine = serde_json::from_str(line).map_err(|error| in_line(number, error))?;
            let ids = encode(&line.text, line.special.unwrap_or(args.special));
            let ids = ids.map_err(|error| Failure::from(error).within(format_args!("line {number}")))?;
            Ok(writeln!(stdout, "{}", report::line(&json!({"ids": ids})))?)
        })?;
    } else {
        writeln!(stdout, "{}", json!(encode(&stdin_text()?, args.special)?))?;
    }
    Ok(stdout.flush()?)
}

pub(crate) fn detokenize(args: &DetokenizeArgs) -> Result<(), Failure> {
    let tokenizer = open_tokenizer(&args.model)?;
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    if args.jsonl {
        each_stdin_line(|number, line| {
            let line: IdsLine = serde_json::from_str(line).map_err(|error| in_line(number, error))?;
            let bytes = tokenizer.decode(&line.ids, true);
            let bytes = bytes.map_err(|error| Failure::from(error).within(format_args!("line {number}")))?;
            Ok(writeln!(stdout, "{}", report::line(&json!({"text": String::from_utf8_lossy(&bytes)})))?)
        })?;
    } else {
        let ids: Vec<TokenId> = serde_json::from_str(&stdin_text()?)
            .map_err(|error| Failure::usage(format!("stdin is no JSON list of token ids: {error}")))?;
        let bytes = tokenizer.decode(&ids, true)?;
        if args.output.json {
            writeln!(stdout, "{}", report::line(&json!({"text": String::from_utf8_lossy(&bytes)})))?;
        } else {
            // Exactly the bytes, so that `tokenize --no-bos | detokenize` gives back what was sent.
            stdout.write_all(&bytes)?;
        }
    }
    Ok(stdout.flush()?)
}

fn open_tokenizer(args: &ModelArgs) -> Result<Tokenizer, Failure> {
    Ok(Tokenizer::from_gguf(open_files(args)?.metadata())?)
}

fn in_line(number: usize, error: serde_json::Error) -> Failure {
    // serde_json counts lines within what it was given, which is one line.
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    Failure::usage(format!("line {number}, column {}: {text}", error.column()))
}
