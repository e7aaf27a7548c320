//! The parser: one pass over the header of a file that may be hostile.
//!
//! A count is believed only if the bytes that its elements need at least are left. Containers that are still
//! open keep the claim to the bytes of their remaining elements (`Cursor::claimed`), so nested counts cannot
//! each claim the same rest of the file, and all memory reserved together is a small multiple of it.

use veritas_quant::GgmlType;

use crate::error::{Error, shown};
use crate::limits::{DEFAULT_ALIGNMENT, Limits};
use crate::metadata::Metadata;
use crate::tensor::{TensorInfo, check_alignment, check_overlap, places_by_name, tensor_bytes};
use crate::value::{Array, Kind, Value};
use crate::{ALIGNMENT_KEY, Gguf, MAGIC};

/// The least key-value pair: length and one byte of the key, type, one byte of value.
const MIN_PAIR_BYTES: u64 = 8 + 1 + 4 + 1;
/// The least tensor info: length and one byte of the name, number of dimensions, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 4 + 8;
/// The least string: its length.
const MIN_STRING_BYTES: u64 = 8;
/// The least array: the type of its elements and their number.
const MIN_ARRAY_BYTES: u64 = 4 + 8;

/// Parses the header of a GGUF file with the default [`Limits`].
///
/// `bytes` is the whole file, as a rule mapped: only the header is read, but the tensors are checked against
/// its end.
///
/// # Errors
/// Any deviation from the format that could mislead a reader is an [`Error`] that names it.
pub fn parse(bytes: &[u8]) -> Result<Gguf, Error> {
    parse_with_limits(bytes, &Limits::default())
}

/// As [`parse`], with other limits.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_limits(bytes: &[u8], limits: &Limits) -> Result<Gguf, Error> {
    let mut cursor = Cursor { bytes, at: 0, claimed: 0, limits };
    let version = cursor.version()?;
    let n_tensors = cursor.u64("the number of tensors")?;
    let n_pairs = cursor.u64("the number of metadata pairs")?;
    limit("the number of tensors", n_tensors, limits.tensors)?;
    limit("the number of metadata pairs", n_pairs, limits.metadata_count)?;
    let n_tensors = cursor.claim("the tensor infos", n_tensors, MIN_TENSOR_BYTES)?;
    let n_pairs = cursor.claim("the metadata", n_pairs, MIN_PAIR_BYTES)?;

    let mut pairs = Vec::with_capacity(n_pairs);
    for _ in 0..n_pairs {
        cursor.redeem(MIN_PAIR_BYTES);
        pairs.push(cursor.pair()?);
    }
    let metadata = Metadata::from_entries(pairs)?;
    let alignment = check_alignment(metadata.opt_u64(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT))?;

    let mut tensors = Vec::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        cursor.redeem(MIN_TENSOR_BYTES);
        tensors.push(cursor.tensor()?);
    }
    let by_name = places_by_name(&tensors)?;

    // A slice has fewer than 2^63 bytes, and an alignment is small: the sum fits.
    let data_offset = (cursor.at as u64).next_multiple_of(alignment);
    let file_bytes = bytes.len() as u64;
    for tensor in &mut tensors {
        place(tensor, alignment, data_offset, file_bytes)?;
    }
    check_overlap(&tensors)?;
    Ok(Gguf { version, metadata, tensors, alignment, data_offset, file_bytes, by_name })
}

/// Checks where a tensor lies, and makes its offset one from the beginning of the file.
fn place(tensor: &mut TensorInfo, alignment: u64, data_offset: u64, file_bytes: u64) -> Result<(), Error> {
    let TensorInfo { ref name, offset, bytes, .. } = *tensor;
    if !offset.is_multiple_of(alignment) {
        return Err(Error::Unaligned { name: shown(name), offset, alignment });
    }
    let left = file_bytes.saturating_sub(data_offset);
    if offset > left || bytes > left - offset {
        return Err(Error::PastEnd { name: shown(name), offset, bytes, left });
    }
    tensor.offset = data_offset + offset;
    Ok(())
}

fn limit(what: &'static str, found: u64, max: u64) -> Result<(), Error> {
    if found > max { Err(Error::Limit { what, found, max }) } else { Ok(()) }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes that the remaining elements of all open containers need at least.
    claimed: u64,
    limits: &'a Limits,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn truncated(&self, what: &'static str, needed: u64) -> Error {
        Error::Truncated { what, offset: self.at as u64, needed, left: self.left() }
    }

    /// Opens a container of `count` elements of at least `min_bytes` each; the caller redeems each of them.
    fn claim(&mut self, what: &'static str, count: u64, min_bytes: u64) -> Result<usize, Error> {
        let needed =
            count.checked_mul(min_bytes).and_then(|n| n.checked_add(self.claimed)).unwrap_or(u64::MAX);
        let count = usize::try_from(count).ok().filter(|_| needed <= self.left());
        let count = count.ok_or_else(|| self.truncated(what, needed))?;
        self.claimed = needed;
        Ok(count)
    }

    fn redeem(&mut self, min_bytes: u64) {
        self.claimed -= min_bytes;
    }

    /// The next `n` bytes.
    fn take(&mut self, what: &'static str, n: u64) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = usize::try_from(n).ok().and_then(|n| rest.get(..n)) else {
            return Err(self.truncated(what, n));
        };
        limit("the bytes of the header", self.at as u64 + n, self.limits.header_bytes)?;
        self.at += taken.len();
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let taken = self.take(what, N as u64)?;
        Ok(taken.first_chunk().copied().unwrap_or([0; N])) // `take` gave N bytes.
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, Error> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    fn version(&mut self) -> Result<u32, Error> {
        let found: [u8; 4] = self.fixed("the magic number")?;
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        let version = self.u32("the version")?;
        match (version, version.swap_bytes()) {
            (2 | 3, _) => Ok(version),
            (_, swapped @ 1..=3) => Err(Error::BigEndian { version: swapped }),
            _ => Err(Error::Version { found: version }),
        }
    }

    fn string(&mut self, what: &'static str, max: u64) -> Result<String, Error> {
        let len = self.u64(what)?;
        let offset = self.at as u64;
        if len > self.left() {
            return Err(self.truncated(what, len));
        }
        limit(what, len, max)?;
        let text = std::str::from_utf8(self.take(what, len)?);
        text.map(str::to_owned).map_err(|_| Error::NotUtf8 { what, offset })
    }

    /// A string that is the name of something.
    fn name(&mut self, what: &'static str, max: u64) -> Result<String, Error> {
        let name = self.string(what, max)?;
        if name.is_empty() {
            return Err(Error::EmptyName { what, offset: self.at as u64 });
        }
        Ok(name)
    }

    fn pair(&mut self) -> Result<(String, Value), Error> {
        let key = self.name("a metadata key", self.limits.key_bytes)?;
        let kind = self.kind(&key)?;
        let value = self.value(&key, kind)?;
        Ok((key, value))
    }

    fn kind(&mut self, key: &str) -> Result<Kind, Error> {
        let found = self.u32("the type of a metadata value")?;
        Kind::from_id(found).ok_or_else(|| Error::UnknownValueType { key: shown(key), found })
    }

    fn value(&mut self, key: &str, kind: Kind) -> Result<Value, Error> {
        let what = "a metadata value";
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.fixed(what)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.fixed(what)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.fixed(what)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.fixed(what)?)),
            Kind::U32 => Value::U32(self.u32(what)?),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.fixed(what)?)),
            Kind::U64 => Value::U64(self.u64(what)?),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.fixed(what)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.fixed(what)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.fixed(what)?)),
            Kind::Bool => Value::Bool(boolean(key, u8::from_le_bytes(self.fixed(what)?))?),
            Kind::String => Value::String(self.string("a metadata string", self.limits.string_bytes)?),
            Kind::Array => Value::Array(self.array(key, 1)?),
        })
    }

    fn array(&mut self, key: &str, depth: u32) -> Result<Array, Error> {
        limit("the depth of a metadata array", depth.into(), self.limits.array_depth.into())?;
        let kind = self.kind(key)?;
        let n = self.u64("the length of a metadata array")?;
        Ok(match kind {
            Kind::U8 => Array::U8(self.numbers(n, u8::from_le_bytes)?),
            Kind::I8 => Array::I8(self.numbers(n, i8::from_le_bytes)?),
            Kind::U16 => Array::U16(self.numbers(n, u16::from_le_bytes)?),
            Kind::I16 => Array::I16(self.numbers(n, i16::from_le_bytes)?),
            Kind::U32 => Array::U32(self.numbers(n, u32::from_le_bytes)?),
            Kind::I32 => Array::I32(self.numbers(n, i32::from_le_bytes)?),
            Kind::U64 => Array::U64(self.numbers(n, u64::from_le_bytes)?),
            Kind::I64 => Array::I64(self.numbers(n, i64::from_le_bytes)?),
            Kind::F32 => Array::F32(self.numbers(n, f32::from_le_bytes)?),
            Kind::F64 => Array::F64(self.numbers(n, f64::from_le_bytes)?),
            Kind::Bool => {
                let bytes = self.numbers(n, u8::from_le_bytes)?;
                Array::Bool(bytes.into_iter().map(|byte| boolean(key, byte)).collect::<Result<_, _>>()?)
            }
            Kind::String => Array::String(self.elements(n, MIN_STRING_BYTES, |cursor| {
                cursor.string("a string of a metadata array", cursor.limits.string_bytes)
            })?),
            Kind::Array => {
                Array::Array(self.elements(n, MIN_ARRAY_BYTES, |cursor| cursor.array(key, depth + 1))?)
            }
        })
    }

    /// Elements of one size: the whole array is there before anything is reserved.
    fn numbers<T, const N: usize>(&mut self, n: u64, read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        let what = "a metadata array";
        let bytes = self.take(what, n.saturating_mul(N as u64))?;
        limit("the length of a metadata array", n, self.limits.array_elements)?;
        Ok(bytes.as_chunks().0.iter().map(|&chunk| read(chunk)).collect())
    }

    /// Elements whose size varies, each of at least `min_bytes`.
    fn elements<T>(
        &mut self,
        n: u64,
        min_bytes: u64,
        mut read: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let count = self.claim("a metadata array", n, min_bytes)?;
        limit("the length of a metadata array", n, self.limits.array_elements)?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            self.redeem(min_bytes);
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// A tensor info; `offset` is still the one in the data section.
    fn tensor(&mut self) -> Result<TensorInfo, Error> {
        let name = self.name("the name of a tensor", self.limits.tensor_name_bytes)?;
        let found = self.u32("the number of dimensions of a tensor")?;
        let max = self.limits.dimensions;
        if found > max {
            return Err(Error::DimensionCount { name: shown(&name), found, max });
        }
        let dims = self.numbers(found.into(), u64::from_le_bytes)?;
        let found = self.u32("the type of a tensor")?;
        let ty =
            GgmlType::from_id(found).ok_or_else(|| Error::UnknownTensorType { name: shown(&name), found })?;
        let bytes = tensor_bytes(&name, ty, &dims)?;
        let offset = self.u64("the offset of a tensor")?;
        Ok(TensorInfo { name, ty, dims, offset, bytes })
    }
}

fn boolean(key: &str, byte: u8) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(Error::NotBool { key: shown(key), found }),
    }
}
