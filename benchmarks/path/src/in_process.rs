//! The variant without a path: the engine in this process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use veritas_engine::{Engine, Model, ModelFiles, Output, RunnerConfig};

use crate::workload::{Answer, CLIENTS_MAX, Seen, engine_request};

/// The engine, with the threads, the sequences and the pages that the daemon's worker has.
pub(crate) struct InProcess {
    engine: Engine,
    /// Tokens of each answer.
    n_tokens: u32,
}

impl InProcess {
    /// Reads the model.
    ///
    /// # Errors
    /// If it cannot be read or run.
    pub(crate) fn load(path: &Path, n_threads: usize, n_pages: u32, n_tokens: u32) -> Result<Self> {
        let files = ModelFiles::open(path, &[]).with_context(|| format!("cannot read {}", path.display()))?;
        let model = Model::new(files).with_context(|| format!("cannot run {}", path.display()))?;
        let config = RunnerConfig {
            n_threads,
            n_sequences: CLIENTS_MAX,
            n_pages: Some(n_pages),
            ..RunnerConfig::default()
        };
        Ok(Self { engine: Engine::new(Arc::new(model), &config)?, n_tokens })
    }

    /// The model.
    pub(crate) fn model(&self) -> &Model {
        self.engine.model()
    }

    /// Asks one request for each prompt, all at once, `n_waves` times. The prompts are encoded within the time that is
    /// taken, as the daemon does it.
    ///
    /// # Errors
    /// If a request fails.
    pub(crate) fn run(&mut self, prompts: &[String], n_waves: usize) -> Result<Seen> {
        let mut seen = Seen::default();
        for _ in 0..n_waves {
            seen.add_wave(self.wave(prompts)?, self.n_tokens)?;
        }
        Ok(seen)
    }

    fn wave(&mut self, prompts: &[String]) -> Result<Vec<Answer>> {
        let mut answers = prompts.iter().map(|_| Answer::new(self.n_tokens)).collect::<Vec<_>>();
        let mut clients = HashMap::new();
        for (client, prompt) in prompts.iter().enumerate() {
            let request = engine_request(self.engine.model(), prompt, self.n_tokens)?;
            clients.insert(self.engine.submit(&request)?, client);
        }
        let mut failure = None;
        let mut tell = |output: Output| match output {
            Output::Token { request, token, .. } => {
                if let Some(&client) = clients.get(&request) {
                    answers[client].push(&[token.id]);
                }
            }
            Output::Failed { error, .. } => failure = Some(error),
            _ => {}
        };
        while self.engine.step(&mut tell)? {}
        match failure {
            Some(error) => bail!("the engine fails a request: {error}"),
            None => Ok(answers),
        }
    }
}
