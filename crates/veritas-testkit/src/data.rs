//! Where the test data lies, and how a safetensors file of it is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A file or folder of the committed test data, `tests/data/<name>`.
pub fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// A file or folder of the test data that is not committed, or `None` where `VERITAS_TEST_DATA` is not set.
///
/// Prints one line when it answers `None`, so that a skipped test is seen.
///
/// # Panics
/// When `VERITAS_REQUIRE_TEST_DATA` is `1` and the data is missing: then a skip is a failure.
pub fn test_data(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("VERITAS_TEST_DATA").map(|root| Path::new(&root).join(name));
    if let Some(path) = path.filter(|path| path.exists()) {
        return Some(path);
    }
    let required = std::env::var_os("VERITAS_REQUIRE_TEST_DATA").is_some_and(|value| value == "1");
    assert!(!required, "VERITAS_REQUIRE_TEST_DATA=1, but {name} is not under VERITAS_TEST_DATA");
    #[allow(clippy::print_stderr)] // The line is for the person who reads the test's output.
    {
        eprintln!("skipped: VERITAS_TEST_DATA does not lead to {name}");
    }
    None
}

/// A tensor of a safetensors file: its shape and its values, all kinds of numbers as f32 or i64.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Extent of each dimension, the slowest first.
    pub shape: Vec<usize>,
    /// The values if the file holds floating-point numbers.
    pub f32s: Vec<f32>,
    /// The values as f64 where the file holds F64, else empty.
    pub f64s: Vec<f64>,
    /// The values if the file holds integers.
    pub i64s: Vec<i64>,
}

impl Tensor {
    /// The integer values as token ids.
    ///
    /// # Panics
    /// If the tensor holds no integers or one of them is no token id.
    pub fn token_ids(&self) -> Vec<u32> {
        assert!(!self.i64s.is_empty(), "the tensor holds no integers");
        self.i64s.iter().map(|&id| u32::try_from(id).expect("a token id of the fixture fits u32")).collect()
    }

    /// The values of row `index` of the outermost dimension.
    pub fn row(&self, index: usize) -> &[f32] {
        let len = self.f32s.len() / self.shape[0];
        &self.f32s[index * len..(index + 1) * len]
    }
}

/// The tensors of a safetensors file by name.
#[derive(Clone, Debug)]
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// Reads a file of the test data.
    ///
    /// # Panics
    /// If the file cannot be read or holds a type that no fixture uses: a fixture is never hostile.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file =
            SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let mut tensor =
                Tensor { shape: view.shape().to_vec(), f32s: vec![], f64s: vec![], i64s: vec![] };
            let data = view.data();
            match view.dtype() {
                Dtype::F32 => tensor.f32s = chunks(data).map(f32::from_le_bytes).collect(),
                Dtype::F64 => tensor.f64s = chunks(data).map(f64::from_le_bytes).collect(),
                Dtype::I64 => tensor.i64s = chunks(data).map(i64::from_le_bytes).collect(),
                Dtype::I32 => tensor.i64s = chunks(data).map(|b| i64::from(i32::from_le_bytes(b))).collect(),
                Dtype::U8 => tensor.i64s = data.iter().map(|&b| i64::from(b)).collect(),
                other => panic!("{}: {name} has the type {other:?}", path.display()),
            }
            tensors.insert(name.to_owned(), tensor);
        }
        Self(tensors)
    }

    /// The tensor of this name.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("the fixture has no tensor {name}"))
    }

    /// The tensor of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.as_chunks::<N>().0.iter().copied()
}
