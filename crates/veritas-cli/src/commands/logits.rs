//! `logits`: the model's output for given tokens, as a safetensors file.

use std::collections::BTreeMap;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView};
use veritas_base::TokenId;
use veritas_engine::{Runner, SequenceSpec, compute_logits};

use crate::args::LogitsArgs;
use crate::failure::{Code, Failure};
use crate::load::load;
use crate::terminal;

/// A tensor of f32 as safetensors stores it.
struct Stored {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub(crate) fn run(args: &LogitsArgs) -> Result<(), Failure> {
    let sequences = sequences(args)?;
    if args.hidden && sequences.len() != 1 {
        return Err(Failure::usage("--hidden takes one list of ids"));
    }
    let loaded = load(&args.model, true)?;
    let n_sequences = if args.batch { sequences.len().max(1) } else { 1 };
    let mut runner = Runner::new(Arc::clone(&loaded.model), &args.engine.runner_config(n_sequences)?)?;
    let n_vocab = loaded.model.plan().n_vocab;
    let mut tensors = BTreeMap::new();
    if args.hidden {
        hidden_and_logits(&mut runner, &sequences[0], &mut tensors)?;
    } else {
        let mut rows = vec![Vec::new(); sequences.len()];
        compute_logits(&mut runner, &sequences, args.batch, &mut |sequence, _, logits| {
            rows[sequence].extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
            Ok(())
        })?;
        for (index, bytes) in rows.into_iter().enumerate() {
            let name = if args.ids.is_some() { "logits".to_owned() } else { format!("logits.{index}") };
            tensors.insert(name, Stored { shape: vec![sequences[index].len(), n_vocab], bytes });
        }
    }
    write(args, &tensors)?;
    if !args.output.quiet && !args.output.json {
        terminal::say(format_args!("wrote {} to {}", tensors_text(&tensors), args.out.display()));
    }
    Ok(())
}

fn sequences(args: &LogitsArgs) -> Result<Vec<Vec<TokenId>>, Failure> {
    match (&args.ids, &args.ids_file) {
        (Some(ids), _) => Ok(vec![ids.clone()]),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::new(Code::NotFound, format!("{}: {error}", path.display())))?;
            Ok(serde_json::from_str(&text)?)
        }
        (None, None) => Err(Failure::usage("--ids or --ids-file is needed")),
    }
}

fn hidden_and_logits(
    runner: &mut Runner,
    ids: &[TokenId],
    tensors: &mut BTreeMap<String, Stored>,
) -> Result<(), Failure> {
    runner.capture_hidden();
    runner.add(SequenceSpec { prompt: ids.to_vec(), n_new_max: 0, same_prompt_as: None }, true)?;
    let mut logits = Vec::new();
    let mut hidden: Vec<Vec<f32>> = Vec::new();
    while !runner.is_idle() {
        runner.step(&mut |row| {
            logits.extend(row.logits.iter().flat_map(|logit| logit.to_le_bytes()));
            Ok(None)
        })?;
        let step = runner.take_hidden();
        hidden.resize_with(step.len(), Vec::new);
        hidden.iter_mut().zip(step).for_each(|(all, rows)| all.extend(rows));
    }
    let plan = runner.model().plan();
    let shape = vec![hidden.len(), ids.len(), plan.hidden];
    let bytes = hidden.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    tensors.insert("hidden".to_owned(), Stored { shape, bytes });
    tensors.insert("logits".to_owned(), Stored { shape: vec![ids.len(), plan.n_vocab], bytes: logits });
    Ok(())
}

fn write(args: &LogitsArgs, tensors: &BTreeMap<String, Stored>) -> Result<(), Failure> {
    let internal = |error: safetensors::SafeTensorError| Failure::new(Code::Internal, error.to_string());
    let views = tensors.iter().map(|(name, stored)| {
        let view = TensorView::new(Dtype::F32, stored.shape.clone(), &stored.bytes).map_err(internal)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, Failure>>()?;
    let bytes = safetensors::serialize(views, None).map_err(internal)?;
    std::fs::write(&args.out, bytes).map_err(|error| {
        Failure::new(Code::Internal, format!("cannot write {}: {error}", args.out.display()))
    })
}

fn tensors_text(tensors: &BTreeMap<String, Stored>) -> String {
    let one = |(name, stored): (&String, &Stored)| format!("{name} {:?}", stored.shape);
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}
