//! Where the token comes from, and which tokens are none.

use super::*;

fn source(case: &Case) -> (TokenSource, String) {
    (case.config().auth.token, case.origin("auth.token_file"))
}

#[test]
fn a_token_comes_from_the_flag_then_a_variable_then_the_file_then_the_credential() {
    let file = |path: &str| TokenSource::File(path.into());
    let case = Case::default();
    assert_eq!(source(&case), (TokenSource::None, "default".to_owned()));
    let case = case.variable("CREDENTIALS_DIRECTORY", "/cred");
    let credential = TokenSource::Credential("/cred/veritas-token".into());
    assert_eq!(source(&case), (credential, "environment CREDENTIALS_DIRECTORY".to_owned()));
    let case = Case { text: Some("[auth]\ntoken_file = \"t\"".to_owned()), ..case };
    assert_eq!(source(&case), (file("/c/t"), "/c/veritas-sdr.toml:2:14".to_owned()));
    let mut case = case.variable("VERITAS_TOKEN", "secret");
    assert_eq!(source(&case), (TokenSource::Variable, "environment VERITAS_TOKEN".to_owned()));
    case.variables.remove("VERITAS_TOKEN");
    let case = case.variable("VERITAS_TOKEN_FILE", "/v");
    assert_eq!(source(&case), (file("/v"), "environment VERITAS_TOKEN_FILE".to_owned()));
    let flags = Overrides { token_file: Some("/f".into()), ..Overrides::default() };
    let case = case.variable("VERITAS_TOKEN", "secret").flags(flags);
    assert_eq!(source(&case), (file("/f"), "flag --token-file".to_owned()));
}

#[test]
fn two_variables_with_a_token_are_a_contradiction() {
    let case = Case::default().variable("VERITAS_TOKEN", "hunter2").variable("VERITAS_TOKEN_FILE", "/v");
    let errors = case.errors();
    assert!(errors.len() == 1 && errors[0].contains("unset one of them"), "{errors:?}");
    assert!(!errors[0].contains("hunter2"));
}

#[test]
fn no_token_is_shown() {
    let resolved = Case::default().variable("VERITAS_TOKEN", "hunter2").resolve().unwrap();
    let shown = resolved.show(true);
    assert!(
        shown.contains("# the token is in a variable") && shown.contains("environment VERITAS_TOKEN"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2") && !format!("{resolved:?}").contains("hunter2"));
}

fn read(source: &TokenSource, variable: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let lookup = |name: &str| variable.filter(|_| name == "VERITAS_TOKEN").map(OsString::from);
    let environment = Environment { uid: Some(1000), variable: &lookup };
    let secret = source.read(&environment).map_err(|error| error.to_string())?;
    Ok(secret.map(|secret| secret.expose().to_vec()))
}

#[test]
fn whitespace_at_the_end_is_no_part_of_a_token_and_nothing_else_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let source = TokenSource::File(path.clone());
    for (bytes, token) in [(" a b\r\n", " a b"), ("a\n\n\n", "a"), ("a \t\n", "a"), ("ä", "ä")] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&source, None), Ok(Some(token.into())));
        assert_eq!(read(&TokenSource::Variable, Some(bytes)), Ok(Some(token.into())));
    }
    std::fs::write(&path, [vec![b'x'; 4095], vec![b'\n']].concat()).unwrap();
    assert_eq!(read(&source, None).unwrap().unwrap().len(), 4095);
}

#[test]
fn tokens_that_are_empty_too_long_or_several_lines_are_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let source = TokenSource::File(path.clone());
    let long = "hunter2".repeat(600);
    let cases = [
        ("", "is empty"),
        ("\n", "is empty"),
        (" \r\n\t", "is empty"),
        ("hunter2\nx", "one line"),
        (&long, "4096"),
    ];
    for (text, part) in cases {
        std::fs::write(&path, text).unwrap();
        for found in [read(&source, None), read(&TokenSource::Variable, Some(text))] {
            let message = found.unwrap_err();
            assert!(message.contains(part) && !message.contains("hunter2"), "{message}");
        }
    }
    assert!(read(&source, None).unwrap_err().contains(path.to_str().unwrap()));
}

#[test]
fn a_file_must_be_there_but_a_credential_need_not() {
    let nowhere = PathBuf::from("/nowhere/token");
    assert_eq!(read(&TokenSource::None, None), Ok(None));
    assert_eq!(read(&TokenSource::Credential(nowhere.clone()), None), Ok(None));
    assert!(read(&TokenSource::File(nowhere), None).unwrap_err().contains("/nowhere/token"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veritas-token");
    std::fs::write(&path, "\n").unwrap();
    assert!(
        read(&TokenSource::Credential(path), None).is_err(),
        "an empty credential is not the same as none"
    );
}

#[test]
fn a_client_finds_its_token_as_the_daemon_does() {
    let lookup = |name: &str| (name == "VERITAS_TOKEN").then(|| OsString::from("x"));
    let environment = Environment { uid: Some(1000), variable: &lookup };
    assert_eq!(TokenSource::find(None, &environment, None), Ok(TokenSource::Variable));
    assert_eq!(TokenSource::find(Some("/f".into()), &environment, None), Ok(TokenSource::File("/f".into())));
}
