//! What is refused, where the error points, and what it says.

use super::*;

/// Each text has exactly one error, which is at the line and the column and says the part.
#[test]
fn every_mistake_in_the_file_names_its_line_and_column() {
    let long_path = format!("[socket]\npath = \"/{}\"\n", "x".repeat(300));
    let cases = [
        ("[sockets]\n", "1:2", "there is no key `sockets`; allowed is [socket], [auth], "),
        ("top = 1\n", "1:1", "there is no key `top`"),
        ("[socket]\n\n  pat = \"x\"\n", "3:3", "there is no key `socket.pat`; allowed is path, mode, "),
        ("[socket.path]\n", "1:1", "`socket.path` is a table"),
        ("socket = 3\n", "1:10", "`socket` is of the type integer; allowed is a table under [socket]"),
        ("[[socket]]\n", "1:1", "`socket` is of the type array"),
        ("[models]\nname = \"a\"\n", "1:1", "each under [[models]]"),
        ("models = [1]\n", "1:11", "`models` is of the type integer"),
        ("[[models]]\nname = \"a\"\npath = \"/m\"\nspeed = 1\n", "4:1", "there is no key `models.speed`"),
        ("[[models]]\nname = \"a\"\npath = \"/m\"\n[models.more]\n", "4:9", "there is no key `models.more`"),
        ("[engine]\nname = \"a\"\n", "2:1", "there is no key `engine.name`"),
        ("[auth]\ntoken = \"hunter2\"\n", "2:1", "allowed is auth.token_file"),
        ("\"a\\nb\" = 1\n", "1:1", "there is no key `a\\nb`"),
        ("[socket]\nmode = \"0777\"\n", "2:8", "`socket.mode` is \"0777\"; allowed is \"0600\" or \"0660\""),
        ("[socket]\nmode = 0o600\n", "2:8", "`socket.mode` is 0o600; allowed is \"0600\""),
        ("[socket]\npath = \"\"\n", "2:8", "a path of 1 to "),
        ("[socket]\npath = \"a\\u0000b\"\n", "2:8", "a path of 1 to "),
        (&long_path, "2:8", "a path of 1 to "),
        (
            "[socket]\nallowed_uids = [1000, -1]\n",
            "2:23",
            "`socket.allowed_uids` is -1; allowed is a list of",
        ),
        ("[socket]\nallowed_uids = [4294967295]\n", "2:17", "from 0 to 4294967294"),
        ("[socket]\nallowed_uids = 5\n", "2:16", "a list of"),
        ("[socket]\nmax_sessions = 0\n", "2:16", "a whole number from 1 to 65536"),
        ("[socket]\nmax_sessions = 1.5\n", "2:16", "`socket.max_sessions` is 1.5"),
        ("[socket]\nmax_sessions = \"5\"\n", "2:16", "`socket.max_sessions` is \"5\""),
        ("[socket]\nmax_sessions = 99999999999999999999999\n", "2:16", "is 99999999999999999999999;"),
        (
            "[socket]\nhandshake_timeout_ms = 99\n",
            "2:24",
            "milliseconds as a whole number from 100 to 600000",
        ),
        ("[socket]\nbody_bytes_max = \"65MiB\"\n", "2:18", "from 16384 to 67108864"),
        ("[socket]\nbody_bytes_max = \"1MB\"\n", "2:18", "a text such as \"512MiB\""),
        ("[engine]\nthreads = 513\n", "2:11", "from 1 to 512, or 0 for one per processor"),
        ("[engine]\nisa = \"sse2\"\n", "2:7", "\"auto\", \"portable\", \"avx2\", \"avx512\" or \"neon\""),
        ("[engine]\ncache_type_k = \"F16\"\n", "2:16", "\"f32\", \"f16\", \"q8_0\" or \"q4_0\""),
        ("[limits]\nqueue_max = true\n", "2:13", "`limits.queue_max` is true"),
        ("[limits]\nrequest_timeout_ms = -5\n", "2:22", "or 0 for no limit"),
        ("[worker]\nstep_timeout_ms = 99\n", "2:19", "from 100 to 86400000, or 0"),
        ("[sandbox]\nrequire = [\"seccomp\",\n  \"moat\"]\n", "3:3", "`sandbox.require` is \"moat\""),
        ("[sandbox]\nstrict = \"yes\"\n", "2:10", "true or false"),
        ("[sandbox]\nmemory_bytes = 1\n", "2:16", "or 0 for what the policy says"),
        ("[log]\nlevel = \"loud\"\n", "2:9", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\""),
        ("[log]\nfile = 1979-05-27\n", "2:8", "`log.file` is 1979-05-27"),
        ("\n[[models]]\npath = \"/m\"\n", "2:1", "`models.name` is missing; it must be a text of"),
        ("[[models]]\nname = \"a\"\n", "1:1", "`models.path` is missing"),
        ("[[models]]\nname = \"a/b\"\npath = \"/m\"\n", "2:8", "`models.name` is \"a/b\""),
        (
            "[[models]]\nname = \"a\"\npath = \"/m\"\ndigest = \"sha256:00\"\n",
            "4:10",
            "64 hexadecimal digits",
        ),
        (
            "[[models]]\nname = \"a\"\npath = \"/m\"\nidle_unload_s = 604801\n",
            "4:17",
            "to 604800, or 0 for never",
        ),
        ("[[models]]\nname = \"a\"\npath = \"/m\"\noverride_kv = [\"k=u8:1\"]\n", "4:16", "KEY=TYPE:VALUE"),
        ("[socket\n", "1:8", ""),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "3:1", "duplicate"),
        ("[log]\nlevel = info\n", "2:9", ""),
    ];
    for (text, place, part) in cases {
        let errors = Case::file(text).errors();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        let start = format!("/c/veritas-sdr.toml:{place}: ");
        assert!(errors[0].starts_with(&start) && errors[0].contains(part), "{text}: {}", errors[0]);
        assert!(!errors[0].contains('\n') && !errors[0].contains("hunter2"), "{}", errors[0]);
    }
}

#[test]
fn columns_count_characters_not_bytes() {
    let errors = Case::file("[log]\nfile = \"ä\" # ö\n\"é\" = 1\n").errors();
    assert!(errors[0].starts_with("/c/veritas-sdr.toml:3:1: "), "{errors:?}");
    let errors = Case::file("log = { file = \"äöü\", level = 3 }\n").errors();
    assert!(errors[0].starts_with("/c/veritas-sdr.toml:1:31: "), "{errors:?}");
}

#[test]
fn all_errors_are_listed_in_the_order_of_the_file_then_the_environment_then_the_flags() {
    let case = Case::file("[worker]\nheartbeat_ms = 0\nbeat = 1\n[log]\nlevel = 1\n[auth]\nx = 1\n")
        .variable("VERITAS_SOCKET_MAX_SESSIONS", "many")
        .variable("VERITAS_LOG_FILE", "")
        .flags(Overrides {
            kv_pages: Some(u32::MAX),
            isa: Some("mmx".into()),
            models: vec!["x=".into()],
            ..Overrides::default()
        });
    let starts = [
        "/c/veritas-sdr.toml:2:16: `worker.heartbeat_ms`",
        "/c/veritas-sdr.toml:3:1: there is no key `worker.beat`",
        "/c/veritas-sdr.toml:5:9: `log.level`",
        "/c/veritas-sdr.toml:7:1: there is no key `auth.x`",
        "environment VERITAS_SOCKET_MAX_SESSIONS: `socket.max_sessions` is \"many\"",
        "environment VERITAS_LOG_FILE: `log.file` is \"\"",
        "flag --isa: `engine.isa` is \"mmx\"",
        "flag --kv-pages: `engine.kv_pages` is \"4294967295\"",
        "flag --model: `models` is \"x=\"",
    ];
    let errors = case.errors();
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error} does not start with {start}");
    }
}

#[test]
fn numbers_of_variables_have_neither_signs_nor_spaces() {
    for text in ["+5", "-5", " 5", "5 ", "0x5", "5_000", "", "5.0", "99999999999999999999"] {
        let errors = Case::default().variable("VERITAS_LIMITS_QUEUE_MAX", text).errors();
        assert_eq!(errors.len(), 1, "{text}");
    }
    assert_eq!(Case::default().variable("VERITAS_LIMITS_QUEUE_MAX", "5").config().limits.queue_max, 5);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_a_path_and_nothing_else() {
    use std::os::unix::ffi::OsStringExt;
    let text = || OsString::from_vec(vec![b'/', 0xff]);
    assert_eq!(Case::default().variable("VERITAS_LOG_FILE", text()).config().log.file, Some(text().into()));
    for variable in
        ["VERITAS_LOG", "VERITAS_LIMITS_QUEUE_MAX", "VERITAS_SOCKET_ALLOWED_UIDS", "VERITAS_SANDBOX_STRICT"]
    {
        let errors = Case::default().variable(variable, text()).errors();
        assert!(errors.len() == 1 && errors[0].contains(variable), "{errors:?}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_where_one_of_them_stands() {
    let model = "[[models]]\nname = \"a\"\npath = \"/m\"\n";
    let digest = format!("{model}no_digest = true\ndigest = \"sha256:{}\"\n", "0".repeat(64));
    let twice = format!("{model}{model}");
    let cases = [
        ("[socket]\nallowed_gids = [5]\n", "2:16", "\"0660\""),
        ("[socket]\nadmin_uids = [1234]\n", "2:14", "has 1234, which may not connect"),
        ("[socket]\nallowed_uids = [1234]\n", "2:16", "has 1000, which may not connect"),
        ("[worker]\nheartbeat_ms = 10000\n", "2:16", "must be more than"),
        ("[worker]\nrestart_backoff_max_ms = 50\n", "2:26", "must be at least"),
        ("[sandbox]\nallow_missing = true\npolicy = \"strict\"\n", "2:17", "contradicts"),
        ("[sandbox]\nstrict = true\nallow_missing = true\n", "3:17", "contradicts"),
        (&digest, "4:13", "no_digest"),
        (&twice, "5:8", "the model of /c/veritas-sdr.toml:2:8 is called \"a\", too"),
    ];
    for (text, place, part) in cases {
        let errors = Case::file(text).errors();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        let start = format!("/c/veritas-sdr.toml:{place}: ");
        assert!(errors[0].starts_with(&start) && errors[0].contains(part), "{text}: {}", errors[0]);
    }
    let flags = Overrides { models: vec!["a=/x".into(), "/y/a.gguf".into()], ..Overrides::default() };
    assert!(Case::default().flags(flags).errors()[0].contains("two models are called \"a\""));
}

#[test]
fn a_value_of_a_model_that_a_flag_overrides_is_checked_all_the_same() {
    let text = "[[models]]\nname = \"a\"\npath = \"/m\"\nthreads = 999\n";
    let case = Case::file(text).flags(Overrides { threads: Some(2), ..Overrides::default() });
    assert!(case.errors()[0].starts_with("/c/veritas-sdr.toml:4:11: `models.threads` is 999"));
    let case = Case::file(text).flags(Overrides { models: vec!["b=/m".into()], ..Overrides::default() });
    assert_eq!(case.errors().len(), 1, "so is a model that flags replace");
}

#[test]
fn long_lists_long_files_and_many_models_are_refused() {
    let ids = |n: usize| format!("[socket]\nallowed_uids = [{}]\n", "1000,".repeat(n));
    assert_eq!(Case::file(&ids(1024)).errors(), [] as [String; 0]);
    assert!(
        Case::file(&ids(1025)).errors()[0].contains("is a list of 1025; allowed is a list of at most 1024")
    );
    let models =
        |n: usize| (0..n).map(|n| format!("[[models]]\nname = \"{n}\"\npath = \"/m\"\n")).collect::<String>();
    assert_eq!(Case::file(&models(256)).config().models.len(), 256);
    assert!(Case::file(&models(257)).errors()[0].contains("at most 256 tables"));
    let long = format!("#{}", "x".repeat(1 << 20));
    assert!(Case::file(&long).errors()[0].contains("1048576 bytes"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.toml");
    std::fs::write(&path, &long).unwrap();
    let errors = load(Some(&path), &environment_of_nobody(), &Overrides::default()).unwrap_err();
    assert!(errors.to_string().contains("1048576 bytes"), "{errors}");
    std::fs::write(&path, b"[log]\n\xff").unwrap();
    let errors = load(Some(&path), &environment_of_nobody(), &Overrides::default()).unwrap_err();
    assert!(errors.to_string().contains("not UTF-8 from byte 6 on"), "{errors}");
}

#[test]
fn a_wrong_value_is_repeated_shortened_and_escaped() {
    let errors = Case::file(&format!("[log]\nlevel = \"\\u001b[31m{}\"\n", "ä".repeat(500))).errors();
    assert!(errors[0].contains("\\u{1b}[31m") && errors[0].contains("… (1005 bytes)"), "{}", errors[0]);
    assert!(errors[0].len() < 500, "{}", errors[0]);
}
