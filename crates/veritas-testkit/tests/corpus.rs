//! Every committed input of the fuzz targets whose oracles live here keeps its promise.

use std::path::Path;

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect::<Vec<_>>();
    assert!(!files.is_empty(), "{target} has no corpus");
    files
}

#[test]
fn block_formats_take_the_corpus() {
    inputs("quant").iter().for_each(|bytes| veritas_testkit::fuzz::quant::check(bytes));
}

#[test]
fn the_scheduler_takes_the_corpus() {
    inputs("sched").iter().for_each(|bytes| veritas_testkit::fuzz::sched::check(bytes));
}

#[test]
fn the_architectures_take_the_corpus() {
    inputs("plan").iter().for_each(|bytes| veritas_testkit::fuzz::plan::check(bytes));
}

#[test]
fn chat_templates_take_the_corpus() {
    inputs("template").iter().for_each(|bytes| veritas_testkit::fuzz::template::check(bytes));
}
