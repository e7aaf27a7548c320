//! Reader and writer of GGUF files over byte slices.
//!
//! [`parse`] reads the header of a file that may be hostile: whatever stands in it, the answer is a [`Gguf`]
//! whose tensors lie inside the file, aligned and apart from each other, or a typed [`Error`]; it never panics
//! and never takes more memory than a small multiple of the file. [`Writer`] writes what [`parse`] reads.
//! Files are opened elsewhere: this crate sees bytes and an [`io::Write`](std::io::Write).
//!
//! ```
//! use veritas_gguf::{Metadata, Writer, parse};
//! use veritas_quant::GgmlType;
//!
//! let mut metadata = Metadata::new();
//! metadata.insert("general.architecture", "llama")?;
//! let mut writer = Writer::new(metadata)?;
//! writer.tensor("output_norm.weight", GgmlType::F32, &[2])?;
//! let mut out = writer.start(Vec::new())?;
//! out.write(&[0; 8])?;
//! let file = out.finish()?;
//!
//! let gguf = parse(&file)?;
//! assert_eq!(gguf.architecture()?, "llama");
//! assert_eq!(gguf.tensors[0].data(&file), Some(&[0; 8][..]));
//! # Ok::<(), veritas_gguf::Error>(())
//! ```
#![forbid(unsafe_code)]

mod error;
pub mod imatrix;
pub mod limits;
mod metadata;
mod reader;
pub mod split;
mod tensor;
mod value;
mod writer;

pub use error::Error;
pub use limits::Limits;
pub use metadata::Metadata;
pub use reader::{parse, parse_with_limits};
pub use split::GgufSet;
pub use tensor::TensorInfo;
pub use value::{Array, Kind, Value, ValueType};
pub use writer::{TensorWriter, Writer};

/// The first four bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Key of the alignment of tensors.
const ALIGNMENT_KEY: &str = "general.alignment";

/// The header of a file: everything but the bytes of the tensors.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gguf {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// The key-value pairs.
    pub metadata: Metadata,
    /// The tensors in the order of the file; a file with a vocabulary alone has none.
    pub tensors: Vec<TensorInfo>,
    /// Every tensor begins at a multiple of this, counted from the beginning of the file.
    pub alignment: u64,
    /// Where the data section begins. Beyond the end of the file only if there are no tensors.
    pub data_offset: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Places in `tensors`, in the order of the names.
    by_name: Vec<u32>,
}

impl Gguf {
    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        tensor::find(&self.tensors, &self.by_name, name)
    }

    /// `general.architecture`.
    ///
    /// # Errors
    /// [`Error::MissingKey`] or [`Error::WrongType`].
    pub fn architecture(&self) -> Result<&str, Error> {
        self.metadata.str("general.architecture")
    }

    /// `general.name`, where the file gives its model one.
    pub fn name(&self) -> Option<&str> {
        self.metadata.get("general.name")?.as_str()
    }

    /// Elements of all tensors: the number of parameters.
    pub fn n_params(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::n_elements).fold(0, u64::saturating_add)
    }
}
