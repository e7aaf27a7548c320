//! The Jinja environment of chat templates, as transformers sets it up: `trim_blocks`, `lstrip_blocks`, loop controls,
//! lenient undefined values, nothing escaped, values immutable, and three functions of its own. No loader: a template
//! cannot include another.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, escape_formatter};

use super::limits::MAX_RECURSION;
use super::{Date, json, python, source};

/// What `raise_exception` attaches to its error, by which it is told from errors of the engine.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An environment without a template.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_recursion_limit(MAX_RECURSION);
    env.set_unknown_method_callback(python::method);
    env.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        Ok(x) if value.kind() == ValueKind::Number && !value.is_integer() => {
            out.write_str(&json::float(x)).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    });
    // minijinja's own, which Jinja2 lacks: both keep what they are given and look through it anew each time.
    env.remove_filter("chain");
    env.remove_filter("zip");
    env.add_filter("tojson", json::tojson);
    env.add_filter("indent", python::indent);
    env.add_filter(source::ESCAPE_FILTER, python::markup_escape);
    env.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message.to_owned())))
    });
    Ok(env)
}

/// `strftime_now` on the day of the request.
pub(super) fn strftime_now(now: Date) -> Value {
    Value::from_function(move |format: &str| {
        let unknown =
            || Error::new(ErrorKind::InvalidOperation, format!("strftime does not know {format:?}"));
        now.strftime(format).ok_or_else(unknown)
    })
}
