//! The architectures, one file per family.

mod command_r;
mod deepseek2;
mod gemma;
mod glm4;
mod gpt2;
mod gptneox;
mod granite;
mod llama;
mod olmo2;
mod phi3;
mod qwen;
mod starcoder2;

use veritas_gguf::split::GgufSet;

use crate::build::Builder;
use crate::error::Error;
use crate::plan::Plan;

type Build = fn(&Builder<'_>) -> Result<Plan, Error>;

/// `general.architecture` and what builds its plan.
const FAMILIES: &[(&str, Build)] = &[
    ("command-r", command_r::build),
    ("deepseek2", deepseek2::build),
    ("gemma", gemma::build_gemma),
    ("gemma2", gemma::build_gemma2),
    ("gemma3", gemma::build_gemma3),
    ("glm4", glm4::build),
    ("gpt2", gpt2::build),
    ("gptneox", gptneox::build),
    ("granite", granite::build),
    ("llama", llama::build_llama),
    ("olmo2", olmo2::build),
    ("phi3", phi3::build),
    ("qwen2", qwen::build_qwen2),
    ("qwen2moe", qwen::build_qwen2_moe),
    ("qwen3", qwen::build_qwen3),
    ("qwen3moe", qwen::build_qwen3_moe),
    ("smollm3", llama::build_smollm3),
    ("starcoder2", starcoder2::build),
];

/// The names in `general.architecture` that [`build_plan`] knows, sorted.
pub fn supported_architectures() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.0)
}

/// Makes the plan of a model from the metadata and tensor infos of its file or files.
///
/// # Errors
/// [`Error::UnknownArchitecture`] and [`Error::Unsupported`] for a file that may be in order but cannot be run;
/// every other error means that the file contradicts itself.
pub fn build_plan(files: &GgufSet) -> Result<Plan, Error> {
    let architecture = files.metadata().str("general.architecture")?;
    let Some(family) = FAMILIES.iter().find(|family| family.0 == architecture) else {
        return Err(Error::UnknownArchitecture {
            name: architecture.chars().take(64).collect(),
            supported: supported_architectures().collect::<Vec<_>>().join(", "),
        });
    };
    (family.1)(&Builder::new(files, architecture)?)
}
