//! The committed models: files of the reference writer, which must be read without loss.

use std::path::PathBuf;

use veritas_gguf::{GgufSet, Writer, parse};
use veritas_testkit::{committed, test_data};

fn models() -> Vec<PathBuf> {
    let mut models = vec![committed("quants/quants.gguf")];
    for folder in std::fs::read_dir(committed("golden")).expect("the golden folder is committed") {
        let model = folder.expect("the folder can be listed").path().join("model-f16.gguf");
        models.extend(model.exists().then_some(model));
    }
    assert!(models.len() >= 28, "only {} models were found", models.len());
    models
}

#[test]
fn every_committed_model_is_read() {
    for path in models() {
        let bytes = std::fs::read(&path).expect("the model can be read");
        let gguf = parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!gguf.architecture().expect("a model states its architecture").is_empty());
        assert!(gguf.n_params() > 0);
        for tensor in &gguf.tensors {
            assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
            assert_eq!(tensor.data(&bytes).expect("the data lies in the file").len() as u64, tensor.bytes);
            assert_eq!(tensor.row_len() * tensor.n_rows(), tensor.n_elements());
        }
        assert_eq!(gguf.tensor("no such tensor"), None);
        assert_eq!(GgufSet::new(vec![gguf.clone()]).expect("one file is a set").n_params(), gguf.n_params());
    }
}

#[test]
fn a_model_that_is_written_again_has_the_same_bytes() {
    for path in models() {
        let bytes = std::fs::read(&path).expect("the model can be read");
        let gguf = parse(&bytes).expect("a committed model is valid");
        let mut writer = Writer::new(gguf.metadata.clone()).expect("its metadata are valid");
        for tensor in &gguf.tensors {
            writer.tensor(&tensor.name, tensor.ty, &tensor.dims).expect("its tensors are valid");
        }
        let mut out = writer.start(Vec::new()).expect("a vector takes all bytes");
        for tensor in &gguf.tensors {
            assert_eq!(out.current(), Some(tensor));
            for row in tensor.data(&bytes).expect("the data lies in the file").chunks(1000) {
                out.write(row).expect("the tensor has room");
            }
        }
        let again = out.finish().expect("all tensors are written");
        assert!(again == bytes, "{}", path.display());
    }
}

#[test]
fn the_real_vocabularies_and_models_are_read() {
    let Some(folder) = test_data("models") else { return };
    for file in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = file.expect("the folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "gguf") {
            let bytes = std::fs::read(&path).expect("the model can be read");
            let gguf = parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(gguf.metadata.strings("tokenizer.ggml.tokens").is_ok());
        }
    }
}
