//! What a file says about a tensor, and the checks that make it safe to read its bytes.

use veritas_quant::GgmlType;

use crate::error::{Error, shown};
use crate::limits::{MAX_ALIGNMENT, MIN_ALIGNMENT};
use crate::metadata::{first_equal, sorted_places};

/// A tensor of a file: its name, its type, its shape and where its bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, not empty.
    pub name: String,
    /// The type of the elements.
    pub ty: GgmlType,
    /// Elements in each dimension in ggml's order: `dims[0]` is the length of a row. Empty for a scalar; each
    /// at least 1.
    pub dims: Vec<u64>,
    /// Where the data begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// Bytes of the data.
    pub bytes: u64,
}

impl TensorInfo {
    /// Elements of a row: `dims[0]`, 1 for a scalar.
    pub fn row_len(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Rows: the product of all dimensions but the first.
    pub fn n_rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }

    /// Elements of the tensor.
    pub fn n_elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Where the data ends: the byte after the last, from the beginning of the file.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }

    /// The bytes of the tensor in the file that it was parsed from; `None` if `file` is shorter than that one.
    pub fn data<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        file.get(usize::try_from(self.offset).ok()?..usize::try_from(self.end()).ok()?)
    }
}

/// Bytes of a tensor of this shape.
///
/// # Errors
/// [`Error::Dimension`], [`Error::RowLength`] or [`Error::ElementOverflow`] if no file can hold such a tensor.
pub(crate) fn tensor_bytes(name: &str, ty: GgmlType, dims: &[u64]) -> Result<u64, Error> {
    if let Some((index, &found)) =
        dims.iter().enumerate().find(|&(_, &n)| n == 0 || i64::try_from(n).is_err())
    {
        return Err(Error::Dimension { name: shown(name), index, found });
    }
    let row_len = dims.first().copied().unwrap_or(1);
    if !row_len.is_multiple_of(ty.block_len() as u64) {
        return Err(Error::RowLength { name: shown(name), ty, row_len });
    }
    let overflow = || Error::ElementOverflow { name: shown(name), dims: dims.to_vec() };
    // ggml counts in signed 64-bit numbers: what it cannot count is refused, although a u64 could.
    let countable = |n: &u64| i64::try_from(*n).is_ok();
    let elements =
        dims.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim)).filter(countable).ok_or_else(overflow)?;
    (elements / ty.block_len() as u64)
        .checked_mul(ty.block_bytes() as u64)
        .filter(countable)
        .ok_or_else(overflow)
}

/// Whether an alignment is one that the format allows.
pub(crate) fn check_alignment(found: u64) -> Result<u64, Error> {
    if found.is_power_of_two() && (MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&found) {
        return Ok(found);
    }
    Err(Error::Alignment { found })
}

/// The places of the tensors in the order of their names.
///
/// # Errors
/// [`Error::DuplicateTensor`] if a name stands twice.
pub(crate) fn places_by_name(tensors: &[TensorInfo]) -> Result<Vec<u32>, Error> {
    let by_name = sorted_places(tensors.len(), "tensors", |a, b| tensors[a].name.cmp(&tensors[b].name))?;
    match first_equal(&by_name, |a, b| tensors[a].name == tensors[b].name) {
        Some(place) => Err(Error::DuplicateTensor { name: shown(&tensors[place].name) }),
        None => Ok(by_name),
    }
}

/// Finds a name through the index of [`places_by_name`].
pub(crate) fn find<'a>(tensors: &'a [TensorInfo], by_name: &[u32], name: &str) -> Option<&'a TensorInfo> {
    let at = |place: u32| tensors.get(place as usize);
    let found = by_name
        .binary_search_by(|&place| at(place).map_or(std::cmp::Ordering::Less, |t| t.name.as_str().cmp(name)));
    at(by_name[found.ok()?])
}

/// Checks that no two tensors share bytes.
///
/// # Errors
/// [`Error::Overlap`] with the names of the first two that do.
pub(crate) fn check_overlap(tensors: &[TensorInfo]) -> Result<(), Error> {
    let by_offset =
        sorted_places(tensors.len(), "tensors", |a, b| tensors[a].offset.cmp(&tensors[b].offset))?;
    for pair in by_offset.windows(2) {
        let (first, second) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if second.offset < first.end() {
            return Err(Error::Overlap { first: shown(&first.name), second: shown(&second.name) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(ty: GgmlType, dims: &[u64]) -> Result<u64, Error> {
        tensor_bytes("t", ty, dims)
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(matches!(bytes(GgmlType::F32, &[1 << 32, 1 << 32]), Err(Error::ElementOverflow { .. })));
        assert!(matches!(bytes(GgmlType::F32, &[1 << 62]), Err(Error::ElementOverflow { .. })));
        assert!(matches!(bytes(GgmlType::I8, &[1 << 31, 1 << 32]), Err(Error::ElementOverflow { .. })));
        assert_eq!(bytes(GgmlType::I8, &[1 << 31, 1 << 31]).unwrap(), 1 << 62);
    }

    #[test]
    fn zero_and_negative_dimensions_are_refused_by_their_place() {
        assert!(matches!(bytes(GgmlType::F32, &[4, 0]), Err(Error::Dimension { index: 1, .. })));
        let error = bytes(GgmlType::F32, &[u64::MAX]).unwrap_err();
        assert_eq!(error.to_string(), "dimension 0 of the tensor \"t\" is -1: it must be at least 1");
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert!(matches!(bytes(GgmlType::Q4_K, &[128, 2]), Err(Error::RowLength { row_len: 128, .. })));
        assert_eq!(bytes(GgmlType::Q4_K, &[256, 2]).unwrap(), 288);
        assert_eq!(bytes(GgmlType::F32, &[]).unwrap(), 4);
        assert!(bytes(GgmlType::Q8_0, &[]).is_err());
    }
}
