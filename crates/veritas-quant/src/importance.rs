//! Importance matrices: how much the error of each input channel of a weight matrix counts.
//!
//! llama.cpp's `imatrix` tool measures them as the mean square of each activation that the matrix is multiplied
//! with. Here are the type and the reader of the older `.dat` files; the reader of the GGUF form stands in
//! veritas-gguf, which knows that format.

use std::collections::BTreeMap;

use crate::Error;
use crate::limits::{MAX_IMPORTANCE_ENTRIES, MAX_IMPORTANCE_NAME_BYTES};

/// Importances by name of tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Importance {
    entries: BTreeMap<String, Vec<f32>>,
}

impl Importance {
    /// No importances.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the older form: the file `imatrix.dat` of llama.cpp before it used GGUF.
    ///
    /// All numbers are little-endian: `n: i32`, then n entries of `name_len: i32, name, calls: i32, n_values: i32,
    /// values: [f32]`, where the values are sums over the calls. What may follow (the number of calls and the
    /// name of the text) is not needed.
    ///
    /// # Errors
    /// [`Error::ImportanceTruncated`] for a file that ends too early, [`Error::ImportanceFile`] for counts, names
    /// and values that cannot be.
    pub fn from_dat(file: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader { file, at: 0 };
        let n_entries = reader.count("the number of entries")?;
        if n_entries == 0 || n_entries > MAX_IMPORTANCE_ENTRIES {
            return Err(Error::ImportanceFile {
                what: "an impossible number of entries",
                name: n_entries.to_string(),
            });
        }
        let mut importance = Self::new();
        for _ in 0..n_entries {
            let name_len = reader.count("the length of a name")?;
            if name_len > MAX_IMPORTANCE_NAME_BYTES {
                return Err(Error::ImportanceFile { what: "too long a name", name: name_len.to_string() });
            }
            let name = String::from_utf8_lossy(reader.take(name_len, "a name")?).into_owned();
            let n_calls = reader.count("the number of calls")?.max(1) as f32;
            let n_values = reader.count("the number of values")?;
            let bytes = reader.take(n_values.saturating_mul(4), "values")?;
            let values =
                bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes) / n_calls).collect();
            importance.insert(&name, values)?;
        }
        Ok(importance)
    }

    /// Adds the importances of a tensor: one for each weight of a row, for each matrix of a stack in turn.
    ///
    /// # Errors
    /// [`Error::ImportanceFile`] for no values, a value that is negative or no finite number, or a name that is
    /// there already.
    pub fn insert(&mut self, name: &str, values: Vec<f32>) -> Result<(), Error> {
        let wrong = |what| Error::ImportanceFile { what, name: name.chars().take(80).collect() };
        if values.is_empty() {
            return Err(wrong("no values"));
        }
        if !values.iter().all(|value| (0.0..f32::INFINITY).contains(value)) {
            return Err(wrong("a value that is negative or not finite"));
        }
        if self.entries.insert(name.to_owned(), values).is_some() {
            return Err(wrong("two entries of one name"));
        }
        Ok(())
    }

    /// The importances for the rows of matrix `matrix` of a stack of `n_matrices` (0 of 1 in a plain tensor) with
    /// rows of `row_len` weights, or `None` if there are none for this tensor.
    ///
    /// The values fit if there are `row_len` for each matrix. Those of a token embedding never do, as its rows
    /// are looked up and not multiplied: it counts as having none.
    ///
    /// # Errors
    /// [`Error::ImportanceShape`] if there is another number of values.
    pub fn for_matrix(
        &self,
        name: &str,
        row_len: usize,
        n_matrices: usize,
        matrix: usize,
    ) -> Result<Option<&[f32]>, Error> {
        let Some(values) = self.entries.get(name) else {
            return Ok(None);
        };
        let expected = row_len.saturating_mul(n_matrices);
        if values.len() != expected || matrix >= n_matrices {
            if name == "token_embd.weight" {
                return Ok(None);
            }
            return Err(Error::ImportanceShape { name: name.to_owned(), expected, found: values.len() });
        }
        Ok(Some(&values[matrix * row_len..][..row_len]))
    }

    /// The number of tensors with importances.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, needed: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let rest = &self.file[self.at..];
        let taken = rest.get(..needed).ok_or(Error::ImportanceTruncated {
            what,
            offset: self.at,
            needed,
            left: rest.len(),
        })?;
        self.at += needed;
        Ok(taken)
    }

    /// A number that is not negative.
    fn count(&mut self, what: &'static str) -> Result<usize, Error> {
        let offset = self.at;
        let bytes = self.take(4, what)?;
        let value = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(value).map_err(|_| Error::ImportanceFile {
            what: "a negative count",
            name: format!("{value} at byte {offset}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dat(entries: &[(&str, i32, &[f32])]) -> Vec<u8> {
        let mut file = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, calls, values) in entries {
            file.extend((name.len() as i32).to_le_bytes());
            file.extend(name.as_bytes());
            file.extend(calls.to_le_bytes());
            file.extend((values.len() as i32).to_le_bytes());
            file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        file
    }

    #[test]
    fn the_older_form_holds_sums_over_calls() {
        let importance =
            Importance::from_dat(&dat(&[("a", 4, &[4.0, 8.0]), ("b", 0, &[3.0])])).expect("a good file");
        assert_eq!(importance.for_matrix("a", 2, 1, 0), Ok(Some(&[1.0, 2.0][..])));
        assert_eq!(importance.for_matrix("b", 1, 1, 0), Ok(Some(&[3.0][..])));
        assert_eq!(importance.for_matrix("c", 1, 1, 0), Ok(None));
        assert_eq!(importance.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
        let file = dat(&[("first", 1, &[1.0, 2.0]), ("second", 2, &[3.0])]);
        for len in 0..file.len() {
            assert!(Importance::from_dat(&file[..len]).is_err(), "{len} bytes");
        }
        assert!(Importance::from_dat(&file).is_ok());
    }

    #[test]
    fn impossible_counts_names_and_values_are_errors() {
        for file in [
            dat(&[]),
            dat(&[("a", -1, &[1.0])]),
            dat(&[("a", 1, &[])]),
            dat(&[("a", 1, &[f32::NAN])]),
            dat(&[("a", 1, &[-1.0])]),
            dat(&[("a", 1, &[1.0]), ("a", 1, &[1.0])]),
            dat(&[(&"n".repeat(2000), 1, &[1.0])]),
            [1, 0, 0, 0, 255, 255, 255, 127].to_vec(),
        ] {
            assert!(Importance::from_dat(&file).is_err(), "{file:?}");
        }
    }

    #[test]
    fn each_matrix_of_a_stack_has_its_own_importances() {
        let mut importance = Importance::new();
        importance.insert("stack", vec![1.0, 2.0, 3.0, 4.0]).expect("good values");
        assert_eq!(importance.for_matrix("stack", 2, 2, 1), Ok(Some(&[3.0, 4.0][..])));
        let wrong = Error::ImportanceShape { name: "stack".into(), expected: 6, found: 4 };
        assert_eq!(importance.for_matrix("stack", 3, 2, 1), Err(wrong));
    }
}
