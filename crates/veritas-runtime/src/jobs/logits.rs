//! `logits`: the model's output for given tokens, as the bytes of a safetensors file.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use veritas_base::TokenId;
use veritas_engine::{Model, Runner, SequenceSpec, compute_logits};

use super::{Context, team_of};
use crate::failure::Failure;
use crate::spec::EngineSpec;

/// Compute the logits of every position of given tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogitsJob {
    /// The tokens.
    pub sequences: Vec<Vec<TokenId>>,
    /// Whether there is one sequence, whose tensor has no number in its name.
    pub is_single: bool,
    /// Compute all sequences in the same steps.
    pub batch: bool,
    /// The hidden states too; of one sequence.
    pub hidden: bool,
    /// How the model is run.
    pub engine: EngineSpec,
}

/// A tensor that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A tensor of f32 as safetensors stores it.
struct Stored {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub(super) fn run(job: &LogitsJob, context: &Context<'_>) -> Result<Vec<WrittenTensor>, Failure> {
    let model = Arc::new(Model::new(context.open()?)?);
    let team = team_of(context.teams, job.engine.n_threads())?;
    let mut runner = Runner::new(Arc::clone(&model), &job.engine.runner_config(Some(team))?)?;
    let n_vocab = model.plan().n_vocab;
    let mut tensors = BTreeMap::new();
    match &job.sequences[..] {
        [ids] if job.hidden => hidden_and_logits(&mut runner, ids, &mut tensors)?,
        _ if job.hidden => return Err(Failure::usage("--hidden takes one list of ids")),
        sequences => {
            let mut rows = vec![Vec::new(); sequences.len()];
            compute_logits(&mut runner, sequences, job.batch, &mut |sequence, _, logits| {
                rows[sequence].extend(logits.iter().flat_map(|logit| logit.to_le_bytes()));
                Ok(())
            })?;
            for (index, bytes) in rows.into_iter().enumerate() {
                let name = if job.is_single { "logits".to_owned() } else { format!("logits.{index}") };
                tensors.insert(name, Stored { shape: vec![sequences[index].len(), n_vocab], bytes });
            }
        }
    }
    write(&tensors, &mut context.out())?;
    let written =
        tensors.into_iter().map(|(name, stored)| WrittenTensor { name, shape: stored.shape }).collect();
    Ok(written)
}

fn hidden_and_logits(
    runner: &mut Runner,
    ids: &[TokenId],
    tensors: &mut BTreeMap<String, Stored>,
) -> Result<(), Failure> {
    runner.capture_hidden();
    runner.add(SequenceSpec::new(ids.to_vec(), 0), true)?;
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

fn write(tensors: &BTreeMap<String, Stored>, out: &mut impl Write) -> Result<(), Failure> {
    let internal = |error: safetensors::SafeTensorError| Failure::internal(error.to_string());
    let views = tensors.iter().map(|(name, stored)| {
        let view = TensorView::new(Dtype::F32, stored.shape.clone(), &stored.bytes).map_err(internal)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, Failure>>()?;
    out.write_all(&safetensors::serialize(views, None).map_err(internal)?)?;
    Ok(out.flush()?)
}
