//! From the flags to a model that is ready to run.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use veritas_engine::{MetadataOverride, Model, ModelFiles};

use crate::args::ModelArgs;
use crate::failure::{Code, Failure};
use crate::terminal;

/// The model that is part of the program, so that the first run needs no download.
const BUILT_IN: &[u8] = include_bytes!("../../../tools/demo-model/veritas-demo.gguf");

/// A loaded model and what loading it gave.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    /// Of all its files; `None` if the user did not want it computed.
    pub(crate) digest: Option<String>,
    pub(crate) load_ms: f64,
}

/// Opens the files of the model that the flags name.
pub(crate) fn open_files(args: &ModelArgs) -> Result<ModelFiles, Failure> {
    let overrides = &args.override_kv[..];
    match &args.model {
        None => Ok(ModelFiles::built_in(BUILT_IN, overrides)?),
        Some(path) => open_path(path, overrides),
    }
}

fn open_path(path: &Path, overrides: &[MetadataOverride]) -> Result<ModelFiles, Failure> {
    if path.is_dir() {
        let message = format!("{} is a folder; only GGUF files can be run", path.display());
        return Err(Failure::new(Code::UnsupportedModel, message).hint("name the .gguf file itself"));
    }
    Ok(ModelFiles::open(path, overrides)?)
}

/// Loads the model that the flags name and, unless they forbid it, computes its digest.
pub(crate) fn load(args: &ModelArgs, quiet: bool) -> Result<Loaded, Failure> {
    let start = Instant::now();
    let files = open_files(args)?;
    let digest = (!args.no_digest).then(|| {
        let bar = terminal::progress_bar(files.set().file_bytes(), "bytes", quiet).with_message("digest");
        let digest = files.digest(&mut |done| bar.set_position(done));
        bar.finish_and_clear();
        digest.to_string()
    });
    let model = Arc::new(Model::new(files)?);
    Ok(Loaded { model, digest, load_ms: start.elapsed().as_secs_f64() * 1e3 })
}
