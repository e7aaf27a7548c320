//! What templates take from Python beyond Jinja: methods of strings, dictionaries and lists. Most come from
//! minijinja-contrib's `pycompat`; here are those that it lacks or that would not be bounded.

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Callback for a method that minijinja does not know.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), name) {
        (ValueKind::String, _) => string_method(state, value, name, args),
        (ValueKind::Seq | ValueKind::Iterable, "index") => {
            let (what,): (&Value,) = from_args(args)?;
            for (i, item) in value.try_iter()?.checked().enumerate() {
                if item? == *what {
                    return Ok(Value::from(i));
                }
            }
            Err(Error::new(ErrorKind::InvalidOperation, "the value is not in the list"))
        }
        (ValueKind::Map, "copy") => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        // What would change a value in place: refused as transformers' sandbox does.
        (
            ValueKind::Seq | ValueKind::Map,
            "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "update",
        ) => {
            let message = format!("{name} would change a value; templates may not");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn string_method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    state.consume_fuel(text.len() as u64 / 64)?;
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (found, missing) = match name {
                "partition" => (text.split_once(separator), (text, "", "")),
                _ => (text.rsplit_once(separator), ("", "", text)),
            };
            let (before, middle, after) = found.map_or(missing, |(before, after)| (before, separator, after));
            Ok(Value::from([before, middle, after].map(Value::from).to_vec()))
        }
        "index" => {
            let (what,): (&str,) = from_args(args)?;
            let at = text.find(what).map(|at| text[..at].chars().count());
            at.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))
        }
        "rsplit" => rsplit(text, args),
        "split" => split(value, text, args),
        "format" => {
            bounded_format(text)?;
            pycompat::unknown_method_callback(state, value, name, args)
        }
        "encode" | "decode" | "translate" | "expandtabs" | "center" | "ljust" | "rjust" | "zfill" => {
            Err(Error::from(ErrorKind::UnknownMethod))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `split` with a separator that is not empty, and a maximum that may be negative.
fn split(value: &Value, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
    let max = max.and_then(|max| usize::try_from(max).ok());
    let parts: Vec<Value> = match (separator, max) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        (Some(separator), Some(max)) => {
            text.splitn(max.saturating_add(1), separator).map(Value::from).collect()
        }
        (Some(separator), None) => text.split(separator).map(Value::from).collect(),
        (None, None) => text.split_whitespace().map(Value::from).collect(),
        (None, Some(max)) => {
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            minijinja::filters::split(value, None, Some(max))?.try_iter()?.collect()
        }
    };
    Ok(Value::from(parts))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, max): (&str, Option<i64>) = from_args(args)?;
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let max = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = text.rsplitn(max.saturating_add(1), separator).map(Value::from).collect();
    parts.reverse();
    Ok(Value::from(parts))
}

/// A format may name fields, not widths beyond four digits, and not widths that are fields themselves: one would be a
/// string of any length at once.
fn bounded_format(format: &str) -> Result<(), Error> {
    let (mut depth, mut digits) = (0usize, 0);
    for c in format.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 4 && depth > 0 {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "a format's width is limited to four digits",
            ));
        }
        if depth > 2 || (depth == 2 && c == ':') {
            return Err(Error::new(ErrorKind::InvalidOperation, "a format's width must be a number"));
        }
    }
    Ok(())
}

/// Python's way of writing a string into HTML, as sums with markup do.
pub(super) fn markup_escape(state: &State, value: &Value) -> Result<String, Error> {
    let text = value.to_string();
    state.consume_fuel(text.len() as u64 / 16)?;
    Ok(text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;"))
}

/// Jinja's `indent(width=4, first=false, blank=false)`, which keeps a line's end at the end of the text.
pub(super) fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    /// Widest indentation, so that a template cannot make long strings of few.
    const MAX_WIDTH: usize = 1000;
    let width = match width {
        Some(width) => Some(width),
        None => kwargs.get::<Option<Value>>("width")?,
    };
    let first = kwargs.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let indentation = match width {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.chars().take(MAX_WIDTH).collect(),
            None => " ".repeat(usize::try_from(width)?.min(MAX_WIDTH)),
        },
    };
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if index > 0 {
            out.push('\n');
        }
        if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
            state.consume_fuel(indentation.len() as u64 / 16 + 1)?;
            out.push_str(&indentation);
        }
        out.push_str(line);
    }
    state.consume_fuel(out.len() as u64 / 16)?;
    Ok(out)
}
