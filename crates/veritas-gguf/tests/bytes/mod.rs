//! GGUF files put together byte by byte, so that any of them can be wrong.
#![allow(dead_code, unreachable_pub)] // Each test uses some of these.

pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A key-value pair: the value's bytes are taken as they are.
pub fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key.as_bytes())[..], &kind.to_le_bytes(), value].concat()
}

/// An array that claims `n` elements, whatever `elements` holds.
pub fn array(kind: u32, n: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &n.to_le_bytes(), elements].concat()
}

pub fn info(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut info = string(name.as_bytes());
    info.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|dim| info.extend(dim.to_le_bytes()));
    info.extend(kind.to_le_bytes());
    info.extend(offset.to_le_bytes());
    info
}

/// A file of version 3 with padding to 32 and `data_bytes` zeros at the end.
pub fn file(pairs: &[Vec<u8>], tensors: &[Vec<u8>], data_bytes: usize) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    pairs.iter().chain(tensors).for_each(|part| file.extend(part));
    file.resize(file.len().next_multiple_of(32) + data_bytes, 0);
    file
}
