//! The schema, the example and the tables of the documentation, written from the list of settings. With
//! `UPDATE_EXPECT=1` they are written again.

use serde_json::{Value as Json, json};

use super::super::keys::{Key, TABLES};
use super::super::show;
use super::super::slot::Slot;
use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Holds a committed file to what it should be, or writes it.
fn expect(file: &str, expected: &str) {
    let path = Path::new(ROOT).join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(committed == expected, "{file} is not current: run this test with UPDATE_EXPECT=1");
}

fn committed_schema() -> Json {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/config.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_committed_schema_is_current() {
    expect("docs/config.schema.json", &format!("{:#}\n", schema()));
}

/// Values at and just beyond what a schema allows: those that must be taken, and those that must be refused.
fn values_at_the_bounds(schema: &Json) -> (Vec<Json>, Vec<Json>) {
    if let Some(kinds) = schema["anyOf"].as_array() {
        let kinds = kinds.iter().map(values_at_the_bounds).collect::<Vec<_>>();
        let good = kinds.iter().flat_map(|(good, _)| good.clone()).collect::<Vec<_>>();
        let bad = kinds.into_iter().flat_map(|(_, bad)| bad).filter(|bad| !good.contains(bad));
        return (good.clone(), bad.collect());
    }
    if let Some(names) = schema["enum"].as_array() {
        return (names.clone(), vec![json!("other"), json!(""), json!(1)]);
    }
    if let Some(only) = schema.get("const") {
        return (vec![only.clone()], Vec::new());
    }
    match schema["type"].as_str() {
        Some("boolean") => (vec![json!(true), json!(false)], vec![json!("true"), json!(1)]),
        Some("integer") => {
            let (min, max) = (schema["minimum"].as_i64().unwrap(), schema["maximum"].as_i64().unwrap());
            (
                vec![json!(min), json!(max)],
                vec![json!(min - 1), json!(max + 1), json!("x"), json!(1.5), json!(true)],
            )
        }
        Some("array") => {
            let (good, bad) = values_at_the_bounds(&schema["items"]);
            let lists =
                |values: Vec<Json>| values.into_iter().map(|value| json!([value])).collect::<Vec<_>>();
            ([lists(good), vec![json!([])]].concat(), [lists(bad), vec![json!(1), json!("x")]].concat())
        }
        Some("string") if schema["minLength"] == json!(1) => {
            (vec![json!("/x")], vec![json!(1), json!(""), json!(["x"])])
        }
        Some("string") => (Vec::new(), vec![json!(1), json!(["x"]), json!(true)]),
        other => panic!("{other:?}"),
    }
}

/// A file with one setting and what it needs to be complete.
fn file_with(table: &str, name: &str, value: &Json) -> String {
    let value = show::toml(value);
    let mut text = match table {
        "models" => format!("[[models]]\n{name} = {value}\n"),
        _ => format!("[{table}]\n{name} = {value}\n"),
    };
    for (needed, value) in [("name", "a"), ("path", "/m")] {
        if table == "models" && name != needed {
            text += &format!("{needed} = \"{value}\"\n");
        }
    }
    text
}

#[test]
fn the_committed_schema_and_the_code_allow_the_same_values() {
    let schema = committed_schema();
    let mut n_values = 0;
    for (table, schema) in schema["properties"].as_object().unwrap() {
        let schema = if table == "models" { &schema["items"] } else { schema };
        assert_eq!(schema["additionalProperties"], json!(false));
        for (name, schema) in schema["properties"].as_object().unwrap() {
            let (good, bad) = values_at_the_bounds(schema);
            let errors = |value: &Json| {
                let mut errors = match Case::file(&file_with(table, name, value)).resolve() {
                    Ok(_) => Vec::new(),
                    Err(errors) => errors.into_iter().collect(),
                };
                // Only what is wrong with this value counts.
                errors.retain(|error| matches!(error, Error::Value { .. } | Error::UnknownKey { .. }));
                errors
            };
            for value in &good {
                assert_eq!(errors(value), [], "{table}.{name} = {value}");
            }
            for value in &bad {
                assert_eq!(errors(value).len(), 1, "{table}.{name} = {value}");
            }
            n_values += good.len() + bad.len();
        }
    }
    assert!(n_values > 200, "only {n_values} values were tried");
}

#[test]
fn the_patterns_of_the_schema_are_those_of_the_code() {
    // Without an engine for patterns, each pattern is pinned with the texts that its code takes and refuses.
    let schema = committed_schema();
    let cases = [
        (
            "name",
            r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}$",
            vec!["a", "A.b-c_9"],
            vec!["", ".", "..", "a b", "ä"],
        ),
        ("digest", "^sha256:[0-9a-fA-F]{64}$", vec![], vec!["", "sha256:", "sha256:zz"]),
    ];
    for (name, pattern, good, bad) in cases {
        assert_eq!(schema["properties"]["models"]["items"]["properties"][name]["pattern"], json!(pattern));
        for (texts, n_errors) in [(good, 0), (bad, 1)] {
            for text in texts {
                assert_eq!(
                    Case::file(&file_with("models", name, &json!(text))).errors().len(),
                    n_errors,
                    "{text}"
                );
            }
        }
    }
    let digest = json!(format!("sha256:{}", "aF09".repeat(16)));
    assert_eq!(Case::file(&file_with("models", "digest", &digest)).errors(), [] as [String; 0]);
}

/// The value of a setting where nobody gives one, if it is one that could be written; else words.
fn default_of(key: &Key) -> (Option<Json>, String) {
    let mut config = Config::defaults(&environment_of_nobody());
    let model_slot = |config: &mut Config| {
        let mut model = config.model("a", Path::new("/m")).unwrap();
        key.model_slot(&mut model).map(|slot| slot.shown())
    };
    let value = key.slot(&mut config).map(|slot| slot.shown()).or_else(|| model_slot(&mut config)).unwrap();
    match key.default {
        Some(words) => (None, words.to_owned()),
        None => (Some(value.clone()), format!("`{}`", show::toml(&value))),
    }
}

/// What is allowed, in words.
fn allowed_of(key: &Key) -> String {
    let mut config = Config::defaults(&environment_of_nobody());
    let mut model = config.model("a", Path::new("/m")).unwrap();
    let words = |slot: Slot<'_>| slot.allowed();
    let of_model = |model: &mut ModelConfig| key.model_slot(model).map(words);
    let allowed = key.slot(&mut config).map(words).or_else(|| of_model(&mut model)).unwrap();
    // The bound is that of the platform that the test runs on.
    if key.path() == "socket.path" {
        "a path of 1 to 107 bytes (103 on systems other than Linux)".to_owned()
    } else {
        allowed
    }
}

fn tables_of_documentation() -> String {
    let mut text = String::new();
    for (table, about) in TABLES {
        let header = if table == "models" { "`[[models]]`".to_owned() } else { format!("`[{table}]`") };
        text += &format!("### {header}\n\n{about}\n\n");
        text +=
            "| key | meaning | allowed | default | environment, flag | reload |\n|---|---|---|---|---|---|\n";
        for key in keys().iter().filter(|key| key.table == table) {
            let sources = [key.variable, key.flag].into_iter().flatten().map(|name| format!("`{name}`"));
            text += &format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                key.name,
                key.about,
                allowed_of(key),
                default_of(key).1,
                sources.collect::<Vec<_>>().join(", "),
                if key.reloadable { "yes" } else { "" },
            );
        }
        text += "\n";
    }
    text
}

#[test]
fn the_tables_of_the_documentation_are_current() {
    const MARKS: [&str; 2] = ["<!-- settings: written by a test -->\n\n", "<!-- end of settings -->\n"];
    let committed = std::fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    let (before, rest) = committed.split_once(MARKS[0]).unwrap();
    let (_, after) = rest.split_once(MARKS[1]).unwrap();
    let expected = [before, MARKS[0], &tables_of_documentation(), MARKS[1], after].concat();
    expect("docs/configuration.md", &expected);
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + word.len() < 100 {
            *line = format!("{line} {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The example: every setting, commented out, with its meaning and its default.
fn example() -> String {
    let mut text = "# The configuration of the daemon of Veritas SDR, with every setting and its default.\n\
                    # Remove the `#` before a table and before the settings in it that you change. What is allowed, and the\n\
                    # variables and flags that win over this file, are in docs/configuration.md.\n\
                    # `veritas-sdr config check FILE` finds mistakes; `veritas-sdr config show --origin` says what holds.\n"
        .to_owned();
    for (table, about) in TABLES {
        let header = if table == "models" { "[[models]]".to_owned() } else { format!("[{table}]") };
        text += "\n";
        for line in wrapped(about) {
            text += &format!("## {line}\n");
        }
        text += &format!("#{header}\n");
        for key in keys().iter().filter(|key| key.table == table) {
            let (value, words) = default_of(key);
            let default = if value.is_none() { format!(" Default: {words}.") } else { String::new() };
            for line in wrapped(&format!("{}{default}", key.about)) {
                text += &format!("## {line}\n");
            }
            let value = value.map_or_else(|| instance(key).to_owned(), |value| show::toml(&value));
            text += &format!("#{} = {value}\n", key.name);
        }
    }
    text
}

/// A value for the example, of a setting whose default is none that could be written.
fn instance(key: &Key) -> &'static str {
    match key.path().as_str() {
        "socket.path" => "\"/run/veritas-sdr/veritas-sdr.sock\"",
        "socket.allowed_uids" | "socket.admin_uids" => "[0, 1000]",
        "auth.token_file" => "\"/etc/veritas-sdr/token\"",
        "models.name" => "\"story\"",
        "models.path" => "\"/var/lib/veritas-sdr/story.gguf\"",
        "models.digest" => "\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
        "log.file" => "\"/var/log/veritas-sdr.log\"",
        path => panic!("{path} needs a value for the example"),
    }
}

#[test]
fn the_committed_example_is_current() {
    expect("deploy/veritas-sdr.toml", &example());
}

#[test]
fn the_committed_example_changes_nothing_as_it_is_and_is_valid_when_every_setting_is_uncommented() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("deploy/veritas-sdr.toml")).unwrap();
    assert_eq!(Case::file(&text).config(), Case::default().config());
    let is_setting =
        |line: &&str| line.starts_with('#') && !line.starts_with("##") && !line.starts_with("# ");
    let uncommented = text.lines().filter(is_setting).map(|line| &line[1..]).collect::<Vec<_>>();
    let n_settings = uncommented.iter().filter(|line| line.contains(" = ")).count();
    assert_eq!(n_settings, keys().len());
    let config = Case::file(&uncommented.join("\n")).config();
    let mut expected = Case::default().config();
    expected.auth.token = TokenSource::File("/etc/veritas-sdr/token".into());
    expected.log.file = Some("/var/log/veritas-sdr.log".into());
    let mut model = expected.model("story", Path::new("/var/lib/veritas-sdr/story.gguf")).unwrap();
    model.digest = Some(veritas_base::Sha256Digest::of(b"abc"));
    expected.models.push(model);
    assert_eq!(config, expected);
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/configuration.md")).unwrap();
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = Case::file(example).config();
    assert_eq!(config.models.len(), 2);
}
