//! Models split into several files, `NAME-00001-of-00003.gguf`: their names, and the parts as one set.
//!
//! Part 0 holds the metadata; each part says in `split.no`, `split.count` and `split.tensors.count` where it
//! stands. Opening the files is the caller's: this crate sees bytes only.

use std::collections::HashMap;

use crate::Gguf;
use crate::error::{Error, shown};
use crate::limits::MAX_PARTS;
use crate::metadata::Metadata;
use crate::tensor::TensorInfo;

/// Key of the place of a part, from 0.
pub const NO_KEY: &str = "split.no";
/// Key of the number of parts.
pub const COUNT_KEY: &str = "split.count";
/// Key of the number of tensors in all parts.
pub const TENSORS_KEY: &str = "split.tensors.count";

/// What the name of a part says: `prefix-00002-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// Everything before the number, directories too.
    pub prefix: String,
    /// The place of the part, from 0.
    pub part: usize,
    /// The number of parts, 1 to [`MAX_PARTS`].
    pub count: usize,
}

impl PartName {
    /// Reads the name of a file; `None` if it is not that of a part.
    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_suffix(".gguf")?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five_digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
        if !five_digits(number) || !five_digits(count) {
            return None;
        }
        let (number, count): (usize, usize) = (number.parse().ok()?, count.parse().ok()?);
        let valid = (1..=count).contains(&number) && count <= MAX_PARTS;
        valid.then(|| Self { prefix: prefix.to_owned(), part: number - 1, count })
    }

    /// The name of the part at `part`, from 0.
    pub fn name(&self, part: usize) -> String {
        format!("{}-{:05}-of-{:05}.gguf", self.prefix, part + 1, self.count)
    }

    /// The names of all parts in their order.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.count).map(|part| self.name(part))
    }
}

/// The number of parts that a file belongs to: 1 for a file that is not split.
///
/// # Errors
/// [`Error::WrongType`] or [`Error::OutOfRange`] if `split.count` is no count, [`Error::Limit`] beyond
/// [`MAX_PARTS`].
pub fn part_count(metadata: &Metadata) -> Result<usize, Error> {
    let found = metadata.opt_u32(COUNT_KEY)?.unwrap_or(1).max(1);
    let count = usize::try_from(found).ok().filter(|&count| count <= MAX_PARTS);
    count.ok_or(Error::Limit {
        what: "the parts of a split file",
        found: found.into(),
        max: MAX_PARTS as u64,
    })
}

/// The files of one model: as a rule one, or all parts of a split model.
#[derive(Clone, Debug)]
pub struct GgufSet {
    /// The parts in their order, at least one.
    pub parts: Vec<Gguf>,
    /// Part and place in the part of each tensor.
    by_name: HashMap<String, (u32, u32)>,
}

impl GgufSet {
    /// Joins the parts of a model, given in their order; a single file that is not split is a set of its own.
    ///
    /// # Errors
    /// [`Error::SplitCount`], [`Error::SplitOrder`] or [`Error::SplitTensors`] if the parts do not say that they
    /// are these parts in this order, [`Error::DuplicateTensor`] if two hold the same tensor.
    pub fn new(parts: Vec<Gguf>) -> Result<Self, Error> {
        let found = parts.len();
        for (expected, part) in parts.iter().enumerate() {
            let count = part_count(&part.metadata)?;
            if count != found {
                return Err(Error::SplitCount { expected: count as u64, found });
            }
            let number = part.metadata.opt_u64(NO_KEY)?.unwrap_or(0);
            if number != expected as u64 {
                return Err(Error::SplitOrder { expected, found: number });
            }
        }
        if parts.is_empty() {
            return Err(Error::SplitCount { expected: 1, found: 0 });
        }
        let n_tensors = parts.iter().map(|part| part.tensors.len()).sum();
        for (place, part) in parts.iter().enumerate() {
            let expected = part.metadata.opt_u64(TENSORS_KEY)?;
            if let Some(expected) = expected.filter(|&expected| expected != n_tensors as u64) {
                return Err(Error::SplitTensors { part: place, expected, found: n_tensors });
            }
        }
        let mut by_name = HashMap::with_capacity(n_tensors);
        for (part, gguf) in parts.iter().enumerate() {
            for (place, tensor) in gguf.tensors.iter().enumerate() {
                // Both are below the limits on parts and tensors, which a u32 holds.
                if by_name.insert(tensor.name.clone(), (part as u32, place as u32)).is_some() {
                    return Err(Error::DuplicateTensor { name: shown(&tensor.name) });
                }
            }
        }
        Ok(Self { parts, by_name })
    }

    /// The metadata of the model: that of part 0.
    pub fn metadata(&self) -> &Metadata {
        &self.parts[0].metadata
    }

    /// The part that holds a tensor, from 0, and what it says about it.
    pub fn tensor(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        let &(part, place) = self.by_name.get(name)?;
        Some((part as usize, self.parts.get(part as usize)?.tensors.get(place as usize)?))
    }

    /// All tensors with their part, in the order of the files.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &TensorInfo)> {
        self.parts
            .iter()
            .enumerate()
            .flat_map(|(part, gguf)| gguf.tensors.iter().map(move |tensor| (part, tensor)))
    }

    /// Elements of all tensors: the number of parameters.
    pub fn n_params(&self) -> u64 {
        self.parts.iter().map(Gguf::n_params).fold(0, u64::saturating_add)
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.file_bytes).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_part_leads_to_all_names() {
        let part = PartName::parse("dir-00001-of-00002/my-model-00002-of-00003.gguf").unwrap();
        assert_eq!((part.prefix.as_str(), part.part, part.count), ("dir-00001-of-00002/my-model", 1, 3));
        let names: Vec<_> = part.names().collect();
        assert_eq!(names[0], "dir-00001-of-00002/my-model-00001-of-00003.gguf");
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn other_names_are_no_parts() {
        for name in [
            "model.gguf",
            "m-0001-of-0002.gguf",
            "m-00000-of-00002.gguf",
            "m-00003-of-00002.gguf",
            "m-00001-of-99999.gguf",
            "m-00001-of-00002.bin",
            "m-+0001-of-00002.gguf",
            "m00001-of-00002.gguf",
        ] {
            assert_eq!(PartName::parse(name), None, "{name}");
        }
    }
}
