//! Sampling defaults that a model file carries under `general.sampling.*`.

use veritas_gguf::{Metadata, Value};

use super::error::Error;
use super::params::{SamplerKind, SamplingParams};

impl SamplingParams {
    /// The defaults with those of a file laid over them: `general.sampling.sequence`, `top_k`, `top_p`, `min_p`,
    /// `xtc_probability`, `xtc_threshold`, `temp`, `penalty_last_n`, `penalty_repeat`, `mirostat`, `mirostat_tau` and
    /// `mirostat_eta`. What a user asks for goes over these in turn. Numbers stored as strings are read, as llama.cpp
    /// does.
    ///
    /// # Errors
    /// [`Error::Metadata`] for a value of another type, [`Error::UnknownSampler`], and what
    /// [`SamplingParams::validate`] says of the result.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let mut params = Self::default();
        if let Some(chain) = text(metadata, "general.sampling.sequence")? {
            params.samplers = SamplerKind::parse_chain(chain)?;
        }
        let floats = [
            ("general.sampling.top_p", &mut params.top_p),
            ("general.sampling.min_p", &mut params.min_p),
            ("general.sampling.xtc_probability", &mut params.xtc_probability),
            ("general.sampling.xtc_threshold", &mut params.xtc_threshold),
            ("general.sampling.temp", &mut params.temperature),
            ("general.sampling.penalty_repeat", &mut params.repeat_penalty),
            ("general.sampling.mirostat_tau", &mut params.mirostat_tau),
            ("general.sampling.mirostat_eta", &mut params.mirostat_eta),
        ];
        for (key, field) in floats {
            if let Some(value) = float(metadata, key)? {
                *field = value;
            }
        }
        let integers = [
            ("general.sampling.top_k", &mut params.top_k),
            ("general.sampling.penalty_last_n", &mut params.repeat_last_n),
        ];
        for (key, field) in integers {
            if let Some(value) = integer(metadata, key)? {
                *field = value;
            }
        }
        let key = "general.sampling.mirostat";
        if let Some(version) = integer(metadata, key)? {
            params.mirostat =
                u8::try_from(version).map_err(|_| wrong(key, "0, 1 or 2", version.to_string()))?;
        }
        params.validate()?;
        Ok(params)
    }
}

fn wrong(key: &str, expected: &'static str, found: String) -> Error {
    Error::Metadata { key: key.to_owned(), expected, found }
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a str>, Error> {
    match metadata.get(key) {
        None => Ok(None),
        Some(Value::String(x)) => Ok(Some(x)),
        Some(other) => Err(wrong(key, "a string", describe(other))),
    }
}

fn float(metadata: &Metadata, key: &str) -> Result<Option<f32>, Error> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let number = match value {
        Value::F32(x) => Some(*x),
        Value::F64(x) => Some(*x as f32),
        Value::String(x) => x.trim().parse().ok(),
        _ => whole(value).map(|x| x as f32),
    };
    number.map(Some).ok_or_else(|| wrong(key, "a number", describe(value)))
}

fn integer(metadata: &Metadata, key: &str) -> Result<Option<i32>, Error> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let number = match value {
        Value::String(x) => x.trim().parse().ok(),
        _ => whole(value).and_then(|x| i32::try_from(x).ok()),
    };
    number.map(Some).ok_or_else(|| wrong(key, "an integer of 32 bits", describe(value)))
}

fn whole(value: &Value) -> Option<i128> {
    match *value {
        Value::U8(x) => Some(x.into()),
        Value::I8(x) => Some(x.into()),
        Value::U16(x) => Some(x.into()),
        Value::I16(x) => Some(x.into()),
        Value::U32(x) => Some(x.into()),
        Value::I32(x) => Some(x.into()),
        Value::U64(x) => Some(x.into()),
        Value::I64(x) => Some(x.into()),
        _ => None,
    }
}

/// The value for a message: never more of a hostile string or array than fits on a line.
fn describe(value: &Value) -> String {
    match value {
        Value::String(x) => format!("{:?}", x.chars().take(40).collect::<String>()),
        Value::Array(_) => "an array".to_owned(),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        other => whole(other).map_or_else(String::new, |x| x.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use veritas_gguf::Array;

    use super::*;

    fn file(entries: &[(&str, Value)]) -> Result<SamplingParams, Error> {
        let entries = entries.iter().map(|(key, value)| (format!("general.sampling.{key}"), value.clone()));
        SamplingParams::from_metadata(&Metadata::from_entries(entries.collect()).expect("distinct keys"))
    }

    #[test]
    fn defaults_stored_in_the_file_are_honoured() {
        let params = file(&[
            ("sequence", Value::String("top_k;temperature".into())),
            ("top_k", Value::U32(7)),
            ("temp", Value::F32(0.25)),
            ("penalty_last_n", Value::I32(-1)),
            ("mirostat", Value::U8(2)),
            ("mirostat_eta", Value::String("0.5".into())),
            ("min_p", Value::I64(0)),
        ]);
        let want = SamplingParams {
            samplers: vec![SamplerKind::TopK, SamplerKind::Temperature],
            top_k: 7,
            temperature: 0.25,
            repeat_last_n: -1,
            mirostat: 2,
            mirostat_eta: 0.5,
            min_p: 0.0,
            ..Default::default()
        };
        assert_eq!(params, Ok(want));
        assert_eq!(file(&[]), Ok(SamplingParams::default()));
    }

    #[test]
    fn hostile_defaults_in_a_file_are_typed_errors() {
        let one = |key, value| file(&[(key, value)]).expect_err("a wrong value");
        assert!(matches!(one("top_p", Value::Array(Array::F32(vec![0.5]))), Error::Metadata { .. }));
        assert!(matches!(one("top_k", Value::U64(1 << 40)), Error::Metadata { .. }));
        assert!(matches!(one("top_k", Value::F32(40.0)), Error::Metadata { .. }));
        assert!(matches!(one("temp", Value::F32(f32::NAN)), Error::OutOfRange { name: "temperature", .. }));
        assert!(matches!(one("mirostat", Value::I32(-1)), Error::Metadata { .. }));
        assert!(matches!(one("sequence", Value::String("top_k;x".into())), Error::UnknownSampler { .. }));
    }
}
