//! What is written is read: any metadata, any tensors, split or whole.

use proptest::collection::vec;
use proptest::prelude::*;
use veritas_gguf::{Array, Error, Gguf, GgufSet, Metadata, Value, Writer, parse};
use veritas_quant::GgmlType;
use veritas_testkit::fuzz::gguf::check;

fn any_array() -> impl Strategy<Value = Array> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(Array::U8),
        vec(any::<i8>(), 0..20).prop_map(Array::I8),
        vec(any::<u16>(), 0..20).prop_map(Array::U16),
        vec(any::<i16>(), 0..20).prop_map(Array::I16),
        vec(any::<u32>(), 0..20).prop_map(Array::U32),
        vec(any::<i32>(), 0..20).prop_map(Array::I32),
        vec(any::<u64>(), 0..20).prop_map(Array::U64),
        vec(any::<i64>(), 0..20).prop_map(Array::I64),
        vec(any::<u32>().prop_map(f32::from_bits), 0..20).prop_map(Array::F32),
        vec(any::<u64>().prop_map(f64::from_bits), 0..20).prop_map(Array::F64),
        vec(any::<bool>(), 0..20).prop_map(Array::Bool),
        vec(any::<String>(), 0..20).prop_map(Array::String),
    ];
    leaf.prop_recursive(3, 40, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<u32>().prop_map(|bits| Value::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        any_array().prop_map(Value::Array),
    ]
}

/// Keys in an order that is not that of the alphabet.
fn any_metadata() -> impl Strategy<Value = Metadata> {
    let pairs = vec(("[a-z.]{1,12}", any_value()), 0..12);
    (pairs, proptest::option::of(3u32..13)).prop_map(|(pairs, alignment)| {
        let mut metadata = Metadata::new();
        for (key, value) in pairs {
            metadata.insert(key, value).expect("a few pairs fit");
        }
        if let Some(power) = alignment {
            metadata.insert("general.alignment", 1u32 << power).expect("a few pairs fit");
        }
        metadata
    })
}

#[derive(Clone, Debug)]
struct Planned {
    name: String,
    ty: GgmlType,
    dims: Vec<u64>,
}

fn any_tensors() -> impl Strategy<Value = Vec<Planned>> {
    let types: Vec<_> = GgmlType::all().collect();
    let tensor = (proptest::sample::select(types), vec(1u64..4, 0..=4), "[a-z]{1,4}");
    vec(tensor, 0..8).prop_map(|tensors| {
        let plan = |(index, (ty, mut dims, name)): (usize, (GgmlType, Vec<u64>, String))| {
            if ty.block_len() > 1 && dims.is_empty() {
                dims.push(1);
            }
            if let Some(row) = dims.first_mut() {
                *row *= ty.block_len() as u64;
            }
            Planned { name: format!("{name}.{index}"), ty, dims }
        };
        tensors.into_iter().enumerate().map(plan).collect()
    })
}

/// Writes a file whose data bytes count up, in pieces of `piece` bytes.
fn write(metadata: &Metadata, tensors: &[Planned], piece: usize) -> Vec<u8> {
    let mut writer = Writer::new(metadata.clone()).expect("the metadata are valid");
    for tensor in tensors {
        writer.tensor(&tensor.name, tensor.ty, &tensor.dims).expect("the tensors are valid");
    }
    let mut out = writer.start(Vec::new()).expect("a vector takes all bytes");
    while let Some(tensor) = out.current() {
        let bytes: Vec<u8> = (0..tensor.bytes).map(|i| (i % 251) as u8).collect();
        for part in bytes.chunks(piece) {
            out.write(part).expect("the tensor has room");
        }
    }
    out.finish().expect("every tensor is complete")
}

proptest! {
    #[test]
    fn what_is_written_is_read(metadata in any_metadata(), tensors in any_tensors(), piece in 1usize..400) {
        let bytes = write(&metadata, &tensors, piece);
        let gguf = check(&bytes).expect("what was written is read");
        prop_assert_eq!(gguf.version, 3);
        // Compared as text, since NaN is not equal to itself; the bytes are compared below.
        prop_assert_eq!(format!("{:?}", gguf.metadata), format!("{metadata:?}"));
        prop_assert_eq!(gguf.tensors.len(), tensors.len());
        for (found, planned) in gguf.tensors.iter().zip(&tensors) {
            prop_assert_eq!((&found.name, found.ty, &found.dims), (&planned.name, planned.ty, &planned.dims));
            let data = found.data(&bytes).expect("the data lies in the file");
            prop_assert!(data.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
        }
        prop_assert!(write(&gguf.metadata, &tensors, 1000) == bytes);
    }

    #[test]
    fn a_file_with_changed_bytes_is_read_or_refused(
        metadata in any_metadata(),
        tensors in any_tensors(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = write(&metadata, &tensors, 1000);
        // Nine of ten bytes are tensor data: changes go to the first kilobyte, where the header stands.
        let header = bytes.len().min(1024);
        for (at, byte) in changes {
            bytes[at.index(header)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = check(&bytes);
    }

    #[test]
    fn arbitrary_bytes_after_the_magic_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        let _ = check(&bytes);
        let _ = check(&[b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", &bytes[..]].concat());
    }
}

fn f32_tensor(name: &str, rows: u64) -> Planned {
    Planned { name: name.to_owned(), ty: GgmlType::F32, dims: vec![8, rows] }
}

#[test]
fn the_writer_refuses_what_the_reader_would_refuse() {
    let writer = || Writer::new(Metadata::new()).expect("no metadata are valid");
    let refused = |name: &str, ty, dims: &[u64]| writer().tensor(name, ty, dims).expect_err("it is refused");
    assert!(matches!(refused("", GgmlType::F32, &[1]), Error::EmptyName { .. }));
    assert!(matches!(refused(&"n".repeat(257), GgmlType::F32, &[1]), Error::Limit { .. }));
    assert!(matches!(refused("t", GgmlType::F32, &[1; 5]), Error::DimensionCount { found: 5, max: 4, .. }));
    assert!(matches!(refused("t", GgmlType::Q8_0, &[31]), Error::RowLength { .. }));
    assert!(matches!(refused("t", GgmlType::F32, &[0]), Error::Dimension { .. }));
    assert!(matches!(refused("t", GgmlType::F32, &[1 << 62]), Error::ElementOverflow { .. }));
    let mut two = writer();
    two.tensor("t", GgmlType::F32, &[1])
        .expect("it is valid")
        .tensor("t", GgmlType::F32, &[1])
        .expect("so far");
    assert!(matches!(two.start(Vec::new()), Err(Error::DuplicateTensor { .. })));
    let bad = |key: &str, value: Value| {
        Writer::new(Metadata::from_entries(vec![(key.to_owned(), value)]).expect("one key"))
            .expect_err("it is refused")
    };
    assert!(matches!(bad("", 1u8.into()), Error::EmptyName { .. }));
    assert!(matches!(bad("general.alignment", 48u32.into()), Error::Alignment { found: 48 }));
    let deep = (0..4).fold(Array::U8(vec![]), |inner, _| Array::Array(vec![inner]));
    assert!(matches!(bad("deep", deep.into()), Error::Limit { found: 5, max: 4, .. }));
}

#[test]
fn the_writer_counts_the_bytes_of_each_tensor() {
    let start = || {
        let mut writer = Writer::new(Metadata::new()).expect("no metadata are valid");
        writer.tensor("a", GgmlType::F32, &[2]).expect("it is valid");
        writer.tensor("b", GgmlType::F32, &[2]).expect("it is valid");
        writer.start(Vec::new()).expect("a vector takes all bytes")
    };
    let mut out = start();
    assert!(matches!(out.write(&[0; 9]), Err(Error::TensorBytes { expected: 8, found: 9, .. })));
    out.write(&[0; 8]).expect("the tensor has room");
    out.write(&[0; 5]).expect("the tensor has room");
    assert!(matches!(out.finish(), Err(Error::TensorBytes { expected: 8, found: 5, .. })));
    let mut out = start();
    out.write(&[0; 8]).and_then(|()| out.write(&[0; 8])).expect("both tensors have room");
    assert!(out.current().is_none());
    assert!(matches!(out.write(&[0]), Err(Error::AfterLastTensor { found: 1 })));
    assert_eq!(out.finish().expect("every tensor is complete").len() % 32, 0);
}

#[test]
fn a_destination_that_refuses_bytes_is_an_error() {
    let mut writer = Writer::new(Metadata::new()).expect("no metadata are valid");
    writer.tensor("a", GgmlType::F32, &[64]).expect("it is valid");
    let mut full = [0u8; 100];
    let mut out = writer.start(&mut full[..]).expect("the header fits");
    assert!(matches!(out.write(&[0; 256]), Err(Error::Write(_))));
}

/// A part of a split file, as the reference tool writes it.
fn part(no: u16, count: u16, tensors: i32, planned: &[Planned]) -> Gguf {
    let mut metadata = Metadata::new();
    metadata.insert("split.no", no).expect("a few pairs fit");
    metadata.insert("split.count", count).expect("a few pairs fit");
    metadata.insert("split.tensors.count", tensors).expect("a few pairs fit");
    metadata.insert("part", format!("{no}")).expect("a few pairs fit");
    parse(&write(&metadata, planned, 100)).expect("what was written is read")
}

#[test]
fn the_parts_of_a_split_file_are_one_set() {
    let (a, b, c) = (f32_tensor("a", 1), f32_tensor("b", 2), f32_tensor("c", 3));
    let set =
        GgufSet::new(vec![part(0, 3, 3, &[]), part(1, 3, 3, &[a, b]), part(2, 3, 3, &[c])]).expect("a set");
    assert_eq!(set.metadata().str("part").expect("part 0 has it"), "0");
    assert_eq!(set.n_params(), 8 + 16 + 24);
    assert_eq!(
        set.tensors().map(|(part, tensor)| (part, tensor.name.as_str())).collect::<Vec<_>>(),
        [(1, "a"), (1, "b"), (2, "c")]
    );
    let (found, tensor) = set.tensor("c").expect("it is in the set");
    assert_eq!((found, &tensor.dims[..]), (2, &[8, 3][..]));
    assert!(set.tensor("d").is_none());
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (a, b) = (f32_tensor("a", 1), f32_tensor("b", 1));
    let [a, b] = [&[a][..], &[b][..]];
    let refused = |parts| GgufSet::new(parts).expect_err("the parts are refused");
    let lone = refused(vec![part(0, 2, 2, a)]);
    assert!(matches!(lone, Error::SplitCount { expected: 2, found: 1 }));
    assert!(lone.to_string().contains("split into 2 files, but 1 were given"));
    assert!(matches!(refused(vec![]), Error::SplitCount { found: 0, .. }));
    assert!(matches!(
        refused(vec![part(1, 2, 2, a), part(0, 2, 2, b)]),
        Error::SplitOrder { expected: 0, found: 1 }
    ));
    assert!(matches!(
        refused(vec![part(0, 2, 2, a), part(1, 2, 3, b)]),
        Error::SplitTensors { part: 1, expected: 3, found: 2 }
    ));
    assert!(matches!(refused(vec![part(0, 2, 2, a), part(1, 2, 2, a)]), Error::DuplicateTensor { .. }));
    assert!(matches!(
        refused(vec![part(0, 2, 2, a), part(1, 3, 2, b)]),
        Error::SplitCount { expected: 3, .. }
    ));
    assert!(matches!(refused(vec![part(0, 2000, 1, a)]), Error::Limit { found: 2000, max: 1024, .. }));
}
