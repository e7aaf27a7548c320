//! How large a chat is.

use serde_json::Value as Json;

use super::limits::{MAX_CHAT_BYTES, MAX_CHAT_DEPTH, MAX_CHAT_VALUES};
use super::{ChatInput, Error};

/// Checks the size of a chat, and gives the bytes of its strings and the number of its values.
pub(super) fn check(input: &ChatInput) -> Result<(usize, usize), Error> {
    let mut size = Size { bytes: input.bos_token.len() + input.eos_token.len(), values: 0 };
    size.add(&input.messages, 0)?;
    if let Some(tools) = &input.tools {
        size.add(tools, 0)?;
    }
    for (key, value) in &input.extra {
        size.bytes += key.len();
        size.add(value, 0)?;
    }
    Ok((size.bytes, size.values))
}

struct Size {
    bytes: usize,
    values: usize,
}

impl Size {
    fn add(&mut self, value: &Json, depth: usize) -> Result<(), Error> {
        self.values += 1;
        match value {
            Json::String(text) => self.bytes += text.len(),
            Json::Array(items) if depth < MAX_CHAT_DEPTH => {
                items.iter().try_for_each(|item| self.add(item, depth + 1))?
            }
            Json::Object(map) if depth < MAX_CHAT_DEPTH => {
                for (key, item) in map {
                    self.bytes += key.len();
                    self.add(item, depth + 1)?;
                }
            }
            Json::Array(_) | Json::Object(_) => return Err(Error::ChatTooLarge),
            _ => {}
        }
        if self.bytes > MAX_CHAT_BYTES || self.values > MAX_CHAT_VALUES {
            Err(Error::ChatTooLarge)
        } else {
            Ok(())
        }
    }
}
