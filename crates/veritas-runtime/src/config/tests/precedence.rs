//! Which source of a setting wins.

use super::*;

#[test]
fn the_file_stands_over_the_default_the_environment_over_the_file_and_the_flag_over_all() {
    let path = |case: &Case| (case.config().socket.path, case.origin("socket.path"));
    let is = |path: &str, origin: &str| (PathBuf::from(path), origin.to_owned());
    let case = Case::default();
    assert_eq!(path(&case), is("/run/veritas-sdr/veritas-sdr.sock", "default"));
    let case = Case::file("[socket]\npath = \"/file\"");
    assert_eq!(path(&case), is("/file", "/c/veritas-sdr.toml:2:8"));
    let case = case.variable("VERITAS_SOCKET_PATH", "/variable");
    assert_eq!(path(&case), is("/variable", "environment VERITAS_SOCKET_PATH"));
    let case = case.flags(Overrides { socket: Some("/flag".into()), ..Overrides::default() });
    assert_eq!(path(&case), is("/flag", "flag --socket"));
}

/// A value for each setting that is neither its default nor another's, as a text of the file.
fn another_value(key: &Key) -> &'static str {
    match key.name {
        "path" | "token_file" | "file" | "policy" => "\"/another\"",
        "mode" => "\"0660\"",
        "allowed_uids" | "allowed_gids" | "admin_uids" => "[0, 1000, 4242]",
        "isa" => "\"portable\"",
        "cache_type_k" | "cache_type_v" => "\"q8_0\"",
        "require" => "[\"landlock\"]",
        "strict" | "allow_missing" => "true",
        "format" => "\"json\"",
        "level" => "\"trace\"",
        "body_bytes_max" => "\"2MiB\"",
        "memory_bytes" => "\"3GiB\"",
        "quarantine_after" => "7",
        "heartbeat_ms" => "4000",
        "threads" => "5",
        "max_sequences" => "20",
        "prefix_cache" => "false",
        "sequences_per_principal_max" => "3",
        "sharing_groups" => "[\"1000+1001\", \"7+8+9\"]",
        "weights" => "[\"1000=4\", \"7=2\"]",
        _ => "20000",
    }
}

/// What else a setting needs, so that nothing contradicts it.
fn needs(key: &Key) -> &'static str {
    match key.name {
        "allowed_gids" => "[socket]\nmode = \"0660\"\n",
        "admin_uids" => "[socket]\nallowed_uids = [0, 1000, 4242]\n",
        "restart_backoff_ms" => "[worker]\nrestart_backoff_max_ms = 30000\n",
        _ => "",
    }
}

#[test]
fn every_setting_can_be_given_in_the_file_and_in_its_variable_with_the_same_effect() {
    for key in keys().iter().filter(|key| key.table != "models") {
        let value = another_value(key);
        let header = format!("[{}]\n", key.table);
        let needs = if needs(key).is_empty() { header.as_str() } else { needs(key) };
        let in_file = Case::file(&format!("{needs}{} = {value}\n", key.name));
        let text = value.trim_matches(['[', ']']).replace('"', "");
        let in_variable = Case::file(needs).variable(key.variable.unwrap(), text);
        assert_eq!(in_file.config(), in_variable.config(), "{}", key.path());
        assert_ne!(in_file.config(), Case::file(needs).config(), "{}", key.path());
        assert_eq!(in_variable.origin(&key.path()), format!("environment {}", key.variable.unwrap()));
    }
}

#[test]
fn every_flag_of_the_list_is_one_of_the_overrides_and_wins() {
    let flags = Overrides {
        socket: Some("/flag".into()),
        token_file: Some("/flag".into()),
        models: Vec::new(),
        threads: Some(3),
        isa: Some("portable".into()),
        ctx: Some(33),
        prefill_chunk: Some(34),
        cache_type_k: Some("q4_0".into()),
        cache_type_v: Some("q4_0".into()),
        max_sequences: Some(35),
        kv_pages: Some(36),
        no_prefix_cache: true,
        sandbox: Some("/flag".into()),
    };
    let case = Case::default().flags(flags);
    let mut n_flags = 0;
    for (key, flag) in keys().iter().filter_map(|key| Some((key, key.flag?))) {
        assert_eq!(case.origin(&key.path()), format!("flag {flag}"));
        n_flags += 1;
    }
    assert_eq!(n_flags, 12, "each field of Overrides but `models` belongs to a setting");
}

#[test]
fn a_model_has_its_own_settings_over_those_of_engine() {
    let text = "[engine]\nthreads = 2\nctx = 100\n[[models]]\nname = \"a\"\npath = \"m.gguf\"\nthreads = 7\n";
    let case = Case::file(text);
    let model = case.config().models.remove(0);
    assert_eq!((model.engine.threads, model.engine.ctx), (Some(7), Some(100)));
    assert_eq!(model.path, Path::new("/c/m.gguf"), "a relative path starts at the file's folder");
    assert_eq!(case.origin("models.a.threads"), "/c/veritas-sdr.toml:7:11");
    assert_eq!(case.origin("models.a.ctx"), "/c/veritas-sdr.toml:3:7");
    assert_eq!(case.origin("models.a.kv_pages"), "default");
}

#[test]
fn a_flag_or_a_variable_of_engine_stands_over_what_a_model_says_in_the_file() {
    let text = "[[models]]\nname = \"a\"\npath = \"/m\"\nthreads = 7\nctx = 70\n";
    let case = Case::file(text)
        .variable("VERITAS_ENGINE_CTX", "80")
        .flags(Overrides { threads: Some(2), ..Overrides::default() });
    let model = case.config().models.remove(0);
    assert_eq!((model.engine.threads, model.engine.ctx), (Some(2), Some(80)));
    assert_eq!(case.origin("models.a.threads"), "flag --threads");
    assert_eq!(case.origin("models.a.ctx"), "environment VERITAS_ENGINE_CTX");
}

#[test]
fn model_flags_replace_all_models_of_the_file() {
    let flags = Overrides { models: vec!["b=/m/b.gguf".into(), "/m/c.gguf".into()], ..Overrides::default() };
    let case = Case::file("[engine]\nctx = 9\n[[models]]\nname = \"a\"\npath = \"/m\"\n").flags(flags);
    let config = case.config();
    let names = config.models.iter().map(|model| (model.name.as_str(), model.engine.ctx));
    assert_eq!(names.collect::<Vec<_>>(), [("b", Some(9)), ("c", Some(9))]);
    assert_eq!(case.origin("models.b.path"), "flag --model");
    assert_eq!(case.origin("models.b.ctx"), "/c/veritas-sdr.toml:2:7");
}

#[test]
fn the_default_socket_is_below_the_users_run_time_folder_but_not_for_root() {
    let with = |folder: &str| Case::default().variable("XDG_RUNTIME_DIR", folder);
    let path = |case: Case| case.config().socket.path;
    assert_eq!(path(with("/run/user/1000")), Path::new("/run/user/1000/veritas-sdr/veritas-sdr.sock"));
    for case in [with("/run/user/0").root(), with("relative"), with(""), Case::default()] {
        assert_eq!(path(case), Path::new("/run/veritas-sdr/veritas-sdr.sock"));
    }
}

#[test]
fn root_is_always_allowed_and_the_default_is_the_daemons_own_user() {
    assert_eq!(Case::default().config().socket.allowed_uids, [0, 1000]);
    assert_eq!(Case::default().config().socket.admin_uids, [0, 1000]);
    assert_eq!(Case::default().root().config().socket.allowed_uids, [0]);
    let config = Case::file("[socket]\nallowed_uids = [1000, 7, 7]\nallowed_gids = []").config();
    assert_eq!(config.socket.allowed_uids, [0, 7, 1000]);
    assert_eq!(config.socket.allowed_gids, [] as [u32; 0]);
    let config = Case::default().variable("VERITAS_SOCKET_ALLOWED_UIDS", "1000, 5").config();
    assert_eq!(config.socket.allowed_uids, [0, 5, 1000]);
}

#[test]
fn the_file_is_looked_for_where_the_user_has_one_and_then_in_etc() {
    let files = |uid: u32, variables: &[(&str, &str)]| {
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
            Some(OsString::from(value))
        };
        super::super::load::usual_files(&Environment { uid: Some(uid), variable: &variable })
    };
    let etc = PathBuf::from("/etc/veritas-sdr/veritas-sdr.toml");
    let of_user = PathBuf::from("/x/veritas-sdr/veritas-sdr.toml");
    let of_home = PathBuf::from("/h/.config/veritas-sdr/veritas-sdr.toml");
    assert_eq!(files(1000, &[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), [of_user, etc.clone()]);
    assert_eq!(files(1000, &[("HOME", "/h")]), [of_home, etc.clone()]);
    assert_eq!(files(1000, &[]), [etc.clone()].to_vec());
    assert_eq!(files(0, &[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), [etc].to_vec());
}

#[test]
fn the_file_is_the_one_of_the_flag_then_of_the_variable_then_that_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, queue_max: u32| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("[limits]\nqueue_max = {queue_max}\n")).unwrap();
        path
    };
    let of_flag = write("flag.toml", 1);
    let of_variable = write("variable.toml", 2);
    write("veritas-sdr/veritas-sdr.toml", 3);
    let queue_max = |flag: Option<&Path>, variable: Option<&Path>| {
        let lookup = |name: &str| match name {
            "VERITAS_CONFIG" => variable.map(OsString::from),
            "XDG_CONFIG_HOME" => Some(folder.path().into()),
            _ => None,
        };
        let environment = Environment { uid: Some(1000), variable: &lookup };
        load(flag, &environment, &Overrides::default()).unwrap().config.limits.queue_max
    };
    assert_eq!(queue_max(Some(&of_flag), Some(&of_variable)), 1);
    assert_eq!(queue_max(None, Some(&of_variable)), 2);
    assert_eq!(queue_max(None, None), 3);
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_that_names_it() {
    let environment = environment_of_nobody();
    let errors = load(Some(Path::new("/nowhere/x.toml")), &environment, &Overrides::default()).unwrap_err();
    assert!(errors.to_string().starts_with("/nowhere/x.toml: "), "{errors}");
    let variable = |name: &str| (name == "VERITAS_CONFIG").then(OsString::new);
    let environment = Environment { uid: Some(1000), variable: &variable };
    let errors = load(None, &environment, &Overrides::default()).unwrap_err();
    assert!(errors.to_string().contains("VERITAS_CONFIG"), "{errors}");
}

#[test]
fn a_model_that_a_client_loads_has_the_settings_of_engine() {
    let config = Case::file("[engine]\nctx = 77\n").config();
    let model = config.model("late", Path::new("/m/late.gguf")).unwrap();
    assert_eq!((model.engine.ctx, model.preload, model.no_digest), (Some(77), true, false));
    assert!(config.model("../late", Path::new("/m/late.gguf")).is_err());
}

#[test]
fn what_is_shown_is_read_back_as_the_same_configuration() {
    let text = "[socket]\nmode = \"0660\"\nallowed_gids = [5]\n[log]\nfile = \"/a \\\"b\\u007f\\n.log\"\n\
                [sandbox]\nrequire = [\"seccomp\"]\nmemory_bytes = \"2GiB\"\n[worker]\nstep_timeout_ms = 500\n\
                [[models]]\nname = \"a.b\"\npath = \"m\"\noverride_kv = [\"k=str:\\\"x\\\"\"]\nidle_unload_s = 3\n\
                [[models]]\nname = \"c\"\npath = \"n\"\nisa = \"portable\"\npreload = false\nno_digest = true\n";
    let first = Case::file(text).resolve().unwrap();
    for origins in [false, true] {
        let shown = first.show(origins);
        assert_eq!(Case::file(&shown).config(), first.config, "{shown}");
        assert_eq!(shown.contains("# /c/veritas-sdr.toml:2\n"), origins, "{shown}");
        assert_eq!(shown.contains("  # default\n"), origins, "{shown}");
    }
}

#[test]
fn a_reload_is_told_what_changed_and_what_needs_a_restart() {
    let old =
        Case::file("[[models]]\nname = \"a\"\npath = \"/a\"\n[[models]]\nname = \"b\"\npath = \"/b\"\n")
            .config();
    let new = Case::file(
        "[log]\nlevel = \"debug\"\n[socket]\nmode = \"0660\"\n[auth]\ntoken_file = \"/t\"\n\
         [[models]]\nname = \"c\"\npath = \"/c\"\n[[models]]\nname = \"b\"\npath = \"/b2\"\nidle_unload_s = 9\n",
    );
    let is = |key: &str, reloadable| Change { key: key.to_owned(), reloadable };
    let expected = [
        is("socket.mode", false),
        is("auth.token_file", false),
        is("log.level", true),
        is("models.a", true),
        is("models.b.path", false),
        is("models.b.idle_unload_s", true),
        is("models.c", true),
    ];
    assert_eq!(Config::diff(&old, &new.config()), expected);
    assert_eq!(Config::diff(&old, &old), []);
    let from_variable = Case::file("").variable("VERITAS_TOKEN", "x").config();
    assert_eq!(Config::diff(&Case::file("").config(), &from_variable), [is("auth.token_file", false)]);
    assert!(
        reloadable("log.level")
            && reloadable("models")
            && !reloadable("log.format")
            && !reloadable("nothing")
    );
}

#[test]
fn a_strict_sandbox_requires_every_layer() {
    let required = |text: &str| Case::file(text).config().sandbox.required_layers();
    assert_eq!(required("[sandbox]\nrequire = [\"cgroup\", \"seccomp\"]"), [Layer::Seccomp, Layer::Cgroup]);
    assert_eq!(required("[sandbox]\nstrict = true"), Layer::ALL);
    assert_eq!(required("[sandbox]\npolicy = \"strict\""), Layer::ALL);
    let policy = |text: &str| Case::file(text).config().sandbox.policy;
    assert_eq!(policy("[sandbox]\npolicy = \"./strict\""), SandboxPolicy::File("/c/./strict".into()));
}
