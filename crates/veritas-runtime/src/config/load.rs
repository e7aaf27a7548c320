//! From the sources of settings to one configuration: flags over the environment over the file over the defaults.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::error::Error;
use super::file::{self, Contents, ModelTable, Source};
use super::keys::{Key, keys};
use super::model::ModelFlag;
use super::slot::Given;
use super::token::{CREDENTIALS_VARIABLE, VARIABLE};
use super::{Config, Errors, ModelConfig, Origin, TokenSource, checks};

/// The variable that names the file.
const FILE_VARIABLE: &str = "VERITAS_CONFIG";

/// Where the file is below `/etc` or the user's folder of configurations.
const FILE_BELOW: &str = "veritas-sdr/veritas-sdr.toml";

/// Where the socket is below `/run` or the user's folder of run-time files.
const SOCKET_BELOW: &str = "veritas-sdr/veritas-sdr.sock";

/// What the configuration takes from the process.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The effective user id; `None` on platforms without.
    pub uid: Option<u32>,
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Environment<'_> {
    /// A folder that a variable names. What is not an absolute path is as good as not set, as the specification of the
    /// `XDG` variables has it.
    fn folder(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

/// What flags gave. Values are checked by [`load`], with errors that name the flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--socket`
    pub socket: Option<PathBuf>,
    /// `--token-file`
    pub token_file: Option<PathBuf>,
    /// `--model [NAME=]PATH`, as it was given. One or more replace all models of the file.
    pub models: Vec<OsString>,
    /// `--threads`
    pub threads: Option<u32>,
    /// `--isa`
    pub isa: Option<String>,
    /// `--ctx`
    pub ctx: Option<u32>,
    /// `--prefill-chunk`
    pub prefill_chunk: Option<u32>,
    /// `--cache-type-k`
    pub cache_type_k: Option<String>,
    /// `--cache-type-v`
    pub cache_type_v: Option<String>,
    /// `--max-sequences`
    pub max_sequences: Option<u32>,
    /// `--kv-pages`
    pub kv_pages: Option<u32>,
    /// `--no-prefix-cache`
    pub no_prefix_cache: bool,
    /// `--sandbox`
    pub sandbox: Option<OsString>,
}

impl Overrides {
    /// The text of a flag.
    fn of(&self, flag: &str) -> Option<OsString> {
        let number = |number: Option<u32>| number.map(|number| number.to_string().into());
        match flag {
            "--socket" => self.socket.clone().map(Into::into),
            "--token-file" => self.token_file.clone().map(Into::into),
            "--threads" => number(self.threads),
            "--isa" => self.isa.clone().map(Into::into),
            "--ctx" => number(self.ctx),
            "--prefill-chunk" => number(self.prefill_chunk),
            "--cache-type-k" => self.cache_type_k.clone().map(Into::into),
            "--cache-type-v" => self.cache_type_v.clone().map(Into::into),
            "--max-sequences" => number(self.max_sequences),
            "--kv-pages" => number(self.kv_pages),
            "--no-prefix-cache" => self.no_prefix_cache.then(|| "false".into()),
            "--sandbox" => self.sandbox.clone(),
            _ => None,
        }
    }
}

/// A setting that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The setting.
    pub key: &'static Key,
    /// The model's name, for a setting of a model.
    pub model: Option<String>,
    /// The value as the file would have it; `null` where nothing is set. Secrets are never among them.
    pub value: Json,
    /// Where it comes from.
    pub origin: Origin,
}

impl Effective {
    /// The setting's whole name: `socket.path`, `models.NAME.path`.
    pub fn path(&self) -> String {
        match &self.model {
            None => self.key.path(),
            Some(model) => format!("models.{model}.{}", self.key.name),
        }
    }
}

/// A configuration, and where each of its settings comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the order of the documentation; those of the models in the models' order.
    pub effective: Vec<Effective>,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
}

/// Reads the configuration. `file` is what `--config` names; without it, the file is what `VERITAS_CONFIG` names, else
/// the first that is there of `$XDG_CONFIG_HOME/veritas-sdr/veritas-sdr.toml` (not for root) and
/// `/etc/veritas-sdr/veritas-sdr.toml`, else none.
///
/// # Errors
/// Everything that is wrong: all errors of the file's syntax, or else all wrong keys and values of file, environment and
/// flags, or else all contradictions between them.
pub fn load(
    file: Option<&Path>,
    environment: &Environment<'_>,
    flags: &Overrides,
) -> Result<Resolved, Errors> {
    let Some(path) = find_file(file, environment)? else {
        return resolve(None, environment, flags);
    };
    let text = file::read(&path)?;
    resolve(Some((&path, &text)), environment, flags)
}

/// [`load`] with the file's path and text given. Nothing is read.
///
/// # Errors
/// As [`load`].
pub fn resolve(
    file: Option<(&Path, &str)>,
    environment: &Environment<'_>,
    flags: &Overrides,
) -> Result<Resolved, Errors> {
    let source = file.map(|(path, text)| Source::new(path, text));
    let tables = source.as_ref().map(Source::parse).transpose();
    let tables = tables.or_else(|errors| Errors::none_or(errors).map(|()| None))?;
    let mut layers = Layers::new(environment);
    let mut models = Vec::new();
    if let (Some(source), Some(tables)) = (&source, &tables) {
        let contents = Contents::of(source, tables, &mut layers.errors);
        layers.put_file(source, &contents);
        models = contents.models;
    }
    let configured_token = layers.config.auth.token.clone();
    layers.put_environment(environment);
    layers.put_flags(flags);
    layers.put_token(configured_token, environment, flags);
    if let Some(source) = &source {
        layers.put_models(source, &models);
    }
    layers.sort_errors();
    layers.put_model_flags(&flags.models);
    layers.finish(file.map(|(path, _)| path.to_owned()))
}

/// The socket's path where nobody names one.
pub fn default_socket_path(environment: &Environment<'_>) -> PathBuf {
    if cfg!(windows) {
        return PathBuf::from(r"\\.\pipe\veritas-sdr");
    }
    let is_root = environment.uid == Some(0);
    let folder = if is_root { None } else { environment.folder("XDG_RUNTIME_DIR") };
    folder.unwrap_or_else(|| PathBuf::from("/run")).join(SOCKET_BELOW)
}

fn find_file(file: Option<&Path>, environment: &Environment<'_>) -> Result<Option<PathBuf>, Error> {
    if let Some(path) = file {
        return Ok(Some(path.to_owned()));
    }
    if let Some(path) = (environment.variable)(FILE_VARIABLE) {
        if path.is_empty() {
            return Err(Error::value(Origin::variable(FILE_VARIABLE), "the file", "", "the path of a file"));
        }
        return Ok(Some(path.into()));
    }
    for path in usual_files(environment) {
        // A file that is there but cannot be looked at must not be passed over.
        match path.try_exists() {
            Ok(true) => return Ok(Some(path)),
            Ok(false) => {}
            Err(error) => return Err(Error::Read { path, reason: error.to_string() }),
        }
    }
    Ok(None)
}

/// Where the file is looked for when nobody names it.
pub(super) fn usual_files(environment: &Environment<'_>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if environment.uid != Some(0) {
        let home = || environment.folder("HOME").map(|home| home.join(".config"));
        folders.extend(environment.folder("XDG_CONFIG_HOME").or_else(home));
    }
    folders.push(PathBuf::from("/etc"));
    folders.into_iter().map(|folder| folder.join(FILE_BELOW)).collect()
}

/// The configuration while its sources are laid over each other.
struct Layers {
    config: Config,
    /// Where the settings come from that are not defaults, by their names; those of models apart.
    origins: BTreeMap<String, Origin>,
    /// The same of each model, by the key's name.
    model_origins: Vec<BTreeMap<&'static str, Origin>>,
    errors: Vec<Error>,
}

impl Layers {
    fn new(environment: &Environment<'_>) -> Self {
        Self {
            config: Config::defaults(environment),
            origins: BTreeMap::new(),
            model_origins: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn put_file(&mut self, source: &Source<'_>, contents: &Contents<'_>) {
        for (key, value) in &contents.settings {
            let Some(slot) = key.slot(&mut self.config) else { continue };
            match source.put(&key.path(), slot, value) {
                Ok(origin) => drop(self.origins.insert(key.path(), origin)),
                Err(error) => self.errors.push(error),
            }
        }
    }

    fn put_environment(&mut self, environment: &Environment<'_>) {
        for key in keys() {
            let Some(variable) = key.variable else { continue };
            if let Some(value) = (environment.variable)(variable) {
                self.put_text(key, &value, Origin::variable(variable));
            }
        }
    }

    fn put_flags(&mut self, flags: &Overrides) {
        for key in keys() {
            let Some(flag) = key.flag else { continue };
            if let Some(value) = flags.of(flag) {
                self.put_text(key, &value, Origin::flag(flag));
            }
        }
    }

    fn put_text(&mut self, key: &Key, text: &OsStr, origin: Origin) {
        let Some(mut slot) = key.slot(&mut self.config) else { return };
        match slot.put(Given::Text(text)) {
            Ok(()) => drop(self.origins.insert(key.path(), origin)),
            Err(refused) => self.errors.push(Error::Value {
                origin,
                key: key.path(),
                found: refused.found,
                allowed: refused.allowed,
            }),
        }
    }

    /// The sources of the token that are no keys: the variable that holds it, and the credential.
    fn put_token(&mut self, configured: TokenSource, environment: &Environment<'_>, flags: &Overrides) {
        let configured = match configured {
            TokenSource::File(path) => Some(path),
            _ => None,
        };
        match TokenSource::find(flags.token_file.clone(), environment, configured) {
            Ok(token) => {
                let variable = match token {
                    TokenSource::Variable => Some(VARIABLE),
                    TokenSource::Credential(_) => Some(CREDENTIALS_VARIABLE),
                    TokenSource::None | TokenSource::File(_) => None,
                };
                if let Some(variable) = variable {
                    self.origins.insert("auth.token_file".to_owned(), Origin::variable(variable));
                }
                self.config.auth.token = token;
            }
            Err(error) => self.errors.push(error),
        }
    }

    fn put_models(&mut self, source: &Source<'_>, tables: &[ModelTable<'_>]) {
        let mut places = BTreeMap::new();
        for table in tables {
            let Some((model, origins)) = self.model(source, table) else { continue };
            let place = origins.get("name").cloned().unwrap_or_else(|| table.origin.clone());
            if let Some(first) = places.insert(model.name.clone(), place.clone()) {
                let message =
                    format!("the model of {first} is called {:?}, too; each needs its own name", model.name);
                self.errors.push(Error::Contradiction { origin: place, message });
                continue;
            }
            self.config.models.push(model);
            self.model_origins.push(origins);
        }
    }

    /// A model of the file; `None` if it has an error.
    fn model(
        &mut self,
        source: &Source<'_>,
        table: &ModelTable<'_>,
    ) -> Option<(ModelConfig, BTreeMap<&'static str, Origin>)> {
        let n_errors = self.errors.len();
        let engine = self.config.engine.clone();
        let mut model = ModelConfig::new(String::new(), PathBuf::new(), engine);
        let mut origins = self.engine_origins();
        // Takes the values that a flag or a variable of `[engine]` overrides, so that they are checked all the same.
        let mut overridden = model.clone();
        for (key, value) in &table.settings {
            let is_overridden =
                matches!(origins.get(key.name), Some(Origin::Environment { .. } | Origin::Flag { .. }));
            let target = if is_overridden { &mut overridden } else { &mut model };
            let Some(slot) = key.model_slot(target) else { continue };
            match source.put(&format!("models.{}", key.name), slot, value) {
                Ok(_) if is_overridden => {}
                Ok(origin) => drop(origins.insert(key.name, origin)),
                Err(error) => self.errors.push(error),
            }
        }
        for name in ["name", "path"] {
            if !table.settings.iter().any(|(key, _)| key.name == name) {
                let key = keys().iter().find(|key| key.table == "models" && key.name == name)?;
                let allowed = key.model_slot(&mut model)?.allowed();
                let (origin, key) = (table.origin.clone(), key.path());
                self.errors.push(Error::Missing { origin, key, allowed });
            }
        }
        (self.errors.len() == n_errors).then_some((model, origins))
    }

    /// Where the settings come from that a model has from `[engine]`.
    fn engine_origins(&self) -> BTreeMap<&'static str, Origin> {
        let engine = keys().iter().filter(|key| key.is_of_engine());
        engine.filter_map(|key| Some((key.name, self.origins.get(&key.path())?.clone()))).collect()
    }

    /// Those of the file in the order of the file, before all others.
    fn sort_errors(&mut self) {
        self.errors.sort_by_key(|error| match error.origin() {
            Some(Origin::File { line, column, .. }) => (*line, *column),
            _ => (usize::MAX, usize::MAX),
        });
    }

    fn put_model_flags(&mut self, flags: &[OsString]) {
        if flags.is_empty() {
            return;
        }
        self.config.models.clear();
        self.model_origins.clear();
        for flag in flags {
            let ModelFlag { name, path } = match ModelFlag::parse(flag) {
                Ok(model) => model,
                Err(error) => {
                    self.errors.push(error);
                    continue;
                }
            };
            let origin = Origin::flag("--model");
            if self.config.models.iter().any(|model| model.name == name) {
                let message =
                    format!("two models are called {name:?}; give one of them another name: NAME=PATH");
                self.errors.push(Error::Contradiction { origin, message });
                continue;
            }
            let mut origins = self.engine_origins();
            origins.extend([("name", origin.clone()), ("path", origin)]);
            self.config.models.push(ModelConfig::new(name, path, self.config.engine.clone()));
            self.model_origins.push(origins);
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Resolved, Errors> {
        // Contradictions between settings of which some are wrong anyway would only confuse.
        Errors::none_or(std::mem::take(&mut self.errors))?;
        let effective = self.effective();
        Errors::none_or(checks::contradictions(&self.config, &effective))?;
        Ok(Resolved { config: self.config, effective, file })
    }

    fn effective(&self) -> Vec<Effective> {
        let mut config = self.config.clone();
        let mut effective = Vec::new();
        for key in keys() {
            let Some(value) = key.slot(&mut config).map(|slot| slot.shown()) else { continue };
            let origin = self.origins.get(&key.path()).cloned().unwrap_or(Origin::Default);
            effective.push(Effective { key, model: None, value, origin });
        }
        for (model, origins) in config.models.iter_mut().zip(&self.model_origins) {
            for key in model_keys() {
                let Some(value) = key.model_slot(model).map(|slot| slot.shown()) else { continue };
                let origin = origins.get(key.name).cloned().unwrap_or(Origin::Default);
                effective.push(Effective { key, model: Some(model.name.clone()), value, origin });
            }
        }
        effective
    }
}

/// The settings of a model: its own, then those of `[engine]`.
pub(super) fn model_keys() -> impl Iterator<Item = &'static Key> {
    let (own, engine) =
        (|key: &&Key| key.is_of_models() && !key.is_of_engine(), |key: &&Key| key.is_of_engine());
    keys().iter().filter(own).chain(keys().iter().filter(engine))
}
