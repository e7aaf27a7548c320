//! Files that are wrong in one known way, and the error that each must give.
//!
//! With `UPDATE_EXPECT=1` the files are written to `fuzz/corpus/gguf`, where fuzzing begins from them.

mod bytes;

use std::path::{Path, PathBuf};

use bytes::{array, file, info, pair, string};
use veritas_gguf::{Limits, parse_with_limits};
use veritas_testkit::fuzz::gguf::check;

/// A name, the bytes, and the variant of the error; `Ok` for files that are unusual but valid.
type Case = (String, Vec<u8>, &'static str);

const U8: u32 = 0;
const U32: u32 = 4;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const F32: u32 = 0;
const Q4_K: u32 = 12;

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add =
        |name: &str, bytes: Vec<u8>, expected| cases.push((name.replace(' ', "-"), bytes, expected));
    beginnings(&mut add);
    metadata(&mut add);
    arrays(&mut add);
    shapes(&mut add);
    places(&mut add);
    cases
}

fn beginnings(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let good = good();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    add("valid", good.clone(), "Ok");
    add("valid version 2", with(4, &2u32.to_le_bytes()), "Ok");
    add("valid without anything", file(&[], &[], 0), "Ok");
    add("empty", vec![], "Truncated");
    add("magic alone", b"GGUF".to_vec(), "Truncated");
    add("wrong magic", with(0, b"GGML"), "Magic");
    for version in [0u32, 1, 4, u32::MAX] {
        add(&format!("version {version}"), with(4, &version.to_le_bytes()), "Version");
    }
    for version in [1u32, 2, 3] {
        add(&format!("big endian version {version}"), with(4, &version.to_be_bytes()), "BigEndian");
    }
    for (n, expected) in [(3u64, "EmptyName"), (60_000, "Truncated"), (1 << 20, "Limit"), (u64::MAX, "Limit")]
    {
        add(&format!("number of tensors {n}"), with(8, &n.to_le_bytes()), expected);
    }
    for (n, expected) in [(60_000u64, "Truncated"), (1 << 20, "Limit"), (u64::MAX, "Limit")] {
        add(&format!("number of pairs {n}"), with(16, &n.to_le_bytes()), expected);
    }
    for cut in (1..good.len()).step_by(23) {
        add(&format!("cut at {cut:03}"), good[..cut].to_vec(), "any");
    }
}

fn metadata(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let one = |pair: Vec<u8>| file(&[pair], &[], 64);
    let architecture = pair("general.architecture", STRING, &string(b"llama"));
    add("duplicate keys", file(&[architecture.clone(), architecture.clone()], &[], 0), "DuplicateKey");
    add("key of zero length", one(pair("", U32, &[1, 0, 0, 0])), "EmptyName");
    add("key not utf8", one([&string(b"\xff\xfe")[..], &[4, 0, 0, 0, 1, 0, 0, 0]].concat()), "NotUtf8");
    add("key with escapes", one(pair("\u{1b}[2J\n\u{202e}", 13, &[0; 8])), "UnknownValueType");
    add("key of 65536 bytes claimed", one([&65_536u64.to_le_bytes()[..], b"abc"].concat()), "Truncated");
    add("string not utf8", one(pair("a", STRING, &string(b"\xc3\x28"))), "NotUtf8");
    for n in [100u64, 1 << 31, 1 << 40, 1 << 63, u64::MAX] {
        add(&format!("key length {n}"), one([&n.to_le_bytes()[..], b"abc"].concat()), "Truncated");
        add(&format!("string length {n}"), one(pair("a", STRING, &n.to_le_bytes())), "Truncated");
    }
    for kind in [13u32, 255, 1 << 31, u32::MAX] {
        add(&format!("value type {kind}"), one(pair("a", kind, &[0; 16])), "UnknownValueType");
        add(
            &format!("array type {kind}"),
            one(pair("a", ARRAY, &array(kind, 4, &[0; 64]))),
            "UnknownValueType",
        );
    }
    add("bool of 2", one(pair("a", BOOL, &[2])), "NotBool");
    add("array with a bool of 255", one(pair("a", ARRAY, &array(BOOL, 3, &[0, 1, 255]))), "NotBool");
    add("architecture a number", one(pair("general.architecture", U32, &[7, 0, 0, 0])), "Ok");
    add("name an array", one(pair("general.name", ARRAY, &array(STRING, 1, &string(b"x")))), "Ok");
    for alignment in [0u32, 1, 3, 4, 24, 1 << 31, u32::MAX] {
        let pairs = [pair("general.alignment", U32, &alignment.to_le_bytes())];
        let tensors = [info("a", &[32], F32, 0)];
        add(&format!("alignment {alignment}"), file(&pairs, &tensors, 512), "Alignment");
    }
    add("alignment a string", one(pair("general.alignment", STRING, &string(b"32"))), "WrongType");
    add("alignment negative", one(pair("general.alignment", 5, &(-32i32).to_le_bytes())), "OutOfRange");
    let pairs = [pair("general.alignment", U32, &8u32.to_le_bytes())];
    add("alignment 8", file(&pairs, &[info("a", &[2], F32, 8)], 64), "Ok");
    for (count, no) in [(2u32, 0u32), (0, 0), (1, 1), (u32::MAX, 0)] {
        let pairs =
            [pair("split.count", U32, &count.to_le_bytes()), pair("split.no", U32, &no.to_le_bytes())];
        add(&format!("split count {count} no {no}"), file(&pairs, &[], 0), "Ok");
    }
}

fn arrays(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let one = |array: Vec<u8>| file(&[pair("a", ARRAY, &array)], &[], 64);
    for n in [1000u64, 1 << 31, 1 << 40, 1 << 61, 1 << 63, u64::MAX] {
        add(&format!("array of u8 {n}"), one(array(U8, n, &[])), "Truncated");
        add(&format!("array of u32 {n}"), one(array(U32, n, &[])), "Truncated");
        add(&format!("array of strings {n}"), one(array(STRING, n, &[])), "Truncated");
        add(&format!("array of arrays {n}"), one(array(ARRAY, n, &[])), "Truncated");
    }
    add("array type confusion", one(array(STRING, 4, &[7u32.to_le_bytes(); 4].concat())), "Truncated");
    add("empty array", one(array(STRING, 0, &[])), "Ok");
    // 152 arrays in arrays make the largest file of the corpus, far deeper than the limit.
    let nested =
        |depth: usize| one([9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat().repeat(depth));
    add("nested arrays 152", nested(152), "Limit");
    let inner = array(ARRAY, 1, &array(ARRAY, 1, &array(U8, 2, &[1, 2])));
    add("nested arrays 4", one(array(ARRAY, 1, &inner)), "Ok");
    add("nested arrays 5", one(array(ARRAY, 1, &array(ARRAY, 1, &inner))), "Limit");
    // Each level claims all that is left, so that the levels together would claim it four times.
    let greedy = |n: u64, inner: &[u8]| array(ARRAY, n, inner);
    let inner = greedy(88, &greedy(87, &array(STRING, 128, &[])));
    add(
        "nested claims of the same bytes",
        file(&[pair("a", ARRAY, &greedy(89, &inner))], &[], 1032),
        "Truncated",
    );
}

fn shapes(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let one = |info: Vec<u8>| file(&[], &[info], 512);
    add("scalar", one(info("t", &[], F32, 0)), "Ok");
    add("four dimensions", one(info("t", &[2, 2, 2, 2], F32, 0)), "Ok");
    add("five dimensions", one(info("t", &[1; 5], F32, 0)), "DimensionCount");
    add("150 dimensions", one(info("t", &[1; 150], F32, 0)), "DimensionCount");
    for n in [1u32 << 31, u32::MAX] {
        let info = [&string(b"t")[..], &n.to_le_bytes(), &[0; 64]].concat();
        add(&format!("dimensions {n}"), one(info), "DimensionCount");
    }
    add("zero sized", one(info("t", &[0], F32, 0)), "Dimension");
    add("zero sized row", one(info("t", &[0, 4], F32, 0)), "Dimension");
    add("zero rows", one(info("t", &[4, 0], F32, 0)), "Dimension");
    add("negative dimension", one(info("t", &[u64::MAX], F32, 0)), "Dimension");
    add("most negative dimension", one(info("t", &[4, 1 << 63], F32, 0)), "Dimension");
    add("two negative dimensions", one(info("t", &[u64::MAX, u64::MAX], F32, 0)), "Dimension");
    add("elements wrap to zero", one(info("t", &[1 << 32, 1 << 32], F32, 0)), "ElementOverflow");
    add("elements wrap to 16", one(info("t", &[0x1_0000_0001, 0xffff_ffff_0000_0010], F32, 0)), "Dimension");
    add("elements overflow signed", one(info("t", &[1 << 31, 1 << 31, 2], F32, 0)), "ElementOverflow");
    add("elements overflow by four", one(info("t", &[1 << 31, 1 << 31, 4], F32, 0)), "ElementOverflow");
    add("bytes wrap to zero", one(info("t", &[1 << 62], F32, 0)), "ElementOverflow");
    add("blocks overflow", one(info("t", &[256, 1 << 54], Q4_K, 0)), "PastEnd");
    add("row no whole block", one(info("t", &[255], Q4_K, 0)), "RowLength");
    add("rows no whole blocks", one(info("t", &[128, 2], Q4_K, 0)), "RowLength");
    for kind in [4u32, 5, 31, 36, 38, 43, 200, u32::MAX] {
        add(&format!("tensor type {kind}"), one(info("t", &[32], kind, 0)), "UnknownTensorType");
    }
}

fn places(add: &mut impl FnMut(&str, Vec<u8>, &'static str)) {
    let one = |info: Vec<u8>| file(&[], &[info], 512);
    let two = |a: Vec<u8>, b: Vec<u8>| file(&[], &[a, b], 512);
    for offset in [1u64, 31, 33] {
        add(&format!("offset {offset}"), one(info("t", &[32], F32, offset)), "Unaligned");
    }
    for offset in [416u64, 512, 544, 1 << 20, 1 << 63, u64::MAX - 31] {
        add(&format!("offset {offset}"), one(info("t", &[32], F32, offset)), "PastEnd");
    }
    add("ends with the file", one(info("t", &[128], F32, 0)), "Ok");
    add("ends after the file", one(info("t", &[129], F32, 0)), "PastEnd");
    add("overlap whole", two(info("a", &[32], F32, 0), info("b", &[32], F32, 0)), "Overlap");
    add("overlap end", two(info("a", &[32], F32, 0), info("b", &[32], F32, 96)), "Overlap");
    add("overlap backwards", two(info("a", &[32], F32, 96), info("b", &[32], F32, 0)), "Overlap");
    add("overlap inside", two(info("a", &[128], F32, 0), info("b", &[8], F32, 64)), "Overlap");
    add("order of data backwards", two(info("a", &[32], F32, 128), info("b", &[32], F32, 0)), "Ok");
    add("same name twice", two(info("a", &[32], F32, 0), info("a", &[32], F32, 128)), "DuplicateTensor");
    add("name of zero length", one(info("", &[32], F32, 0)), "EmptyName");
    add("name of 256 bytes", one(info(&"n".repeat(256), &[32], F32, 0)), "Ok");
    add("name of 257 bytes", one(info(&"n".repeat(257), &[32], F32, 0)), "Limit");
    add("name not utf8", one([&string(b"\xed\xa0\x80")[..], &[0; 24]].concat()), "NotUtf8");
}

/// A small file with a value of each type and two tensors.
fn good() -> Vec<u8> {
    let pairs = [
        pair("general.architecture", STRING, &string(b"llama")),
        pair("general.name", STRING, &string("Größe".as_bytes())),
        pair("u8", 0, &[1]),
        pair("i8", 1, &[255]),
        pair("u16", 2, &[1, 2]),
        pair("i16", 3, &[255, 255]),
        pair("u32", 4, &[1, 2, 3, 4]),
        pair("i32", 5, &[255; 4]),
        pair("f32", 6, &1.5f32.to_le_bytes()),
        pair("bool", 7, &[1]),
        pair("u64", 10, &[255; 8]),
        pair("i64", 11, &[255; 8]),
        pair("f64", 12, &f64::NAN.to_le_bytes()),
        pair("strings", ARRAY, &array(STRING, 2, &[string(b"a"), string(b"")].concat())),
        pair("f32s", ARRAY, &array(6, 2, &[0; 8])),
        pair("bools", ARRAY, &array(BOOL, 2, &[0, 1])),
        pair("arrays", ARRAY, &array(ARRAY, 2, &[array(U8, 1, &[7]), array(STRING, 0, &[])].concat())),
    ];
    file(&pairs, &[info("a", &[32], F32, 0), info("b", &[256, 1], Q4_K, 128)], 128 + 144)
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/gguf")
}

fn variant(result: Result<veritas_gguf::Gguf, veritas_gguf::Error>) -> String {
    match result {
        Ok(_) => "Ok".to_owned(),
        Err(error) => {
            let text = format!("{error:?}");
            text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
        }
    }
}

#[test]
fn each_known_class_of_hostile_file_gives_its_own_error() {
    let wrong = cases().into_iter().filter_map(|(name, bytes, expected)| {
        let found = variant(check(&bytes));
        let right = found == expected || expected == "any" && found != "Ok";
        (!right).then(|| format!("{name}: {found} instead of {expected}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_header_cut_at_any_byte_is_refused() {
    let good = good();
    for cut in 0..good.len() {
        let found = variant(check(&good[..cut]));
        assert!(matches!(found.as_str(), "Truncated" | "PastEnd"), "cut at {cut}: {found}");
    }
}

#[test]
fn a_header_with_any_byte_changed_is_read_or_refused() {
    let good = good();
    for at in 0..good.len() - 272 {
        for byte in [0, 1, 9, 31, 127, 128, 254, 255, good[at] ^ 1, good[at] ^ 128] {
            let mut file = good.clone();
            file[at] = byte;
            let _ = check(&file);
        }
    }
}

#[test]
fn the_committed_corpus_holds_each_class_and_breaks_no_promise() {
    let cases = cases();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(corpus()).expect("the corpus can be written");
        for (name, bytes, _) in &cases {
            std::fs::write(corpus().join(name), bytes).expect("the corpus can be written");
        }
    }
    assert!(cases.len() < 200, "{} files", cases.len());
    for (name, bytes, _) in &cases {
        assert!(bytes.len() <= 2048, "{name} has {} bytes", bytes.len());
        let committed = std::fs::read(corpus().join(name)).unwrap_or_default();
        assert!(&committed == bytes, "{name} is not in the corpus: run this test with UPDATE_EXPECT=1");
    }
    for entry in std::fs::read_dir(corpus()).expect("the corpus is committed") {
        let path = entry.expect("the corpus can be listed").path();
        let _ = check(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
}

#[test]
fn messages_name_what_is_wrong() {
    let message = |name: &str| {
        let (_, bytes, _) = cases().into_iter().find(|case| case.0 == name).expect("the case exists");
        check(&bytes).expect_err("the file is refused").to_string()
    };
    assert_eq!(
        message("tensor-type-36"),
        "the tensor \"t\" has type 36 (IQ4_NL_4_4, withdrawn: use IQ4_NL), which is not supported"
    );
    assert!(message("big-endian-version-3").starts_with("a big-endian GGUF file (version 3)"));
    assert!(message("key-with-escapes").contains(r#""\u{1b}[2J\n\u{202e}""#));
    assert_eq!(message("wrong-magic"), "not a GGUF file: it begins with \"GGML\" instead of \"GGUF\"");
    assert_eq!(message("alignment-3"), "general.alignment is 3: it must be a power of two from 8 to 2097152");
}

/// Lowers one limit to a value.
type Lower = fn(&mut Limits, u64);

#[test]
fn each_limit_is_enforced_at_its_value() {
    // For each limit, what the valid file reaches: that much passes, one less is refused.
    let reached: [(&str, u64, Lower); 9] = [
        ("pairs", 17, |limits, n| limits.metadata_count = n),
        ("key", "general.architecture".len() as u64, |limits, n| limits.key_bytes = n),
        ("string", "Größe".len() as u64, |limits, n| limits.string_bytes = n),
        ("array", 2, |limits, n| limits.array_elements = n),
        ("depth", 2, |limits, n| limits.array_depth = n as u32),
        ("tensors", 2, |limits, n| limits.tensors = n),
        ("name", 1, |limits, n| limits.tensor_name_bytes = n),
        ("dimensions", 2, |limits, n| limits.dimensions = n as u32),
        ("header", header_bytes(), |limits, n| limits.header_bytes = n),
    ];
    for (what, n, lower) in reached {
        let parse = |n| {
            let mut limits = Limits::default();
            lower(&mut limits, n);
            variant(parse_with_limits(&good(), &limits))
        };
        assert_eq!(parse(n), "Ok", "{what}");
        let refused = if what == "dimensions" { "DimensionCount" } else { "Limit" };
        assert_eq!(parse(n - 1), refused, "{what}");
    }
}

/// Bytes of the valid file up to the padding before its data.
fn header_bytes() -> u64 {
    let good = good();
    let offset_of_b = [&0x80u64.to_le_bytes()[..], &[0]].concat();
    good.windows(9).rposition(|window| window == offset_of_b).expect("the last offset is 128") as u64 + 8
}
