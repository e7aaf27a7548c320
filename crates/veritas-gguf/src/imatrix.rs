//! Importance matrices in GGUF form, as llama.cpp's `imatrix` tool writes them.
//!
//! The file has `general.type` = `imatrix` and for each weight matrix `NAME` two F32 tensors: `NAME.in_sum2`, the
//! sums of the squares of each input channel (a row for each matrix of a stack), and `NAME.counts`, over how many
//! activations each row was summed. The importance is their quotient.

use std::collections::BTreeMap;

use veritas_quant::{Error, GgmlType, Importance, dequantize_row};

use crate::{Gguf, TensorInfo};

/// The value of `general.type`.
const TYPE: &str = "imatrix";

/// Whether a parsed file says that it is an importance matrix.
pub fn is_imatrix(gguf: &Gguf) -> bool {
    matches!(gguf.metadata.str("general.type"), Ok(TYPE))
}

/// Reads the importances of a file; `file` holds the bytes that `gguf` was parsed from.
///
/// An input that no activation was counted for, such as that of an expert that never ran, has the importance 1.
///
/// # Errors
/// [`Error::ImportanceFile`] for a file that is no importance matrix or has no entries, sums without counts,
/// tensors of another type than F32, counts that do not divide the sums, and values that are negative or not
/// finite.
pub fn importance(gguf: &Gguf, file: &[u8]) -> Result<Importance, Error> {
    if !is_imatrix(gguf) {
        let name = gguf.metadata.str("general.type").unwrap_or("").chars().take(80).collect();
        return Err(Error::ImportanceFile { what: "another general.type than imatrix", name });
    }
    let (mut sums, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for tensor in &gguf.tensors {
        if let Some(name) = tensor.name.strip_suffix(".in_sum2") {
            sums.insert(name, tensor);
        } else if let Some(name) = tensor.name.strip_suffix(".counts") {
            counts.insert(name, tensor);
        }
    }
    if sums.is_empty() {
        return Err(Error::ImportanceFile { what: "no entries", name: String::new() });
    }
    let mut importance = Importance::new();
    for (name, sums) in &sums {
        let counts = counts.get(name).ok_or_else(|| wrong("sums without counts", name))?;
        let (sums, counts) = (values(sums, file)?, values(counts, file)?);
        // A tensor has at least one element, so there is something to divide by.
        let row_len = sums.len() / counts.len();
        if row_len * counts.len() != sums.len() {
            return Err(wrong("counts that do not divide the sums", name));
        }
        let quotients = sums
            .chunks(row_len)
            .zip(counts)
            .flat_map(|(row, count)| row.iter().map(move |sum| if count > 0.0 { sum / count } else { 1.0 }))
            .collect();
        importance.insert(name, quotients)?;
    }
    if let Some(name) = counts.keys().find(|name| !sums.contains_key(*name)) {
        return Err(wrong("counts without sums", name));
    }
    Ok(importance)
}

fn values(tensor: &TensorInfo, file: &[u8]) -> Result<Vec<f32>, Error> {
    if tensor.ty != GgmlType::F32 {
        return Err(wrong("sums or counts that are not F32", &tensor.name));
    }
    let bytes = tensor.data(file).ok_or_else(|| wrong("data that lies outside of the file", &tensor.name))?;
    let mut values = vec![0.0; bytes.len() / 4];
    dequantize_row(GgmlType::F32, bytes, &mut values)?;
    Ok(values)
}

fn wrong(what: &'static str, name: &str) -> Error {
    Error::ImportanceFile { what, name: name.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, Writer, parse};

    fn file(kind: &str, tensors: &[(&str, &[u64], &[f32])]) -> Vec<u8> {
        let mut metadata = Metadata::new();
        metadata.insert("general.type", kind).expect("a new key");
        let mut writer = Writer::new(metadata).expect("good metadata");
        for (name, dims, _) in tensors {
            writer.tensor(name, GgmlType::F32, dims).expect("a good tensor");
        }
        let mut out = writer.start(Vec::new()).expect("memory takes everything");
        for (_, _, values) in tensors {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write(&bytes).expect("memory takes everything");
        }
        out.finish().expect("every tensor is written")
    }

    fn read(file: &[u8]) -> Result<Importance, Error> {
        importance(&parse(file).expect("a GGUF file"), file)
    }

    #[test]
    fn importances_are_sums_by_counts_for_each_matrix_of_a_stack() {
        let file = file(
            TYPE,
            &[
                ("down.in_sum2", &[2], &[8.0, 2.0]),
                ("down.counts", &[1, 1], &[4.0]),
                ("stack.in_sum2", &[2, 2], &[3.0, 6.0, 0.0, 0.0]),
                ("stack.counts", &[1, 2], &[3.0, 0.0]),
            ],
        );
        let importance = read(&file).expect("an importance matrix");
        assert_eq!(importance.for_matrix("down", 2, 1, 0), Ok(Some(&[2.0, 0.5][..])));
        assert_eq!(importance.for_matrix("stack", 2, 2, 0), Ok(Some(&[1.0, 2.0][..])));
        assert_eq!(importance.for_matrix("stack", 2, 2, 1), Ok(Some(&[1.0, 1.0][..])));
    }

    #[test]
    fn files_that_are_no_importance_matrix_are_errors() {
        let sums: (&str, &[u64], &[f32]) = ("a.in_sum2", &[3], &[1.0; 3]);
        let counts: (&str, &[u64], &[f32]) = ("a.counts", &[1], &[1.0]);
        assert!(read(&file(TYPE, &[sums, counts])).is_ok());
        for file in [
            file("model", &[sums, counts]),
            file(TYPE, &[]),
            file(TYPE, &[sums]),
            file(TYPE, &[sums, counts, ("b.counts", &[1], &[1.0])]),
            file(TYPE, &[sums, ("a.counts", &[2], &[1.0, 1.0])]),
            file(TYPE, &[sums, ("a.counts", &[4], &[1.0; 4])]),
            file(TYPE, &[("a.in_sum2", &[3], &[-1.0; 3]), counts]),
            file(TYPE, &[("a.in_sum2", &[3], &[f32::NAN; 3]), counts]),
        ] {
            let error = read(&file).expect_err("no importance matrix");
            assert!(matches!(error, Error::ImportanceFile { .. }), "{error}");
        }
    }
}
