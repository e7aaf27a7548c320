//! What each message consists of, as data: the tables by which a body is checked before it is decoded.
//!
//! `cargo xtask proto --write` generates the tables from the `.proto` files.

/// A message.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Its name without the package.
    pub(crate) name: &'static str,
    /// Bytes that a value takes in memory, without what it owns.
    pub(crate) bytes: usize,
    /// Its fields, ascending by number.
    pub(crate) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// The names of the message and the field, for messages of errors.
    pub(crate) path: &'static str,
    /// A number below 64 that the field shares with those that exclude it; none if it may come any number of times.
    pub(crate) slot: Option<u8>,
    pub(crate) ty: Type,
}

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Type {
    /// A number or a truth value of variable length: how much memory it takes, and the largest that fits.
    Varint { bytes: usize, max: u64 },
    /// A floating-point number of so many bytes.
    Fixed { bytes: usize },
    /// A text in UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// A message.
    Message(&'static Shape),
}

impl Shape {
    /// The message of that name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        table::ALL.iter().find(|shape| shape.name == name).copied()
    }

    /// The field of that number.
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| &self.fields[at])
    }
}

mod table {
    use super::{Field, Shape, Type};
    use crate::v1;

    include!("generated/shapes.rs");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(shape: &Shape, path: &mut Vec<&'static str>) -> usize {
        assert!(!path.contains(&shape.name), "{} contains itself", shape.name);
        path.push(shape.name);
        let below = shape.fields.iter().filter_map(|field| match field.ty {
            Type::Message(inner) => Some(depth(inner, path)),
            _ => None,
        });
        let deepest = below.max().unwrap_or(0);
        path.pop();
        deepest + 1
    }

    #[test]
    fn no_message_contains_itself_so_that_no_body_nests_deeply() {
        let deepest = table::ALL.iter().map(|shape| depth(shape, &mut Vec::new())).max();
        assert_eq!(deepest, Some(4), "GenerateRequest, Health and Status nest four deep");
    }

    #[test]
    fn fields_ascend_and_their_slots_fit_a_set_of_64() {
        for shape in table::ALL {
            assert!(shape.fields.is_sorted_by(|a, b| a.number < b.number), "{}", shape.name);
            assert!(
                shape.fields.iter().all(|field| field.slot.is_none_or(|slot| slot < 64)),
                "{}",
                shape.name
            );
            assert_eq!(Shape::of(shape.name).map(|found| found.fields.len()), Some(shape.fields.len()));
        }
    }
}
