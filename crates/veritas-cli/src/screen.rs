//! Standard output for text that came from a worker.
//!
//! A worker reads files that an enemy may have made, so what it says may not command the user's terminal. Where stdout is
//! a terminal, control characters are taken out, except the end of a line, the tabulator and, where the command paints,
//! sequences that set colours. In a pipe or a file every byte stays as it is.

use std::io::{IsTerminal, StdoutLock, Write};

/// Bytes of a colour sequence that are looked at before it is taken for something else: the longest is `ESC[0m` with a
/// few numbers.
const SEQUENCE_BYTES_MAX: usize = 32;

/// Standard output, filtered where it is a terminal.
pub(crate) struct Screen {
    stdout: StdoutLock<'static>,
    filter: Option<Filter>,
}

impl Screen {
    /// Locks stdout. `paints`: sequences that set colours may pass.
    pub(crate) fn stdout(paints: bool) -> Self {
        let filter = std::io::stdout().is_terminal().then(|| Filter::new(paints));
        Self { stdout: std::io::stdout().lock(), filter }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.filter {
            None => self.stdout.write(bytes),
            Some(filter) => {
                let text = filter.pass(bytes);
                self.stdout.write_all(text.as_bytes())?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdout.flush()
    }
}

/// Takes control characters out of a stream of text.
struct Filter {
    paints: bool,
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
    /// An escape character and what followed it, while that may still set colours.
    sequence: String,
}

impl Filter {
    fn new(paints: bool) -> Self {
        Self { paints, rest: Vec::new(), sequence: String::new() }
    }

    /// What of the next bytes may be shown. Bytes that are no text become the replacement character.
    fn pass(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let mut out = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| self.take(c, &mut out));
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let may_go_on = chunks.peek().is_none() && is_beginning(invalid);
            if may_go_on {
                self.rest = invalid.to_vec();
            } else {
                self.take(char::REPLACEMENT_CHARACTER, &mut out);
            }
        }
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        if !self.sequence.is_empty() {
            let is_open = match (self.sequence.len(), c) {
                (1, '[') => true,
                (1, _) => false,
                (_, '0'..='9' | ';') => self.sequence.len() < SEQUENCE_BYTES_MAX,
                (_, 'm') => {
                    out.push_str(&self.sequence);
                    out.push('m');
                    self.sequence.clear();
                    return;
                }
                _ => false,
            };
            if is_open {
                self.sequence.push(c);
                return;
            }
            // What followed the escape character is text without it.
            out.push_str(&self.sequence[1..]);
            self.sequence.clear();
        }
        match c {
            '\n' | '\t' => out.push(c),
            '\x1b' if self.paints => self.sequence.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

/// Whether more bytes can make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(paints: bool, pieces: &[&[u8]]) -> String {
        let mut filter = Filter::new(paints);
        pieces.iter().map(|piece| filter.pass(piece)).collect()
    }

    #[test]
    fn nothing_that_commands_a_terminal_passes() {
        assert_eq!(shown(false, &[b"a\x1b[31mb\x07\r\x08c\x7f\n\td"]), "a[31mbc\n\td");
        assert_eq!(shown(false, &["a\u{9b}2Jb\u{85}".as_bytes()]), "a2Jb");
        // Cut anywhere, too.
        assert_eq!(shown(false, &[b"a\xc2", b"\x9b2J", b"\xc3", b"\xbc"]), "a2Jü");
        assert_eq!(shown(true, &[b"\x1b]0;title\x07x"]), "]0;titlex");
        assert_eq!(shown(true, &[b"\x1b[2Jx\x1b[1;1Hy"]), "[2Jx[1;1Hy");
    }

    #[test]
    fn colours_pass_where_the_command_paints_even_in_pieces() {
        assert_eq!(shown(true, &[b"\x1b[1", b"mbold\x1b", b"[0m"]), "\x1b[1mbold\x1b[0m");
        assert_eq!(shown(true, &[b"\x1b", b"\x1b[31mx"]), "\x1b[31mx");
    }

    #[test]
    fn what_is_no_text_is_replaced_and_the_rest_stays() {
        assert_eq!(shown(false, &[b"a\xffb\xe6\x97", b"\xa5 \xf0\x9f\xa6\x80"]), "a\u{fffd}b日 🦀");
    }
}
