//! A reader of the committed GGUF fixture that relies on nothing but its layout: the crate that reads GGUF
//! files stands above this one.

use std::collections::BTreeMap;

use veritas_quant::GgmlType;

/// A tensor of the fixture.
pub(crate) struct Tensor {
    pub(crate) ty: GgmlType,
    #[allow(dead_code)] // Not every test that shares this module reads rows.
    pub(crate) row_len: usize,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a little-endian GGUF file whose metadata values are all strings or numbers.
pub(crate) fn tensors(path: &std::path::Path) -> BTreeMap<String, Tensor> {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut at = 0;
    assert_eq!(take(&file, &mut at, 4), b"GGUF");
    assert_eq!(number(&file, &mut at, 4), 3);
    let (n_tensors, n_values) = (number(&file, &mut at, 8), number(&file, &mut at, 8));
    for _ in 0..n_values {
        string(&file, &mut at);
        match number(&file, &mut at, 4) {
            8 => drop(string(&file, &mut at)),
            4..=6 => drop(number(&file, &mut at, 4)),
            10..=12 => drop(number(&file, &mut at, 8)),
            other => panic!("the fixture has metadata of type {other}"),
        }
    }
    let mut infos = vec![];
    for _ in 0..n_tensors {
        let name = string(&file, &mut at);
        let dims: Vec<usize> = (0..number(&file, &mut at, 4)).map(|_| number(&file, &mut at, 8)).collect();
        let id = number(&file, &mut at, 4) as u32;
        let ty = GgmlType::from_id(id).unwrap_or_else(|| panic!("{name} has the type {id}"));
        infos.push((name, ty, dims, number(&file, &mut at, 8)));
    }
    let data = at.next_multiple_of(32);
    infos
        .into_iter()
        .map(|(name, ty, dims, offset)| {
            let weights = dims.iter().product();
            let len = ty.row_bytes(weights).expect("the fixture has whole blocks");
            let bytes = file[data + offset..][..len].to_vec();
            (name, Tensor { ty, row_len: dims[0], bytes })
        })
        .collect()
}

fn take<'a>(file: &'a [u8], at: &mut usize, len: usize) -> &'a [u8] {
    *at += len;
    &file[*at - len..*at]
}

fn number(file: &[u8], at: &mut usize, len: usize) -> usize {
    take(file, at, len).iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte))
}

fn string(file: &[u8], at: &mut usize) -> String {
    let len = number(file, at, 8);
    String::from_utf8(take(file, at, len).to_vec()).expect("names are UTF-8")
}
