//! Sizes and processor counts as people write them.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, or what the machine has less a reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The physical memory less a sixteenth of it (at least 512 MiB less, and never less than half of it).
    Auto,
    /// A number of bytes.
    Bytes(u64),
}

impl Size {
    /// The bytes, on a machine with `physical_bytes` of memory.
    #[must_use]
    pub fn bytes(self, physical_bytes: u64) -> u64 {
        match self {
            Self::Auto => crate::limits::automatic_memory_bytes(physical_bytes),
            Self::Bytes(bytes) => bytes,
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        const UNITS: [(&str, u64); 4] =
            [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| text.ends_with(unit))?;
        let number = text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?;
        Some(Self::Bytes(number.checked_mul(factor)?))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, a size such as \"512MiB\", or \"auto\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size::Bytes(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                let unexpected = de::Unexpected::Signed(bytes);
                u64::try_from(bytes).map(Size::Bytes).map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::from_text(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// A number of processors in thousandths, or `unlimited`, as a policy file writes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpus(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CpusVisitor;
        impl Visitor<'_> for CpusVisitor {
            type Value = Cpus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of processors from 0.01 to 100000, or \"unlimited\"")
            }

            fn visit_i64<E: de::Error>(self, cpus: i64) -> Result<Cpus, E> {
                // Whole numbers of a sensible size are exact in f64.
                self.visit_f64(cpus as f64)
            }

            fn visit_f64<E: de::Error>(self, cpus: f64) -> Result<Cpus, E> {
                if !(0.01..=100_000.0).contains(&cpus) {
                    return Err(E::invalid_value(de::Unexpected::Float(cpus), &self));
                }
                // In range by the line above.
                Ok(Cpus(Some((cpus * 1000.0).round() as u64)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cpus, E> {
                if text == "unlimited" {
                    return Ok(Cpus(None));
                }
                Err(E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(CpusVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_units_and_overflow_is_none() {
        assert_eq!(Size::from_text("512MiB"), Some(Size::Bytes(512 << 20)));
        assert_eq!(Size::from_text("8 GiB"), Some(Size::Bytes(8 << 30)));
        assert_eq!(Size::from_text("auto"), Some(Size::Auto));
        for wrong in ["", "GiB", "8GB", "-1GiB", "1.5GiB", "99999999999999TiB", "512"] {
            assert_eq!(Size::from_text(wrong), None, "{wrong}");
        }
    }
}
