//! Input from files and stdin, with limits: nobody's pipe can fill the memory.

use std::io::{BufRead, Read};
use std::path::Path;

use crate::failure::{Code, Failure};

/// Bytes of a text or of a line: beyond what a tokenizer takes, so that the limit that users meet is that one.
const TEXT_BYTES_MAX: u64 = 128 << 20;

/// All of stdin as text, exactly as it was sent.
pub(crate) fn stdin_text() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("stdin holds more than {TEXT_BYTES_MAX} bytes"))
            .hint("send several texts as lines, with --jsonl"));
    }
    utf8(bytes, "stdin")
}

/// Calls `each` with the number (from 1) and the text of each line of stdin that is not blank.
pub(crate) fn each_stdin_line(
    mut each: impl FnMut(usize, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if (&mut stdin).take(TEXT_BYTES_MAX + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 > TEXT_BYTES_MAX {
            return Err(Failure::usage(format!("line {number} has more than {TEXT_BYTES_MAX} bytes")));
        }
        let text = utf8(std::mem::take(&mut line), &format!("line {number}"))?;
        if !text.trim().is_empty() {
            each(number, &text)?;
        }
        line = text.into_bytes();
    }
    Ok(())
}

/// A text file.
pub(crate) fn file_text(path: &Path) -> Result<String, Failure> {
    let not_read = |error| Failure::new(Code::NotFound, format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(not_read)?;
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(not_read)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("{} holds more than {TEXT_BYTES_MAX} bytes", path.display())));
    }
    utf8(bytes, &path.display().to_string())
}

fn utf8(bytes: Vec<u8>, what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(format!("{what} is not UTF-8: the byte 0x{:02x} at {at}", error.as_bytes()[at]))
            .hint("convert it to UTF-8 first")
    })
}
