//! Checks a body against the tables of its message before it is decoded.
//!
//! A decoder of protobuf alone takes more than is good for a daemon. Two bytes on the wire may become some hundred in
//! memory (an empty message within a list), so that the limit on a body does not limit memory. Fields that it does not
//! know are dropped, numbers that do not fit are cut off, of two values for one field the last is taken: a request would
//! be answered as if part of it had not been said. And what it reports may show bytes of the body, which then stand in a
//! log. Here each of these is an error that is made of constant texts.
//!
//! The body is walked once; nothing is allocated. Messages do not contain themselves, so the depth is that of the tables.

use crate::limits;
use crate::shape::{Field, Shape, Type};

/// What is wrong with a body, and in which message or field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not the message.
    Malformed { at: &'static str, reason: &'static str },
    /// A field that is not known, in this message.
    Unknown { at: &'static str },
    /// In memory it would take more than this.
    TooLarge { limit: u64 },
}

/// Checks that `body` is a message of `shape`. A strict check refuses, too, what a decoder would drop or change.
pub(crate) fn check(body: &[u8], shape: &Shape, is_strict: bool) -> Result<(), Fault> {
    let limit = limits::DECODED_BYTES_FREE + limits::DECODED_BYTES_PER_BYTE * body.len() as u64;
    let mut walk = Walk { is_strict, used: shape.bytes as u64, limit };
    walk.message(&mut Bytes(body), shape)
}

/// The course of a check.
struct Walk {
    is_strict: bool,
    /// Bytes that the message takes in memory as far as it has been walked.
    used: u64,
    limit: u64,
}

impl Walk {
    fn message(&mut self, bytes: &mut Bytes<'_>, shape: &Shape) -> Result<(), Fault> {
        let malformed = |reason| Fault::Malformed { at: shape.name, reason };
        let mut slots = 0u64;
        while !bytes.0.is_empty() {
            let (number, wire) = bytes.key().map_err(malformed)?;
            let Some(field) = shape.field(number) else {
                if self.is_strict {
                    return Err(Fault::Unknown { at: shape.name });
                }
                bytes.skip(wire).map_err(malformed)?;
                continue;
            };
            if let Some(slot) = field.slot {
                if self.is_strict && slots & 1 << slot != 0 {
                    return Err(malformed("has a value twice, or two that exclude each other"));
                }
                slots |= 1 << slot;
            }
            self.field(bytes, field, wire)?;
        }
        Ok(())
    }

    fn field(&mut self, bytes: &mut Bytes<'_>, field: &Field, wire: Wire) -> Result<(), Fault> {
        let malformed = |reason| Fault::Malformed { at: field.path, reason };
        let is_repeated = field.slot.is_none();
        // A value that is not in a list is part of its message, which has been counted.
        let in_list = |bytes: usize| if is_repeated { bytes } else { 0 };
        match (&field.ty, wire) {
            (Type::Varint { bytes: size, max }, Wire::Varint) => {
                self.varint(bytes, *max).map_err(malformed)?;
                self.take(in_list(*size))
            }
            (Type::Varint { bytes: size, max }, Wire::Delimited) if is_repeated => {
                let mut packed = bytes.delimited().map_err(malformed)?;
                while !packed.0.is_empty() {
                    self.varint(&mut packed, *max).map_err(malformed)?;
                    self.take(*size)?;
                }
                Ok(())
            }
            (Type::Fixed { bytes: size @ 4 }, Wire::Fixed32)
            | (Type::Fixed { bytes: size @ 8 }, Wire::Fixed64) => {
                bytes.skip(wire).map_err(malformed)?;
                self.take(in_list(*size))
            }
            (Type::Fixed { bytes: size }, Wire::Delimited) if is_repeated => {
                let packed = bytes.delimited().map_err(malformed)?;
                if !packed.0.len().is_multiple_of(*size) {
                    return Err(malformed("is not a whole number of values"));
                }
                self.take(packed.0.len())
            }
            (Type::Text, Wire::Delimited) => {
                let text = bytes.delimited().map_err(malformed)?;
                std::str::from_utf8(text.0).map_err(|_| malformed("is not UTF-8"))?;
                self.take(in_list(size_of::<String>()) + text.0.len())
            }
            (Type::Bytes, Wire::Delimited) => {
                let any = bytes.delimited().map_err(malformed)?;
                self.take(in_list(size_of::<Vec<u8>>()) + any.0.len())
            }
            (Type::Message(shape), Wire::Delimited) => {
                let mut inner = bytes.delimited().map_err(malformed)?;
                self.take(in_list(shape.bytes))?;
                self.message(&mut inner, shape)
            }
            _ => Err(malformed("has a wire type that is not that of the field")),
        }
    }

    /// One number; a strict check refuses one that does not fit.
    fn varint(&self, bytes: &mut Bytes<'_>, max: u64) -> Result<(), &'static str> {
        let value = bytes.varint()?;
        if self.is_strict && value > max { Err("has a number that does not fit") } else { Ok(()) }
    }

    /// Counts memory.
    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.used += bytes as u64;
        if self.used > self.limit { Err(Fault::TooLarge { limit: self.limit }) } else { Ok(()) }
    }
}

/// How a value stands on the wire.
#[derive(Clone, Copy)]
enum Wire {
    Varint,
    Fixed64,
    Delimited,
    Fixed32,
}

/// Bytes that have not been walked yet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// A number in groups of seven bits, the lowest first, of at most 64 bits.
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or("ends within a number")?;
            self.0 = rest;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= group << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("has a number of more than 64 bits")
    }

    /// The number of a field, and how its value stands on the wire.
    fn key(&mut self) -> Result<(u32, Wire), &'static str> {
        let key = u32::try_from(self.varint()?).map_err(|_| "has a field number that is too large")?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Delimited,
            5 => Wire::Fixed32,
            3 | 4 => return Err("has a group, which protobuf has given up"),
            _ => return Err("has a wire type that does not exist"),
        };
        match key >> 3 {
            0 => Err("has a field with number 0"),
            number => Ok((number, wire)),
        }
    }

    /// The next bytes, as many as the number before them says.
    fn delimited(&mut self) -> Result<Self, &'static str> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<Self, &'static str> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("ends within a value")?;
        self.0 = rest;
        Ok(Bytes(taken))
    }

    /// Leaves a value out.
    fn skip(&mut self, wire: Wire) -> Result<(), &'static str> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.take(8).map(drop),
            Wire::Fixed32 => self.take(4).map(drop),
            Wire::Delimited => self.delimited().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(name: &str) -> &'static Shape {
        Shape::of(name).expect("the message exists")
    }

    fn fault(name: &str, body: &[u8], is_strict: bool) -> Option<Fault> {
        check(body, shape(name), is_strict).err()
    }

    #[test]
    fn a_fault_names_the_field_or_the_message_where_it_is() {
        let malformed = |at, reason| Some(Fault::Malformed { at, reason });
        assert_eq!(fault("Hello", &[0x1a, 1, 0xff], false), malformed("Hello.client_name", "is not UTF-8"));
        assert_eq!(
            fault("Hello", &[0x1a, 2, 0x61], false),
            malformed("Hello.client_name", "ends within a value")
        );
        assert_eq!(
            fault("Welcome", &[0x2a, 1, 8], false),
            malformed("Limits.body_bytes_max", "ends within a number")
        );
        assert_eq!(fault("Welcome", &[0x2a, 1, 0x80], false), malformed("Limits", "ends within a number"));
        assert_eq!(fault("Cancel", &[8, 1], true), Some(Fault::Unknown { at: "Cancel" }));
        assert_eq!(fault("Cancel", &[8, 1], false), None);
    }

    #[test]
    fn a_strict_check_refuses_what_a_decoder_would_change() {
        for (name, body) in [
            ("GenerateRequest", &[0x30, 1, 0x30, 1][..]),
            ("GenerateRequest", &[0x12, 0, 0x1a, 0]),
            ("GenerateRequest", &[0x38, 2]),
            ("GenerateRequest", &[0x48, 4]),
            ("Credit", &[8, 0x80, 0x80, 0x80, 0x80, 0x10]),
            ("TokenIds", &[10, 5, 0x80, 0x80, 0x80, 0x80, 0x10]),
        ] {
            assert!(matches!(fault(name, body, true), Some(Fault::Malformed { .. })), "{name} {body:?}");
            assert_eq!(fault(name, body, false), None, "{name} {body:?}");
        }
        assert_eq!(fault("TokenIds", &[10, 1, 1, 10, 1, 2, 8, 3], true), None, "a list may come in parts");
        assert_eq!(
            fault("Credit", &[8, 0xff, 0xff, 0xff, 0xff, 0x0f], true),
            None,
            "the largest number fits"
        );
    }

    /// Bodies of many empty parts, each within a limit of a mebibyte, and what each would have become.
    #[test]
    fn lists_of_nothing_are_refused_before_they_take_memory() {
        let too_large = |name, part: &[u8]| {
            let body = part.repeat((1 << 20) / part.len());
            matches!(fault(name, &body, false), Some(Fault::TooLarge { .. }))
        };
        assert!(too_large("EmbedRequest", &[0x12, 0]), "12 times");
        assert!(too_large("ChatPrompt", &[10, 0]), "24 times");
        assert!(too_large("Finish", &[10, 0]), "64 times");
        assert!(too_large("ModelList", &[10, 0]), "more than 100 times");
        assert!(!too_large("EmbedRequest", &[0x12, 1, b'x']), "texts of one letter");
        assert!(!too_large("TokenIds", &[10, 6, 1, 2, 3, 4, 5, 6]), "numbers of one byte");
        assert!(!too_large("ChatPrompt", &[10, 8, 10, 4, b'u', b's', b'e', b'r', 18, 0]), "short messages");
        let few = [10, 0].repeat(1000);
        assert_eq!(fault("ModelList", &few, false), None, "few of anything are never refused");
    }

    #[test]
    fn what_a_body_takes_in_memory_is_counted_as_the_types_are_laid_out() {
        let used = |name: &str, body: &[u8]| {
            let mut walk = Walk { is_strict: false, used: 0, limit: u64::MAX };
            walk.message(&mut Bytes(body), shape(name)).expect("the body is valid");
            walk.used
        };
        assert_eq!(used("TokenIds", &[10, 3, 1, 2, 3, 8, 4]), 16, "four numbers of four bytes");
        assert_eq!(
            used("Embedding", &[10, 8, 0, 0, 0, 0, 0, 0, 0, 0, 16, 9]),
            8,
            "two floats; a count is in place"
        );
        assert_eq!(
            used("TextPrompt", &[10, 3, b'a', b'b', b'c']),
            3,
            "a text is in place, its bytes are not"
        );
        assert_eq!(used("EmbedRequest", &[18, 1, b'a']), 24 + 1, "a text in a list is not in place");
        let message = size_of::<crate::v1::Message>() as u64;
        assert_eq!(used("ChatPrompt", &[10, 3, 10, 1, b'a', 10, 0]), 2 * message + 1);
    }
}
