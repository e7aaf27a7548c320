//! `sandbox test`: with a model loaded, as in service, the worker tries to break out.

use serde_json::{Value, json};
use veritas_engine::{Model, ModelFiles};
use veritas_sandbox::{Policy, ProbeContext};

use crate::failure::Failure;

/// Loads the model and runs every probe.
pub(crate) fn probe(policy: &Policy, context: &ProbeContext, files: ModelFiles) -> Result<Value, Failure> {
    // It is held until the end: the probes run in a process that has all that a served model has.
    let model = Model::new(files)?;
    let probes = veritas_sandbox::probes(policy, context);
    drop(model);
    Ok(json!({"probes": probes}))
}
