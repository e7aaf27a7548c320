//! `serve`: the daemon.

use crate::daemon_args::ServeArgs;
use crate::failure::{Code, Failure};
#[cfg(unix)]
use {
    crate::daemon_args::{config_failure, environment, warn_of_token_file},
    veritas_ipc::{Token, TokenHash},
    veritas_runtime::supervisor::{self, ServeOptions},
};

#[cfg(not(unix))]
pub(crate) fn run(_args: &ServeArgs) -> Result<(), Failure> {
    Err(Failure::new(
        Code::Config,
        "there is no daemon for this system yet: it needs named pipes and a sandbox",
    ))
}

#[cfg(unix)]
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let resolved = args.resolve().map_err(|errors| config_failure(&errors))?;
    let config = resolved.config;
    if config.models.is_empty() {
        return Err(Failure::new(Code::Config, "there is no model to serve")
            .hint("name one with --model [NAME=]PATH, or in the configuration"));
    }
    if let Some(path) = &args.at.token_file {
        warn_of_token_file(path)?;
    }
    let token = token(&config)?;
    let reread = Box::new(args.clone().reread());
    Ok(supervisor::serve(ServeOptions { config, token, reread })?)
}

#[cfg(unix)]
fn token(config: &veritas_runtime::config::Config) -> Result<Option<TokenHash>, Failure> {
    let secret = config.auth.token.read(&environment());
    let secret = secret.map_err(|error| Failure::new(Code::Config, error.to_string()))?;
    match secret {
        None => Ok(None),
        Some(secret) => Ok(Some(Token::new(secret.expose())?.hash())),
    }
}
