//! The writer: the header first, then the tensors in their order, streamed in pieces of any size.

use std::io::Write;

use veritas_quant::GgmlType;

use crate::error::{Error, shown};
use crate::limits::{DEFAULT_ALIGNMENT, Limits};
use crate::metadata::Metadata;
use crate::tensor::{TensorInfo, check_alignment, places_by_name, tensor_bytes};
use crate::value::{Array, Value};
use crate::{ALIGNMENT_KEY, MAGIC};

/// The version that is written.
const VERSION: u32 = 3;

/// Plans a file: its metadata and its tensors. [`start`](Self::start) writes the header.
#[derive(Clone, Debug)]
pub struct Writer {
    metadata: Metadata,
    alignment: u64,
    tensors: Vec<TensorInfo>,
    /// Where the next tensor begins in the data section.
    data_bytes: u64,
    limits: Limits,
}

impl Writer {
    /// A file with this metadata and no tensors yet; `general.alignment` of the metadata is obeyed.
    ///
    /// # Errors
    /// What [`parse`](crate::parse) would refuse: [`Error::Alignment`], [`Error::Limit`], [`Error::EmptyName`].
    pub fn new(metadata: Metadata) -> Result<Self, Error> {
        let limits = Limits::default();
        let alignment = check_alignment(metadata.opt_u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT))?;
        limit("the number of metadata pairs", metadata.len() as u64, limits.metadata_count)?;
        for (key, value) in metadata.iter() {
            check_name("a metadata key", key, limits.key_bytes)?;
            check_value(value, &limits)?;
        }
        Ok(Self { metadata, alignment, tensors: Vec::new(), data_bytes: 0, limits })
    }

    /// Adds a tensor; `dims[0]` is the length of a row.
    ///
    /// # Errors
    /// What [`parse`](crate::parse) would refuse: [`Error::Dimension`], [`Error::DimensionCount`],
    /// [`Error::RowLength`], [`Error::ElementOverflow`], [`Error::EmptyName`], [`Error::Limit`].
    pub fn tensor(&mut self, name: &str, ty: GgmlType, dims: &[u64]) -> Result<&mut Self, Error> {
        check_name("the name of a tensor", name, self.limits.tensor_name_bytes)?;
        limit("the number of tensors", self.tensors.len() as u64 + 1, self.limits.tensors)?;
        let max = self.limits.dimensions;
        if let Some(found) = u32::try_from(dims.len()).ok().filter(|&found| found > max) {
            return Err(Error::DimensionCount { name: shown(name), found, max });
        }
        let bytes = tensor_bytes(name, ty, dims)?;
        let end =
            self.data_bytes.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(self.alignment));
        let end = end
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or_else(|| Error::ElementOverflow { name: shown(name), dims: dims.to_vec() })?;
        self.tensors.push(TensorInfo {
            name: name.to_owned(),
            ty,
            dims: dims.to_vec(),
            offset: self.data_bytes,
            bytes,
        });
        self.data_bytes = end;
        Ok(self)
    }

    /// Bytes of the data section, padding included.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Writes the header; the tensors follow through what is given back.
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`] if two tensors have one name, [`Error::Limit`] if the header is too long,
    /// [`Error::Write`] if `out` refuses bytes.
    pub fn start<W: Write>(self, mut out: W) -> Result<TensorWriter<W>, Error> {
        places_by_name(&self.tensors)?;
        let header = self.header();
        limit("the bytes of the header", header.len() as u64, self.limits.header_bytes)?;
        out.write_all(&header)?;
        let data_offset = (header.len() as u64).next_multiple_of(self.alignment);
        pad(&mut out, data_offset - header.len() as u64)?;
        let mut tensors = self.tensors;
        for tensor in &mut tensors {
            tensor.offset += data_offset;
        }
        Ok(TensorWriter { out, tensors, alignment: self.alignment, next: 0, written: 0 })
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_string(&mut header, key);
            header.extend(value.kind().id().to_le_bytes());
            put_value(&mut header, value);
        }
        for tensor in &self.tensors {
            put_string(&mut header, &tensor.name);
            header.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                header.extend(dim.to_le_bytes());
            }
            header.extend(tensor.ty.id().to_le_bytes());
            header.extend(tensor.offset.to_le_bytes());
        }
        header
    }
}

/// Takes the bytes of the tensors in their order, and pads between them.
#[derive(Debug)]
pub struct TensorWriter<W: Write> {
    out: W,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    /// The tensor that the next bytes belong to.
    next: usize,
    /// Bytes of it that are written.
    written: u64,
}

impl<W: Write> TensorWriter<W> {
    /// The tensor that the next bytes belong to; `None` after the last. Its offset is that in the file.
    pub fn current(&self) -> Option<&TensorInfo> {
        self.tensors.get(self.next)
    }

    /// All tensors of the file, with their offsets in it.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Writes the next bytes of the current tensor, a row or any other piece. The bytes of one call belong to
    /// one tensor.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] if the tensor has no room for them, [`Error::AfterLastTensor`],
    /// [`Error::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let found = bytes.len() as u64;
        let Some(tensor) = self.tensors.get(self.next) else { return Err(Error::AfterLastTensor { found }) };
        let written = self.written + found;
        if written > tensor.bytes {
            return Err(Error::TensorBytes {
                name: shown(&tensor.name),
                expected: tensor.bytes,
                found: written,
            });
        }
        self.out.write_all(bytes)?;
        self.written = written;
        if written == tensor.bytes {
            pad(&mut self.out, tensor.end().next_multiple_of(self.alignment) - tensor.end())?;
            self.next += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and gives the destination back, flushed.
    ///
    /// # Errors
    /// [`Error::TensorBytes`] if bytes are missing, [`Error::Write`].
    pub fn finish(mut self) -> Result<W, Error> {
        if let Some(tensor) = self.current() {
            let (name, expected) = (shown(&tensor.name), tensor.bytes);
            return Err(Error::TensorBytes { name, expected, found: self.written });
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn pad(out: &mut impl Write, mut n: u64) -> Result<(), Error> {
    const ZEROS: [u8; 256] = [0; 256];
    while n > 0 {
        let piece = &ZEROS[..n.min(ZEROS.len() as u64) as usize];
        out.write_all(piece)?;
        n -= piece.len() as u64;
    }
    Ok(())
}

fn limit(what: &'static str, found: u64, max: u64) -> Result<(), Error> {
    if found > max { Err(Error::Limit { what, found, max }) } else { Ok(()) }
}

fn check_name(what: &'static str, name: &str, max: u64) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::EmptyName { what, offset: 0 });
    }
    limit(what, name.len() as u64, max)
}

fn check_value(value: &Value, limits: &Limits) -> Result<(), Error> {
    match value {
        Value::String(text) => limit("a metadata string", text.len() as u64, limits.string_bytes),
        Value::Array(array) => check_array(array, 1, limits),
        _ => Ok(()),
    }
}

fn check_array(array: &Array, depth: u32, limits: &Limits) -> Result<(), Error> {
    limit("the depth of a metadata array", depth.into(), limits.array_depth.into())?;
    limit("the length of a metadata array", array.len() as u64, limits.array_elements)?;
    match array {
        Array::String(texts) => texts.iter().try_for_each(|text| {
            limit("a string of a metadata array", text.len() as u64, limits.string_bytes)
        }),
        Array::Array(arrays) => arrays.iter().try_for_each(|array| check_array(array, depth + 1, limits)),
        _ => Ok(()),
    }
}

fn put_string(header: &mut Vec<u8>, text: &str) {
    header.extend((text.len() as u64).to_le_bytes());
    header.extend(text.as_bytes());
}

fn put_value(header: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => header.extend(x.to_le_bytes()),
        Value::I8(x) => header.extend(x.to_le_bytes()),
        Value::U16(x) => header.extend(x.to_le_bytes()),
        Value::I16(x) => header.extend(x.to_le_bytes()),
        Value::U32(x) => header.extend(x.to_le_bytes()),
        Value::I32(x) => header.extend(x.to_le_bytes()),
        Value::U64(x) => header.extend(x.to_le_bytes()),
        Value::I64(x) => header.extend(x.to_le_bytes()),
        Value::F32(x) => header.extend(x.to_le_bytes()),
        Value::F64(x) => header.extend(x.to_le_bytes()),
        Value::Bool(x) => header.push((*x).into()),
        Value::String(x) => put_string(header, x),
        Value::Array(x) => put_array(header, x),
    }
}

fn put_array(header: &mut Vec<u8>, array: &Array) {
    header.extend(array.kind().id().to_le_bytes());
    header.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(x) => header.extend(x),
        Array::I8(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::U16(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::I16(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::U32(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::I32(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::U64(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::I64(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::F32(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::F64(x) => x.iter().for_each(|x| header.extend(x.to_le_bytes())),
        Array::Bool(x) => header.extend(x.iter().map(|&x| u8::from(x))),
        Array::String(x) => x.iter().for_each(|x| put_string(header, x)),
        Array::Array(x) => x.iter().for_each(|x| put_array(header, x)),
    }
}
