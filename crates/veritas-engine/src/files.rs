//! The bytes of a model's files, and how a plan's references find their weights in them.

use std::fs::File;
use std::path::{Path, PathBuf};

use veritas_base::{Sha256Digest, Sha256Hasher};
use veritas_gguf::split::{GgufSet, PartName};
use veritas_gguf::{Metadata, Value};
use veritas_kernels::Matrix;
use veritas_mem::Mmap;
use veritas_model::{MatrixRef, VectorRef};

use crate::error::Error;

/// Bytes hashed between two calls of a progress function.
const HASH_STEP_BYTES: usize = 8 << 20;

/// The bytes of one file.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    BuiltIn(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::BuiltIn(bytes) => bytes,
        }
    }
}

/// The files of one model: mapped, parsed, never copied.
#[derive(Debug)]
pub struct ModelFiles {
    bytes: Vec<Bytes>,
    set: GgufSet,
}

/// A change of the metadata that a user asks for: `--override-kv KEY=TYPE:VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataOverride {
    /// The key to set.
    pub key: String,
    /// Its value.
    pub value: Value,
}

impl MetadataOverride {
    /// What can be written, for people.
    pub const FORM: &str = "KEY=TYPE:VALUE with the type int, float, bool or str";
}

impl std::str::FromStr for MetadataOverride {
    type Err = String;

    /// Reads [`MetadataOverride::FORM`]. The error says what is allowed.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || Self::FORM.to_owned();
        let (key, typed) = text.split_once('=').ok_or_else(expected)?;
        let (kind, value) = typed.split_once(':').ok_or_else(expected)?;
        if key.is_empty() {
            return Err(expected());
        }
        let value = match kind {
            "int" => {
                Value::I64(value.parse().map_err(|_| "after int: a whole number of 64 bits".to_owned())?)
            }
            "float" => {
                let number = value.parse::<f32>().ok().filter(|number| number.is_finite());
                Value::F32(number.ok_or("after float: a finite number")?)
            }
            "bool" => Value::Bool(value.parse().map_err(|_| "after bool: true or false".to_owned())?),
            "str" => Value::String(value.to_owned()),
            _ => return Err(expected()),
        };
        Ok(Self { key: key.to_owned(), value })
    }
}

impl ModelFiles {
    /// Maps and parses a GGUF file; of a split model, all parts, whichever of them is named.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed.
    pub fn open(path: &Path, overrides: &[MetadataOverride]) -> Result<Self, Error> {
        let paths = part_paths(path);
        let bytes = paths.iter().map(|path| Ok(Bytes::Mapped(Mmap::open(path)?)));
        Self::parse(bytes.collect::<Result<_, Error>>()?, overrides)
    }

    /// Maps and parses files that are open already: the parts of one model, in order. `name` is for messages alone.
    ///
    /// # Errors
    /// If a file cannot be mapped or is malformed.
    pub fn of_open_files(files: &[File], name: &Path, overrides: &[MetadataOverride]) -> Result<Self, Error> {
        let bytes = files.iter().map(|file| Ok(Bytes::Mapped(Mmap::of_file(file, name)?)));
        Self::parse(bytes.collect::<Result<_, Error>>()?, overrides)
    }

    /// Parses a model that is part of the program.
    ///
    /// # Errors
    /// If the bytes are malformed.
    pub fn built_in(bytes: &'static [u8], overrides: &[MetadataOverride]) -> Result<Self, Error> {
        Self::parse(vec![Bytes::BuiltIn(bytes)], overrides)
    }

    fn parse(bytes: Vec<Bytes>, overrides: &[MetadataOverride]) -> Result<Self, Error> {
        let parts = bytes.iter().map(|bytes| veritas_gguf::parse(bytes.as_slice()));
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        for change in overrides {
            parts[0].metadata.insert(change.key.clone(), change.value.clone())?;
        }
        Ok(Self { bytes, set: GgufSet::new(parts)? })
    }

    /// What the files say.
    pub fn set(&self) -> &GgufSet {
        &self.set
    }

    /// The metadata of the model.
    pub fn metadata(&self) -> &Metadata {
        self.set.metadata()
    }

    /// The bytes of one part.
    pub fn part(&self, part: usize) -> &[u8] {
        self.bytes[part].as_slice()
    }

    /// The SHA-256 digest of all bytes, part after part. `progress` is told how many bytes are done.
    pub fn digest(&self, progress: &mut dyn FnMut(u64)) -> Sha256Digest {
        let mut hasher = Sha256Hasher::default();
        let mut done = 0;
        for piece in self.bytes.iter().flat_map(|bytes| bytes.as_slice().chunks(HASH_STEP_BYTES)) {
            hasher.update(piece);
            done += piece.len() as u64;
            progress(done);
        }
        hasher.finish()
    }

    /// The weights of a matrix, where they lie in the file.
    ///
    /// # Errors
    /// If they are not within the file; the reader has checked that they are, so this is a second lock.
    pub(crate) fn matrix(&self, matrix: &MatrixRef) -> Result<Matrix<'_>, Error> {
        let data = self.stretch(&matrix.name, matrix.part, matrix.offset, matrix.bytes())?;
        Ok(Matrix { ty: matrix.ty, data, rows: matrix.rows, cols: matrix.cols })
    }

    /// The values of a vector, as f32.
    ///
    /// # Errors
    /// If they are not within the file.
    pub(crate) fn vector(&self, vector: &VectorRef) -> Result<Vec<f32>, Error> {
        let data = self.stretch(&vector.name, vector.part, vector.offset, vector.bytes())?;
        let mut values = vec![0.0; vector.len];
        veritas_quant::dequantize_row(vector.ty, data, &mut values)?;
        Ok(values)
    }

    fn stretch(&self, name: &str, part: usize, offset: u64, bytes: u64) -> Result<&[u8], Error> {
        let file = self.bytes.get(part).map_or(&[][..], Bytes::as_slice);
        let range = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
        range
            .and_then(|(offset, bytes)| file.get(offset..offset.checked_add(bytes)?))
            .ok_or_else(|| Error::TensorOutsideFile { name: name.to_owned() })
    }
}

/// The files of the model that `path` belongs to, in order: by its name alone, nothing is opened.
pub fn part_paths(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(PartName::parse) {
        Some(split) => split.names().map(|name| path.with_file_name(name)).collect(),
        None => vec![path.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_read_as_documented() {
        let change: MetadataOverride = "llama.attention.sliding_window=int:8".parse().unwrap();
        assert_eq!((change.key.as_str(), change.value), ("llama.attention.sliding_window", Value::I64(8)));
        for wrong in ["a=int:x", "a:int=3", "=int:3", "a=list:1", "a"] {
            assert!(wrong.parse::<MetadataOverride>().is_err(), "{wrong}");
        }
    }
}
