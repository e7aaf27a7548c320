//! `bench` through the binary: which tests it runs and what it reports. Speeds themselves are not tested.

mod common;

use common::{data, veritas};
use serde_json::Value;

fn bench(flags: &[&str]) -> common::Outcome {
    veritas(&[&["bench", "-r", "2"], flags].concat(), b"")
}

#[test]
fn the_json_lists_every_test_with_the_fields_that_programs_rely_on() {
    let model = data("golden/llama/model-f16.gguf");
    let flags =
        ["-p", "16", "-n", "3", "-d", "0,20", "-b", "1,4", "-t", "1,2", "-o", "json", "--model", &model];
    let rows = bench(&flags).json();
    let rows = rows.as_array().expect("a list");
    let tests = rows.iter().map(|row| row["test"].as_str().expect("a name")).collect::<Vec<_>>();
    let once = ["pp16", "tg3", "tg3*b4", "tg3@d20", "tg3@d20*b4"];
    assert_eq!(tests, [once, once].concat());
    let file_bytes = std::fs::metadata(&model).expect("the fixture").len();
    for (place, row) in rows.iter().enumerate() {
        let keys = row.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            keys,
            [
                "model",
                "model_bytes",
                "n_params",
                "isa",
                "threads",
                "test",
                "t_s_mean",
                "t_s_stddev",
                "bandwidth_share",
                "arithmetic_share",
                "arithmetic",
                "read_bytes_s_max",
                "operations_s_max",
                "load_ms",
                "rss_peak_bytes",
            ]
        );
        assert_eq!(row["model"], "model-f16");
        assert_eq!(row["model_bytes"], file_bytes);
        assert_eq!(row["n_params"], 123_208);
        assert_eq!(row["arithmetic"], "f32");
        assert_eq!(row["threads"], if place < once.len() { 1 } else { 2 });
        for key in [
            "t_s_mean",
            "bandwidth_share",
            "arithmetic_share",
            "read_bytes_s_max",
            "operations_s_max",
            "load_ms",
        ] {
            assert!(row[key].as_f64().is_some_and(|x| x > 0.0 && x.is_finite()), "{key} in {row}");
        }
        assert!(row["t_s_stddev"].as_f64().is_some_and(|x| x >= 0.0));
        if cfg!(target_os = "linux") {
            assert!(row["rss_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}

#[test]
fn a_zero_leaves_a_test_out() {
    let tests = |flags: &[&str]| {
        let rows = bench(&[&["--json", "--isa", "portable", "-t", "1"], flags].concat()).json();
        let names = rows.as_array().expect("a list").iter().map(|row| row["test"].clone());
        names.collect::<Vec<Value>>()
    };
    assert_eq!(tests(&["-p", "0", "-n", "2"]), ["tg2"]);
    assert_eq!(tests(&["-p", "8", "-n", "0"]), ["pp8"]);
    let (exit, code, _) = bench(&["-p", "0", "-n", "0", "--json"]).error();
    assert_eq!((exit, code.as_str()), (2, "usage"));
}

#[test]
fn the_markdown_table_has_a_row_for_each_test() {
    let table = bench(&["-p", "8", "-n", "2", "-t", "1"]).text();
    let lines = table.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 4, "{table}");
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        cells(lines[0]),
        ["model", "size", "params", "isa", "threads", "test", "t/s", "bandwidth", "arithmetic"]
    );
    assert_eq!(cells(lines[2])[5], "pp8");
    assert!(cells(lines[3])[6].contains('±'));
    let width = lines[0].chars().count();
    assert!(lines.iter().all(|line| line.chars().count() == width), "{table}");
}

#[test]
fn what_does_not_fit_the_context_is_said_with_both_numbers() {
    let model = data("golden/llama/model-f16.gguf");
    let (exit, code, message) = bench(&["-p", "4096", "--json", "--model", &model]).error();
    assert_eq!((exit, code.as_str()), (2, "context_exceeded"));
    assert!(message.contains("4096") && message.contains("256"), "{message}");
    assert_eq!(bench(&["--isa", "neon", "--json"]).error().0, 2);
    assert_eq!(bench(&["-t", "0", "--json"]).error().0, 2);
}
