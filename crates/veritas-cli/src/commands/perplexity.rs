//! `perplexity`: how well a model predicts a text.

use std::io::Write;

use serde_json::json;
use veritas_engine::perplexity;
use veritas_tokenizer::EncodeOptions;

use crate::args::PerplexityArgs;
use crate::failure::{Code, Failure};
use crate::load::load;
use crate::terminal;

/// Tokens of a chunk where the user asks for no other number: the convention of published figures.
const DEFAULT_CHUNK_TOKENS: usize = 512;

pub(crate) fn run(args: &PerplexityArgs) -> Result<(), Failure> {
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::new(Code::NotFound, format!("{}: {error}", args.file.display())))?;
    let loaded = load(&args.model, args.output.quiet)?;
    let tokens =
        loaded.model.tokenizer().encode(&text, EncodeOptions { add_special: true, parse_special: false })?;
    let mut config = args.engine.runner_config(1)?;
    config.n_context = config.n_context.or(Some(DEFAULT_CHUNK_TOKENS.min(loaded.model.plan().n_context)));
    let bar = terminal::progress_bar(1, "chunks", args.output.quiet);
    let result = perplexity(&loaded.model, &config, &tokens, &mut |done, n_chunks, so_far| {
        bar.set_length(n_chunks as u64);
        bar.set_position(done as u64);
        bar.set_message(format!("PPL {:.4}", so_far.perplexity));
    })?;
    bar.finish_and_clear();
    let mut stdout = std::io::stdout().lock();
    if args.output.json {
        let report = json!({
            "tokens": result.n_tokens,
            "nll_mean": result.nll_mean,
            "perplexity": result.perplexity,
            "stderr": result.stderr,
        });
        writeln!(stdout, "{report}")?;
    } else {
        let (perplexity, stderr) = (result.perplexity, result.stderr);
        writeln!(stdout, "perplexity {perplexity:.4} ± {stderr:.4} over {} tokens", result.n_tokens)?;
    }
    Ok(())
}
