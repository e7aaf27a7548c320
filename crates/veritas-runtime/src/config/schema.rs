//! The JSON Schema of the file, for editors and for checks before a roll-out.

use serde_json::{Map, Value as Json, json};

use super::keys::{Key, TABLES, keys};
use super::limits::{LIST_MAX, MODELS_MAX, OVERRIDE_BYTES_MAX};
use super::load::model_keys;
use super::model::ModelConfig;
use super::slot::{Bounds, Slot};
use super::{Config, Environment};
use veritas_sandbox::Layer;

/// The schema (draft 2020-12) of `veritas-sdr.toml`, read as JSON. What one value may be is in it; contradictions between
/// values are found by [`super::resolve`] alone.
pub fn schema() -> Json {
    // Defaults that depend on the process are given in words.
    let mut config = Config::defaults(&Environment { uid: None, variable: &|_| None });
    let mut model = ModelConfig::new(String::new(), std::path::PathBuf::new(), config.engine.clone());
    let mut tables = Map::new();
    for (name, about) in TABLES {
        let table = if name == "models" {
            let properties = model_keys().filter_map(|key| {
                let schema = described(key, key.model_slot(&mut model)?, key.is_of_engine());
                Some((key.name.to_owned(), schema))
            });
            let items = object(properties.collect(), &["name", "path"]);
            json!({"description": about, "type": "array", "maxItems": MODELS_MAX, "items": items})
        } else {
            let own = keys().iter().filter(|key| key.table == name);
            let properties = own.filter_map(|key| {
                let schema = described(key, key.slot(&mut config)?, false);
                Some((key.name.to_owned(), schema))
            });
            let mut table = object(properties.collect(), &[]);
            table["description"] = json!(about);
            table
        };
        tables.insert(name.to_owned(), table);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "veritas-sdr.toml",
        "description": "The configuration of the daemon of Veritas SDR.",
        "type": "object",
        "additionalProperties": false,
        "properties": tables,
    })
}

fn object(properties: Map<String, Json>, required: &[&str]) -> Json {
    let mut object = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn described(key: &Key, slot: Slot<'_>, is_inherited: bool) -> Json {
    let mut schema = of_slot(&slot);
    let default = match key.default {
        _ if is_inherited => Some("what `[engine]` says"),
        default => default,
    };
    schema["description"] = match default {
        Some(words) => json!(format!("{} Default: {words}.", key.about)),
        None => json!(key.about),
    };
    if default.is_none() {
        schema["default"] = slot.shown();
    }
    schema
}

fn of_slot(slot: &Slot<'_>) -> Json {
    match slot {
        Slot::Bool(_) => json!({"type": "boolean"}),
        Slot::Count(_, bounds) | Slot::Time(_, _, bounds) => integer(*bounds),
        Slot::Bytes(_, bounds) => {
            json!({"anyOf": [integer(*bounds), {"type": "string", "pattern": "^[0-9]+ *(KiB|MiB|GiB|TiB)$"}]})
        }
        Slot::Choice(choice) => json!({"enum": choice.names()}),
        // Their bounds are in bytes and those of a schema in characters, and they depend on the platform.
        Slot::Path(..) | Slot::OptionalPath(_) | Slot::TokenFile(_) | Slot::Policy(_) => {
            json!({"type": "string", "minLength": 1})
        }
        Slot::Ids(..) => {
            let id = json!({"type": "integer", "minimum": 0, "maximum": u32::MAX - 1});
            json!({"type": "array", "maxItems": LIST_MAX, "items": id})
        }
        Slot::Layers(_) => {
            json!({"type": "array", "maxItems": LIST_MAX, "items": {"enum": Layer::ALL.map(Layer::name)}})
        }
        Slot::Name(_) => json!({"type": "string", "pattern": r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$"}),
        Slot::Digest(_) => json!({"type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$"}),
        Slot::Overrides(_) => {
            let pattern = "^[^=]+=(int|float|bool|str):";
            let change = json!({"type": "string", "pattern": pattern, "maxLength": OVERRIDE_BYTES_MAX});
            json!({"type": "array", "maxItems": LIST_MAX, "items": change})
        }
        Slot::Groups(_) => {
            let group = json!({"type": "string", "pattern": r"^[0-9]+(\+[0-9]+)+$"});
            json!({"type": "array", "maxItems": LIST_MAX, "items": group})
        }
        Slot::Weights(_) => {
            let weight = json!({"type": "string", "pattern": "^[0-9]+=[1-9][0-9]{0,3}$"});
            json!({"type": "array", "maxItems": LIST_MAX, "items": weight})
        }
    }
}

fn integer(bounds: Bounds) -> Json {
    let Bounds { min, max, zero } = bounds;
    match zero {
        Some(_) if min > 1 => {
            json!({"anyOf": [{"const": 0}, {"type": "integer", "minimum": min, "maximum": max}]})
        }
        Some(_) => json!({"type": "integer", "minimum": 0, "maximum": max}),
        None => json!({"type": "integer", "minimum": min, "maximum": max}),
    }
}
