//! The characters that GPT-2's BPE writes for bytes: each printable Latin-1 character for itself, and U+0100
//! onwards for the others, so that no token's text holds a space or a control character.

/// The character of each byte.
pub(crate) static CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut byte, mut next) = (0u16, 0u8);
    while byte < 256 {
        let c = byte as u8;
        chars[c as usize] = if printable(c) {
            c as char
        } else {
            // U+0100 to U+0143: there are 68 bytes that do not print.
            let c = (0x100 + next as u32) as u16;
            next += 1;
            match char::from_u32(c as u32) {
                Some(c) => c,
                None => panic!("all of U+0100 to U+0143 are characters"),
            }
        };
        byte += 1;
    }
    chars
};

/// Whether GPT-2's alphabet keeps the character of this byte.
const fn printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte of a character of the alphabet.
pub(crate) fn byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..=0xff => printable(code as u8).then_some(code as u8),
        // The bytes that do not print, in their order: 0 to 0x20, 0x7f to 0xa0, 0xad.
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes of a text in the alphabet; a character outside it stands for its UTF-8.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_and_the_way_back_is_exact() {
        for value in 0..=255u8 {
            assert_eq!(byte(CHARS[usize::from(value)]), Some(value));
        }
        assert_eq!((CHARS[b' ' as usize], CHARS[b'\n' as usize]), ('Ġ', 'Ċ'));
        assert_eq!((byte(' '), byte('\u{144}')), (None, None));
    }
}
