//! `embed`: the embedding of a text, from a model of the daemon.

use std::io::{Read, Write};

use serde_json::json;
use veritas_ipc::blocking::Client;
use veritas_proto::v1;

use crate::commands::talk::CONNECT_TIMEOUT;
use crate::daemon_args::EmbedArgs;
use crate::failure::{Code, Failure};
use crate::report;

/// Bytes of a text that is read from stdin: beyond what the daemon takes.
const TEXT_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn run(args: &EmbedArgs) -> Result<(), Failure> {
    let mut text = args.text.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().lock().take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    }
    let mut client = Client::connect(&args.daemon.path(), &args.daemon.options(Some(CONNECT_TIMEOUT))?)?;
    client.set_timeout(None);
    let model = args.model.clone().unwrap_or_default();
    let reply = client.call(&v1::EmbedRequest { model, input: vec![text], dimensions: None })?;
    let embedding = reply.embeddings.first();
    let embedding = embedding.ok_or_else(|| Failure::new(Code::Internal, "the daemon sent no embedding"))?;
    let line = report::line(&json!({"embedding": embedding.values, "tokens": embedding.tokens}));
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
