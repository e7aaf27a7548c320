//! The precompiled character map of a Unigram vocabulary: which texts are replaced before the tokens are looked up.
//!
//! SentencePiece stores it as a double array, a trie in one array of 32-bit units: the children of a node lie at
//! its base XOR the byte, and each unit holds the byte that it belongs to. After the array stand the replacements,
//! each ended by a zero byte. All of it comes from the file, so that every step is checked.

use veritas_gguf::{Array, Metadata, Value};

use crate::error::Error;
use crate::limits::MAX_CHARSMAP_BYTES;

const KEY: &str = "tokenizer.ggml.precompiled_charsmap";

/// The trie and what it leads to.
#[derive(Debug)]
pub(crate) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Reads the map, if the file has one.
    ///
    /// # Errors
    /// A map that is no array of bytes, too long, or shorter than it says.
    pub(crate) fn read(metadata: &Metadata) -> Result<Option<Self>, Error> {
        match metadata.get(KEY) {
            None => Ok(None),
            Some(Value::Array(Array::I8(bytes))) => {
                Self::parse(&bytes.iter().map(|&byte| byte as u8).collect::<Vec<_>>())
            }
            Some(_) => Self::parse(metadata.bytes(KEY)?),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let damaged = |reason| Error::CharsMap { reason };
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() > MAX_CHARSMAP_BYTES {
            return Err(damaged("it is longer than the limit"));
        }
        let (size, rest) = bytes.split_first_chunk().ok_or(damaged("it has no header"))?;
        let size = u32::from_le_bytes(*size) as usize;
        if !size.is_multiple_of(4) {
            return Err(damaged("its array does not consist of 32-bit units"));
        }
        let (units, replacements) =
            rest.split_at_checked(size).ok_or(damaged("its array is longer than the map"))?;
        let unit = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let replacements =
            std::str::from_utf8(replacements).map_err(|_| damaged("its replacements are not UTF-8"))?;
        Ok(Some(Self {
            units: units.chunks_exact(4).map(unit).collect(),
            replacements: replacements.to_owned(),
        }))
    }

    /// The longest text of the map that `text` begins with: its replacement and its length in bytes.
    ///
    /// # Errors
    /// If the map leads out of itself.
    pub(crate) fn longest(&self, text: &str) -> Result<Option<(&str, usize)>, Error> {
        if self.units.is_empty() {
            return Ok(None);
        }
        let mut longest = None;
        let mut at = base(self.unit(0)?);
        for (depth, byte) in text.bytes().enumerate() {
            if byte == 0 {
                break;
            }
            at ^= u32::from(byte);
            let unit = self.unit(at)?;
            // The bit marks a value, which is no child of any byte.
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= base(unit);
            if unit >> 8 & 1 == 1 {
                longest = Some((depth + 1, self.unit(at)? & !(1 << 31)));
            }
        }
        let Some((bytes, start)) = longest else { return Ok(None) };
        let damaged = |reason| Error::CharsMap { reason };
        if !text.is_char_boundary(bytes) {
            return Err(damaged("it replaces a part of a character"));
        }
        let rest =
            self.replacements.get(start as usize..).ok_or(damaged("a replacement lies outside of it"))?;
        let (replacement, _) = rest.split_once('\0').ok_or(damaged("a replacement has no end"))?;
        Ok(Some((replacement, bytes)))
    }

    fn unit(&self, at: u32) -> Result<u32, Error> {
        self.units.get(at as usize).copied().ok_or(Error::CharsMap { reason: "a node lies outside of it" })
    }
}

/// Where the children of a unit lie: an offset of 22 bits, in units of 256 where bit 9 says so.
fn base(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of one text: "a" becomes "bc".
    fn map() -> Vec<u8> {
        let mut units = vec![0u32; 256];
        // The root's children lie at 0 ^ byte; "a" is a leaf whose value lies at its place ^ 1.
        units[0] = 0;
        units[0x61] = 1 << 10 | 1 << 8 | 0x61;
        units[0x60] = 1 << 31 | 2;
        let mut bytes = 1024u32.to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(b"x\0bc\0");
        bytes
    }

    #[test]
    fn a_text_of_the_map_is_replaced() {
        let map = CharsMap::parse(&map()).unwrap().unwrap();
        assert_eq!(map.longest("ab").unwrap(), Some(("bc", 1)));
        assert_eq!(map.longest("b").unwrap(), None);
        assert_eq!(map.longest("\0").unwrap(), None);
        assert_eq!(map.longest("").unwrap(), None);
    }

    #[test]
    fn no_damaged_map_leads_to_a_panic() {
        let good = map();
        for cut in 0..good.len() {
            if let Ok(Some(map)) = CharsMap::parse(&good[..cut]) {
                let _ = map.longest("a");
            }
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(Some(map)) = CharsMap::parse(&bytes) {
                    for text in ["a", "aa", "ä", "\u{ffff}"] {
                        let _ = map.longest(text);
                    }
                }
            }
        }
        assert!(matches!(CharsMap::parse(&[0]), Err(Error::CharsMap { .. })));
        assert!(matches!(CharsMap::parse(&[8, 0, 0, 0, 1]), Err(Error::CharsMap { .. })));
    }
}
