//! Which model a worker runs, and how: as flags and configuration say it, in words that travel.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use veritas_engine::{CacheTypes, MetadataOverride, ModelFiles, PrincipalLimits, RunnerConfig};
use veritas_kernels::{CacheType, Team};
use veritas_simd::Isa;

use crate::failure::Failure;

/// Where a model comes from. A worker is given its files as open descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The model that is part of the program, in place of files.
    pub built_in: bool,
    /// How messages call it: the path that the user gave.
    pub name: String,
    /// Changes of the metadata, as `KEY=TYPE:VALUE`.
    pub overrides: Vec<String>,
}

impl ModelSpec {
    /// Parses the files.
    ///
    /// # Errors
    /// What is wrong with an override or a file.
    pub fn open(&self, files: &[std::fs::File], built_in: &'static [u8]) -> Result<ModelFiles, Failure> {
        let overrides = self.overrides.iter().map(|text| parse_override(text).map_err(Failure::usage));
        let overrides = overrides.collect::<Result<Vec<_>, _>>()?;
        if self.built_in {
            return Ok(ModelFiles::built_in(built_in, &overrides)?);
        }
        Ok(ModelFiles::of_open_files(files, Path::new(&self.name), &overrides)?)
    }
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// `auto`, or the name of an instruction set.
    pub isa: String,
    /// Threads that compute; `None` for one per processor.
    pub threads: Option<usize>,
    /// Tokens that a prompt and its answer may have; `None` for the model's context, at most 4096.
    pub n_context: Option<usize>,
    /// Sequences that run at once.
    pub n_sequences: usize,
    /// Pages of the KV cache; `None` for a number that follows from the context and the sequences.
    pub n_pages: Option<u32>,
    /// Where `n_pages` is not said: whole contexts that the pages hold at most, however many sequences there may be.
    pub contexts_cached: Option<usize>,
    /// Whether prefixes that were computed are found again by later requests of the same principal.
    pub prefix_cache: bool,
    /// Sequences of one principal that run at once; `None` for no limit of its own.
    pub n_sequences_per_principal: Option<usize>,
    /// Pages of one principal; `None` for no limit of its own.
    pub n_pages_per_principal: Option<usize>,
    /// Tokens of a prompt that one step computes.
    pub chunk_tokens: usize,
    /// How the cache stores keys.
    pub cache_type_k: String,
    /// How the cache stores values.
    pub cache_type_v: String,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self {
            isa: "auto".to_owned(),
            threads: None,
            n_context: None,
            n_sequences: 1,
            n_pages: None,
            contexts_cached: None,
            prefix_cache: true,
            n_sequences_per_principal: None,
            n_pages_per_principal: None,
            chunk_tokens: veritas_engine::DEFAULT_CHUNK_TOKENS,
            cache_type_k: "f16".to_owned(),
            cache_type_v: "f16".to_owned(),
        }
    }
}

impl EngineSpec {
    /// Threads that compute.
    pub fn n_threads(&self) -> usize {
        self.threads.unwrap_or_else(available_threads)
    }

    /// The instruction set.
    ///
    /// # Errors
    /// If it is not known or this machine lacks it.
    pub fn isa(&self) -> Result<Isa, Failure> {
        parse_isa(&self.isa)
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<(), Failure> {
        self.runner_config(None).map(drop)
    }

    /// The configuration of a runner that computes with `team`.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn runner_config(&self, team: Option<Arc<Team>>) -> Result<RunnerConfig, Failure> {
        let cache_type = |flag, name| {
            parse_cache_type(name).map_err(|expected| Failure::usage(format!("{flag} {name}: {expected}")))
        };
        Ok(RunnerConfig {
            isa: self.isa()?,
            n_threads: self.n_threads(),
            team,
            n_context: self.n_context,
            n_sequences: self.n_sequences,
            n_pages: self.n_pages,
            prefix_cache: self.prefix_cache,
            principal_limits: PrincipalLimits {
                n_sequences: self.n_sequences_per_principal,
                n_waiting: None,
                n_pages: self.n_pages_per_principal,
            },
            chunk_tokens: self.chunk_tokens,
            cache_types: CacheTypes {
                key: cache_type("--cache-type-k", &self.cache_type_k)?,
                value: cache_type("--cache-type-v", &self.cache_type_v)?,
            },
            cuts: Vec::new(),
        })
    }
}

/// Threads that the system lets this process run at once.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The instruction set that `--isa` names.
///
/// # Errors
/// If it is not known or this machine lacks it.
pub fn parse_isa(name: &str) -> Result<Isa, Failure> {
    if name == "auto" {
        return Ok(Isa::detect());
    }
    let isa: Isa = name.parse().map_err(|error| Failure::usage(format!("--isa: {error}")))?;
    if !isa.is_available() {
        let message = format!("--isa {name}: this machine does not have it");
        return Err(Failure::usage(message).hint(format!("the best level here is {}", Isa::detect())));
    }
    Ok(isa)
}

/// The change of the metadata that `--override-kv` describes.
///
/// # Errors
/// What would be accepted.
pub fn parse_override(text: &str) -> Result<MetadataOverride, String> {
    text.parse().map_err(|allowed| format!("expected {allowed}"))
}

/// The cache type that `--cache-type-k` and `--cache-type-v` name.
///
/// # Errors
/// What would be accepted.
pub fn parse_cache_type(name: &str) -> Result<CacheType, String> {
    let named = CacheType::from_name(&name.to_ascii_lowercase());
    named.ok_or_else(|| format!("expected one of {}", CacheType::NAMES.join(", ")))
}
