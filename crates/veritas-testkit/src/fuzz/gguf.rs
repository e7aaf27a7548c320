//! What must hold for any bytes that are given to the GGUF reader.

use veritas_gguf::{Array, Error, Gguf, GgufSet, Metadata, Value, Writer, parse};

/// Memory that the reader may take for each byte of the header: see `veritas_gguf::limits::Limits`.
const MAX_MEMORY_RATIO: u64 = 8;
/// Longest message: names in it are cut.
const MAX_MESSAGE_CHARS: usize = 1000;
/// A file is written again only if its data section is no larger, so that a small input makes a small output.
const MAX_REWRITTEN_BYTES: u64 = 1 << 20;

/// Parses `bytes` and checks what the reader promises of its answer.
///
/// # Panics
/// If a promise is broken.
pub fn check(bytes: &[u8]) -> Result<Gguf, Error> {
    let parsed = parse(bytes);
    match &parsed {
        Ok(gguf) => check_parsed(gguf, bytes),
        Err(error) => check_message(error),
    }
    parsed
}

fn check_parsed(gguf: &Gguf, bytes: &[u8]) {
    assert!(matches!(gguf.version, 2 | 3));
    assert_eq!(gguf.file_bytes, bytes.len() as u64);
    assert!(gguf.alignment.is_power_of_two() && gguf.data_offset.is_multiple_of(gguf.alignment));
    let mut spans = Vec::new();
    for tensor in &gguf.tensors {
        let data = tensor.data(bytes).expect("the data of each tensor lies in the file");
        let rows =
            tensor.ty.row_bytes(usize::try_from(tensor.row_len()).expect("a row of the file fits memory"));
        let rows = rows.expect("a row is whole blocks") as u64 * tensor.n_rows();
        assert_eq!((data.len() as u64, rows), (tensor.bytes, tensor.bytes), "{}", tensor.name);
        assert!(tensor.offset >= gguf.data_offset && tensor.offset.is_multiple_of(gguf.alignment));
        assert!(!tensor.name.is_empty() && tensor.dims.len() <= 4 && !tensor.dims.contains(&0));
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor), "names are unique and lead to their tensor");
        spans.push((tensor.offset, tensor.end()));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "tensors overlap");
    let _ = (gguf.name(), gguf.architecture().is_ok(), gguf.n_params());
    check_metadata(&gguf.metadata);
    let header_bytes = gguf.data_offset.min(gguf.file_bytes);
    assert!(memory(gguf) <= MAX_MEMORY_RATIO * header_bytes, "{} bytes for {header_bytes}", memory(gguf));
    match GgufSet::new(vec![gguf.clone()]) {
        Ok(set) => assert!(gguf.tensors.iter().all(|t| set.tensor(&t.name) == Some((0, t)))),
        Err(error) => check_message(&error),
    }
    check_rewritten(gguf, bytes);
}

/// Every getter on every key: an answer or an error, and the same presence from both twins.
fn check_metadata(metadata: &Metadata) {
    for (key, value) in metadata.iter() {
        assert!(
            metadata.get(key).is_some_and(|found| std::ptr::eq(found, value)),
            "keys lead to their value"
        );
        macro_rules! getters {
            ($($get:ident $opt:ident),*) => {$(
                match (metadata.$get(key), metadata.$opt(key)) {
                    (Ok(_), Ok(Some(_))) => {}
                    (Err(error), Err(_)) => check_message(&error),
                    _ => panic!("{} and {} of {key:?} differ", stringify!($get), stringify!($opt)),
                }
            )*};
        }
        getters!(u32 opt_u32, i32 opt_i32, u64 opt_u64, f32 opt_f32, bool opt_bool, str opt_str, array opt_array);
        getters!(strings opt_strings, f32s opt_f32s, i32s opt_i32s, bools opt_bools, bytes opt_bytes);
        getters!(u32s opt_u32s, u32s_or_scalar opt_u32s_or_scalar, u64s_or_scalar opt_u64s_or_scalar);
    }
}

/// What was read can be written, and says the same when it is read again.
fn check_rewritten(gguf: &Gguf, bytes: &[u8]) {
    let mut writer = Writer::new(gguf.metadata.clone()).expect("what was read can be written");
    for tensor in &gguf.tensors {
        writer.tensor(&tensor.name, tensor.ty, &tensor.dims).expect("what was read can be written");
    }
    if writer.data_bytes() > MAX_REWRITTEN_BYTES || gguf.alignment > MAX_REWRITTEN_BYTES {
        return;
    }
    let mut out = writer.start(Vec::new()).expect("a vector takes all bytes");
    for tensor in &gguf.tensors {
        out.write(tensor.data(bytes).expect("the data lies in the file")).expect("the tensor has room");
    }
    let written = out.finish().expect("every tensor is complete");
    let again = parse(&written).expect("what was written is read");
    // Compared as text, since NaN is not equal to itself.
    assert_eq!(format!("{:?}", again.metadata), format!("{:?}", gguf.metadata));
    assert_eq!(again.tensors.len(), gguf.tensors.len());
    for (a, b) in again.tensors.iter().zip(&gguf.tensors) {
        assert_eq!((&a.name, a.ty, &a.dims, a.data(&written)), (&b.name, b.ty, &b.dims, b.data(bytes)));
    }
}

/// A message is one line that a terminal may show, whatever names the file holds.
fn check_message(error: &Error) {
    let message = error.to_string();
    assert!(!message.is_empty() && message.chars().count() <= MAX_MESSAGE_CHARS, "{message:?}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

/// Bytes that the answer holds, besides itself.
fn memory(gguf: &Gguf) -> u64 {
    let pairs = gguf.metadata.iter().map(|(key, value)| {
        // The pair, its place in the index, and what both own.
        size_of::<(String, Value)>() + size_of::<u32>() + key.len() + value_memory(value)
    });
    let tensors = gguf.tensors.iter().map(|tensor| {
        let owned = tensor.name.capacity() + tensor.dims.capacity() * size_of::<u64>();
        size_of_val(tensor) + size_of::<u32>() + owned
    });
    let spare = (gguf.tensors.capacity() - gguf.tensors.len()) * size_of::<veritas_gguf::TensorInfo>();
    (pairs.sum::<usize>() + tensors.sum::<usize>() + spare) as u64
}

fn value_memory(value: &Value) -> usize {
    match value {
        Value::String(text) => text.capacity(),
        Value::Array(array) => array_memory(array),
        _ => 0,
    }
}

fn array_memory(array: &Array) -> usize {
    fn plain<T>(values: &Vec<T>) -> usize {
        values.capacity() * size_of::<T>()
    }
    match array {
        Array::U8(x) => plain(x),
        Array::I8(x) => plain(x),
        Array::U16(x) => plain(x),
        Array::I16(x) => plain(x),
        Array::U32(x) => plain(x),
        Array::I32(x) => plain(x),
        Array::U64(x) => plain(x),
        Array::I64(x) => plain(x),
        Array::F32(x) => plain(x),
        Array::F64(x) => plain(x),
        Array::Bool(x) => plain(x),
        Array::String(x) => plain(x) + x.iter().map(String::capacity).sum::<usize>(),
        Array::Array(x) => plain(x) + x.iter().map(array_memory).sum::<usize>(),
    }
}
