//! From the configuration of a model to a task that keeps it.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use veritas_sandbox::{Limits, Policy};

use super::keeper::{self, Plan};
use super::model_state::{ModelState, Phase};
use super::shell::Shell;
use crate::config::{Engine, ModelConfig, Sandbox, SandboxPolicy};
use crate::failure::{Code, Failure};
use crate::host::{OpenModel, sandbox_failure};
use crate::jobs::ServeJob;
use crate::spec::EngineSpec;

/// Whole contexts that the pages of the KV cache hold where nobody says how many pages there are: enough for some long
/// conversations, or for many short ones.
const CONTEXTS_CACHED: usize = 8;

/// Opens a model's files and starts the task that keeps it.
///
/// # Errors
/// If a file is not there, or its settings make no sense.
pub(crate) fn add(shell: &Rc<Shell>, config: &ModelConfig) -> Result<(), Failure> {
    let engine = engine_spec(&config.engine);
    engine.check()?;
    let policy = policy(&shell.config.borrow().sandbox)?;
    let model = OpenModel::open(&config.path)?;
    let limits = Limits { data_bytes: shell.config.borrow().sandbox.memory_bytes, file_bytes: None };
    let plan = Plan {
        name: config.name.clone(),
        overrides: config.override_kv.iter().map(ToString::to_string).collect(),
        job: ServeJob { engine: Some(engine) },
        policy,
        limits,
        allow_missing: shell.config.borrow().sandbox.allow_missing,
        digest: config.digest.as_ref().map(ToString::to_string),
        built_in: &[],
        model: Arc::new(model),
    };
    shell.with(|core, now| {
        let (path, bytes) = (plan.model.path.clone(), plan.model.bytes);
        let max_sequences = config.engine.max_sequences as usize;
        let mut state =
            ModelState::new(path, bytes, max_sequences, config.idle_unload, config.no_digest, now);
        if !config.preload {
            state.phase = Phase::Unloaded;
        }
        core.models.insert(config.name.clone(), state);
    });
    // It may have to be unloaded one day.
    shell.clock.notify_one();
    let signal = Rc::new(Notify::new());
    shell.models.borrow_mut().insert(config.name.clone(), Rc::clone(&signal));
    tokio::task::spawn_local(keeper::keep(Rc::clone(shell), plan, signal));
    Ok(())
}

fn engine_spec(engine: &Engine) -> EngineSpec {
    EngineSpec {
        isa: engine.isa.map_or_else(|| "auto".to_owned(), |isa| isa.to_string()),
        threads: engine.threads.map(usize::from),
        n_context: engine.ctx.map(|ctx| ctx as usize),
        n_sequences: engine.max_sequences as usize,
        n_pages: engine.kv_pages,
        contexts_cached: Some(CONTEXTS_CACHED),
        prefix_cache: engine.prefix_cache,
        n_sequences_per_principal: engine.sequences_per_principal_max.map(|max| max as usize),
        n_pages_per_principal: engine.kv_pages_per_principal_max.map(|max| max as usize),
        chunk_tokens: engine.prefill_chunk as usize,
        cache_type_k: engine.cache_type_k.to_string(),
        cache_type_v: engine.cache_type_v.to_string(),
    }
}

/// Refuses to serve where workers would have no sandbox and may not do without, and warns where they may: before the first
/// worker, which may start much later.
///
/// # Errors
/// As [`policy`]; if there is no sandbox for this system and the configuration does not allow that.
pub(crate) fn check_sandbox(sandbox: &Sandbox) -> Result<(), Failure> {
    let missing = veritas_sandbox::missing(&policy(sandbox)?, sandbox.allow_missing);
    if let Some(reason) = missing.map_err(|error| sandbox_failure(&error))? {
        tracing::warn!(
            reason,
            "WORKERS RUN WITHOUT A SANDBOX: whatever a model's file does, nothing contains it"
        );
    }
    Ok(())
}

/// The policy that the configuration names, with the layers that it requires besides.
///
/// # Errors
/// If the file is not there, or makes no sense.
pub(crate) fn policy(sandbox: &Sandbox) -> Result<Policy, Failure> {
    let mut policy = match &sandbox.policy {
        SandboxPolicy::Default => Policy::default(),
        SandboxPolicy::Strict => Policy::strict(),
        SandboxPolicy::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Code::NotFound, format!("cannot read the policy {}: {error}", path.display()))
            })?;
            Policy::parse(&text).map_err(|error| sandbox_failure(&error).within(path.display()))?
        }
    };
    policy.require(sandbox.required_layers());
    Ok(policy)
}
