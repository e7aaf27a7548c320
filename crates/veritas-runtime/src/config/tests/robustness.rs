//! Texts that nobody would write: each gives a configuration or errors, and never a panic.

use proptest::prelude::*;

use super::*;

/// Any outcome is right, but the errors are there, can be printed, and stand in the file.
fn survives(text: &str) {
    match Case::file(text).resolve() {
        Ok(resolved) => {
            let shown = resolved.show(true);
            assert_eq!(Case::file(&shown).config(), resolved.config, "{text:?} is shown as {shown}");
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            let n_lines = text.matches('\n').count() + 1;
            for error in &*errors {
                assert!(!error.to_string().is_empty());
                if let Some(Origin::File { line, column, .. }) = error.origin() {
                    assert!((1..=n_lines).contains(line) && *column >= 1, "{text:?}: {error}");
                }
            }
        }
    }
}

/// A line that is nearly right: a table, or a key with a value of any type.
fn line() -> impl Strategy<Value = String> {
    let names =
        keys().iter().map(|key| key.name).chain(["x", "a.b", "\"q\"", "socket.path", ""]).collect::<Vec<_>>();
    let tables =
        ["[socket]", "[auth]", "[engine]", "[[models]]", "[models]", "[limits]", "[worker]", "[sandbox]"];
    let tables = tables.into_iter().chain(["[shutdown]", "[log]", "[x]", "[[socket]]", "[socket.path]", "["]);
    let values = [
        "0",
        "1",
        "64",
        "5000",
        "-1",
        "18446744073709551616",
        "0o600",
        "0xff",
        "1_000",
        "1.5",
        "nan",
        "true",
        "\"\"",
        "\"a\"",
        "\"0660\"",
        "\"512MiB\"",
        "\"auto\"",
        "\"default\"",
        "'''\n'''",
        "[]",
        "[0, 5]",
        "[\"seccomp\"]",
        "[[1], {}]",
        "{}",
        "{ path = 1 }",
        "1979-05-27",
        "",
        "[",
        "\"",
    ];
    prop_oneof![
        1 => proptest::sample::select(tables.collect::<Vec<_>>()).prop_map(str::to_owned),
        3 => (proptest::sample::select(names), proptest::sample::select(values.to_vec()))
            .prop_map(|(name, value)| format!("{name} = {value}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_gives_a_configuration_or_errors(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn any_text_of_the_characters_of_toml_gives_a_configuration_or_errors(
        text in "[\\[\\]{}=.,\"'#\\\\\na-c0-9 _+-]{0,64}"
    ) {
        survives(&text);
    }

    #[test]
    fn lines_that_are_nearly_right_give_a_configuration_or_errors(lines in proptest::collection::vec(line(), 0..12)) {
        survives(&lines.join("\n"));
    }

    #[test]
    fn any_variable_gives_a_configuration_or_an_error(key in 0..keys().len(), text in any::<String>()) {
        if let Some(variable) = keys()[key].variable {
            let case = Case::default().variable(variable, text);
            let errors = case.errors();
            prop_assert!(errors.iter().all(|error| error.contains(variable)), "{errors:?}");
        }
    }
}

#[test]
fn tables_within_tables_do_not_exhaust_the_stack() {
    survives(&format!("{}a = 1\n", "a.".repeat(400_000)));
    survives(&format!("[{}a]\n", "a.".repeat(400_000)));
    survives(&format!("a = {}", "[".repeat(500_000)));
    survives(&format!("a = {}", "{a=".repeat(300_000)));
    // The parser bounds braces and dots each for themselves, and this has both.
    let line = format!("{}a = {{\n", "a.".repeat(79));
    survives(&format!("[{}a]\n{}", "b.".repeat(79), line.repeat(80)));
}
