//! What a file may ask for at most. Nothing here is reached by a published model; everything here stops a
//! file that was made to exhaust the reader.

/// Limits of [`parse_with_limits`](crate::parse_with_limits).
///
/// They come on top of the rule that holds always: a count or a length is believed only if the bytes that it
/// needs are left in the file, so that the memory taken stays below eight times the size of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Key-value pairs. Published models carry 20 to 60; 65 536 bounds the index at a few megabytes.
    pub metadata_count: u64,
    /// Bytes of a key. The format itself says 65 535.
    pub key_bytes: u64,
    /// Bytes of one string. The longest in use are chat templates of some 100 KiB; 16 MiB leaves room for
    /// licences and embedded JSON.
    pub string_bytes: u64,
    /// Elements of one array. The largest in use are the merges of vocabularies, around 500 000.
    pub array_elements: u64,
    /// Arrays in arrays: 1 is a plain array. No published model nests them; 4 bounds the recursion.
    pub array_depth: u32,
    /// Tensors. The largest mixtures of experts, one tensor an expert, reach 50 000.
    pub tensors: u64,
    /// Bytes of a tensor's name. ggml allows 63, its derivatives 127.
    pub tensor_name_bytes: u64,
    /// Dimensions of a tensor: `GGML_MAX_DIMS`.
    pub dimensions: u32,
    /// Bytes of everything before the tensor data. A vocabulary of 262 144 tokens needs 20 MiB.
    pub header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_count: 65_536,
            key_bytes: 65_535,
            string_bytes: 16 << 20,
            array_elements: 16 << 20,
            array_depth: 4,
            tensors: 65_536,
            tensor_name_bytes: 256,
            dimensions: 4,
            header_bytes: 512 << 20,
        }
    }
}

/// Where `general.alignment` is absent, tensors stand at multiples of this: the format says so.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The least alignment. The format asks for a multiple of 8, the size of the widest element (F64, I64), so
/// that every tensor of a mapped file can be read in place.
pub const MIN_ALIGNMENT: u64 = 8;

/// The largest alignment: a huge page. What is padded to more is no file that anybody made for use, and copying
/// it would write the padding again.
pub const MAX_ALIGNMENT: u64 = 2 << 20;

/// Parts of a split file. Each costs a mapping and a descriptor; 405 B parameters in F32 need fewer than 40.
pub const MAX_PARTS: usize = 1024;
