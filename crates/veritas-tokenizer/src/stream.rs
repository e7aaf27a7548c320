//! Text as it comes: token by token, but never a part of a character.

use std::ops::Deref;

use veritas_base::TokenId;

use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Decodes a sequence one token at a time.
///
/// The pieces together are what [`Tokenizer::decode`] gives for the whole sequence, with `U+FFFD` for what is no
/// UTF-8. `T` is a reference of any kind to the tokenizer (`&Tokenizer`, `Arc<Tokenizer>`).
#[derive(Clone, Debug)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    special: bool,
    begins: bool,
    /// Bytes of a character that is not yet whole: at most three.
    rest: Vec<u8>,
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// A decoder of a sequence from its beginning; with `special` the texts of control tokens are text too.
    pub fn new(tokenizer: T, special: bool) -> Self {
        Self { tokenizer, special, begins: true, rest: Vec::new() }
    }

    /// A decoder of what follows after a prompt, whose last token decides whether a leading space belongs to the
    /// text ("Once upon a" | " time") or was put there by the vocabulary (`[/INST]` | " Yes").
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn after(tokenizer: T, special: bool, prompt: &[TokenId]) -> Result<Self, Error> {
        let begins = match prompt.last() {
            None => true,
            Some(&last) => {
                tokenizer.check(last)?;
                tokenizer.is_special(last)
            }
        };
        Ok(Self { tokenizer, special, begins, rest: Vec::new() })
    }

    /// The text that a token completes: empty while a character is not whole.
    ///
    /// # Errors
    /// An id beyond the vocabulary.
    pub fn push(&mut self, id: TokenId) -> Result<String, Error> {
        self.tokenizer.decode_one(id, self.special, &mut self.begins, &mut self.rest)?;
        let mut text = String::new();
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.rest[done..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.rest.clear();
                    return Ok(text);
                }
                Err(error) => {
                    let (valid, after) = self.rest[done..].split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    done += valid.len();
                    match error.error_len() {
                        // Wrong whatever follows.
                        Some(bytes) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            done += bytes;
                        }
                        None => {
                            self.rest = after.to_vec();
                            return Ok(text);
                        }
                    }
                }
            }
        }
    }

    /// Whether bytes of a character that is not whole are held back.
    pub fn is_pending(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The end of the sequence: `U+FFFD` if it ends inside a character.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}
