//! Pages of the KV cache: how keys and values are stored.
//!
//! A page holds [`PAGE_TOKENS`] positions of one layer. It is cut by kv head, and each head's part is the keys, then the
//! values, each starting on a cache line if the page does. Keys lie as `[dim][position]`, so that the lanes of a score
//! are positions; values as `[position][dim]`, so that the lanes of an output are dimensions. In bytes, for a head
//! dimension `d`:
//!
//! | type | keys | values |
//! |---|---|---|
//! | `F32`, `F16` | `[d][16]` | `[16][d]` |
//! | `Q8_0` | `i8 [d][16]`, `f16 scales [d/32][16]` | `i8 [16][d]`, `f16 scales [16][d/32]` |
//! | `Q4_0` | `u8 [d/32][16 pairs][16]`, `f16 scales [d/32][16]` | `u8 [16][d/32][16 pairs]`, `f16 scales [16][d/32]` |
//!
//! A pair of `Q4_0` is dimension `j` (low nibble) and `j + 16` (high nibble) of a block of 32, each offset by 8. `d` is
//! padded to a multiple of 16, for the quantised types of 32. Numbers are little-endian.

use half::f16;

use crate::lanes::{LANES, Simd};
use crate::table::Kernels;
use crate::team::Team;
use crate::tile::DisjointChunks;

/// Positions in a page: the lanes of a vector.
pub const PAGE_TOKENS: usize = LANES;

/// Dimensions that share a scale in the quantised types.
const BLOCK: usize = 32;

/// Parts of a page start at multiples of this from its start.
const PART_ALIGNMENT: usize = 64;

/// How numbers are stored in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // The formats keep the spelling that users know.
pub enum CacheType {
    /// Exactly.
    F32,
    /// Rounded to f16, to nearest even.
    F16,
    /// `q · d` with q from −127 to 127, d an f16 per 32 dimensions of a position: `d = max|x| / 127`.
    Q8_0,
    /// `q · d` with q from −8 to 7, d an f16 per 32 dimensions of a position: `d = m / −8` for the m of largest
    /// magnitude.
    Q4_0,
}

impl std::fmt::Display for CacheType {
    /// The name that flags use.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl CacheType {
    /// All types, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0];

    /// Their names, in the same order.
    pub const NAMES: [&str; 4] = [Self::F32.name(), Self::F16.name(), Self::Q8_0.name(), Self::Q4_0.name()];

    /// The name that flags and settings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }

    fn is_quantised(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// The dimensions that are stored for a head of `dim`.
    fn padded(self, dim: usize) -> usize {
        dim.next_multiple_of(if self.is_quantised() { BLOCK } else { LANES })
    }

    /// Bytes of the numbers (without scales) of a head's keys or values in a page.
    pub(crate) fn number_bytes(self, dim: usize) -> usize {
        let numbers = self.padded(dim) * PAGE_TOKENS;
        match self {
            Self::F32 => numbers * 4,
            Self::F16 => numbers * 2,
            Self::Q8_0 => numbers,
            Self::Q4_0 => numbers / 2,
        }
    }

    /// Bytes of a head's keys or values in a page.
    fn part_bytes(self, dim: usize) -> usize {
        let scales = if self.is_quantised() { self.padded(dim) / BLOCK * PAGE_TOKENS * 2 } else { 0 };
        (self.number_bytes(dim) + scales).next_multiple_of(PART_ALIGNMENT)
    }
}

/// The shape of one layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Dimensions of a key.
    pub head_dim_k: usize,
    /// Dimensions of a value.
    pub head_dim_v: usize,
    /// How keys are stored.
    pub k_type: CacheType,
    /// How values are stored.
    pub v_type: CacheType,
}

impl KvLayout {
    /// Bytes of one page: [`PAGE_TOKENS`] positions of all kv heads of one layer. A multiple of 64.
    pub fn page_bytes(&self) -> usize {
        self.n_kv_heads * self.head_bytes()
    }

    /// Overwrites a page of an arena, as [`kv_store`] describes it, with zeros.
    ///
    /// # Panics
    /// If the page is not in the arena.
    pub fn zero_page(&self, pages: &mut [u8], page: usize) {
        for part in self.parts_of(pages.len(), page) {
            pages[part].fill(0);
        }
    }

    /// Gives the page `to` of an arena the content of the page `from`.
    ///
    /// # Panics
    /// If one of them is not in the arena.
    pub fn copy_page(&self, pages: &mut [u8], from: usize, to: usize) {
        for (from, to) in self.parts_of(pages.len(), from).zip(self.parts_of(pages.len(), to)) {
            pages.copy_within(from, to.start);
        }
    }

    /// Where the heads of a page lie in an arena of so many bytes.
    fn parts_of(
        &self,
        arena_bytes: usize,
        page: usize,
    ) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (n_pages, bytes) = (arena_bytes / self.page_bytes().max(1), self.head_bytes());
        assert!(page < n_pages, "page {page} of {n_pages}");
        (0..self.n_kv_heads).map(move |head| {
            let start = (head * n_pages + page) * bytes;
            start..start + bytes
        })
    }

    /// Bytes of one head in a page.
    pub(crate) fn head_bytes(&self) -> usize {
        self.k_bytes() + self.v_type.part_bytes(self.head_dim_v)
    }

    pub(crate) fn k_bytes(&self) -> usize {
        self.k_type.part_bytes(self.head_dim_k)
    }

    /// Dimensions of a key as [`unpack_keys`] writes them.
    pub(crate) fn padded_dim_k(&self) -> usize {
        self.k_type.padded(self.head_dim_k)
    }

    /// Dimensions of a value as [`unpack_values`] writes them.
    pub(crate) fn padded_dim_v(&self) -> usize {
        self.v_type.padded(self.head_dim_v)
    }
}

/// The rows of a batch that belong to one sequence.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSequence<'a> {
    /// The page of each 16 positions, in order; at least up to the last row's position.
    pub block_table: &'a [u32],
    /// The sequence's first row in the batch.
    pub first_row: usize,
    /// How many rows follow each other from there.
    pub n_rows: usize,
    /// The position of the first row; the others follow.
    pub first_position: usize,
}

impl AttentionSequence<'_> {
    /// The position after the last row's.
    pub(crate) fn end_position(&self) -> usize {
        self.first_position + self.n_rows
    }

    /// # Panics
    /// If the block table or the batch is too short. The engine sizes both, so that this is a bug.
    pub(crate) fn check(&self, n_rows: usize) {
        assert!(
            self.n_rows == 0 || self.end_position() <= self.block_table.len() * PAGE_TOKENS,
            "a block table of {} pages for {} positions",
            self.block_table.len(),
            self.end_position()
        );
        assert!(
            self.first_row <= n_rows && self.n_rows <= n_rows - self.first_row,
            "rows {}..+{} of {n_rows}",
            self.first_row,
            self.n_rows
        );
    }
}

/// Writes the keys and values of a step into the pages. `pages` is this layer's arena, all pages of one head after all
/// pages of the other: what one head reads lies together.
/// `key` is `[rows, n_kv_heads · head_dim_k]`, `value` is `[rows, n_kv_heads · head_dim_v]`, row-major. Pages that two
/// sequences share must not be written by either.
///
/// # Panics
/// If a length does not fit or a block table names a page outside the arena.
pub fn kv_store(
    kernels: &Kernels,
    team: &Team,
    layout: &KvLayout,
    pages: &mut [u8],
    seqs: &[AttentionSequence<'_>],
    key: &[f32],
    value: &[f32],
) {
    let (k_stride, v_stride) = (layout.n_kv_heads * layout.head_dim_k, layout.n_kv_heads * layout.head_dim_v);
    let n_rows = key.len() / k_stride.max(1);
    assert_eq!(key.len(), n_rows * k_stride, "the keys' length");
    assert_eq!(value.len(), n_rows * v_stride, "the values' length");
    seqs.iter().for_each(|seq| seq.check(n_rows));
    if n_rows == 0 {
        return;
    }
    assert!(pages.len().is_multiple_of(layout.page_bytes()), "an arena of whole pages");
    let parts = DisjointChunks::new(pages, layout.head_bytes());
    // One task a head: whatever the block tables say, two tasks never touch the same bytes.
    team.run(layout.n_kv_heads, &|head, _thread| {
        kernels.kv_store(&mut StoreUnit { layout, parts: &parts, head, seqs, key, value });
    });
}

/// What one task of [`kv_store`] writes: all rows of one kv head.
pub(crate) struct StoreUnit<'a> {
    layout: &'a KvLayout,
    parts: &'a DisjointChunks<'a, u8>,
    head: usize,
    seqs: &'a [AttentionSequence<'a>],
    key: &'a [f32],
    value: &'a [f32],
}

/// Writes a unit.
#[inline(always)]
pub(crate) fn store_unit<S: Simd>(s: S, unit: &mut StoreUnit<'_>) {
    let layout = unit.layout;
    let (dim_k, dim_v) = (layout.head_dim_k, layout.head_dim_v);
    let n_pages = unit.parts.count() / layout.n_kv_heads;
    for seq in unit.seqs {
        for r in 0..seq.n_rows {
            let (row, position) = (seq.first_row + r, seq.first_position + r);
            let page = seq.block_table[position / PAGE_TOKENS] as usize;
            assert!(page < n_pages, "page {page} of {n_pages}");
            // SAFETY: the part belongs to this unit's head, and there is one unit a head; the borrow ends with this
            // iteration.
            let part = unsafe { unit.parts.chunk(unit.head * n_pages + page) };
            let (k_part, v_part) = part.split_at_mut(layout.k_bytes());
            let slot = position % PAGE_TOKENS;
            let key = &unit.key[(row * layout.n_kv_heads + unit.head) * dim_k..][..dim_k];
            let value = &unit.value[(row * layout.n_kv_heads + unit.head) * dim_v..][..dim_v];
            store_key(s, layout.k_type, key, slot, k_part);
            store_value(s, layout.v_type, value, slot, v_part);
        }
    }
}

#[inline(always)]
fn store_key<S: Simd>(s: S, ty: CacheType, key: &[f32], slot: usize, part: &mut [u8]) {
    let (numbers, scales) = part.split_at_mut(ty.number_bytes(key.len()));
    match ty {
        CacheType::F32 => {
            for (vector, x) in numbers.as_chunks_mut::<64>().0.iter_mut().zip(key) {
                vector.as_chunks_mut::<4>().0[slot] = x.to_le_bytes();
            }
        }
        CacheType::F16 => {
            for (vectors, x) in numbers.chunks_exact_mut(LANES * 32).zip(key.chunks(LANES)) {
                let mut halves = [0; 32];
                s.store_f16(s.load_part(x, 0.0), &mut halves);
                for (vector, half) in
                    vectors.as_chunks_mut::<32>().0.iter_mut().zip(halves.as_chunks::<2>().0)
                {
                    vector.as_chunks_mut::<2>().0[slot] = *half;
                }
            }
        }
        CacheType::Q8_0 => {
            for (b, x) in key.chunks(BLOCK).enumerate() {
                let (scale, q) = quantise(x, 127.0, -127.0, 127.0, Divisor::Magnitude);
                scales[(b * LANES + slot) * 2..][..2].copy_from_slice(&scale);
                for (j, q) in q.iter().enumerate() {
                    numbers[(b * BLOCK + j) * LANES + slot] = q.cast_unsigned();
                }
            }
        }
        CacheType::Q4_0 => {
            for (b, x) in key.chunks(BLOCK).enumerate() {
                let (scale, q) = quantise(x, -8.0, -8.0, 7.0, Divisor::Signed);
                scales[(b * LANES + slot) * 2..][..2].copy_from_slice(&scale);
                for j in 0..BLOCK / 2 {
                    numbers[(b * BLOCK / 2 + j) * LANES + slot] = nibbles(&q, j);
                }
            }
        }
    }
}

#[inline(always)]
fn store_value<S: Simd>(s: S, ty: CacheType, value: &[f32], slot: usize, part: &mut [u8]) {
    let padded = ty.padded(value.len());
    let (numbers, scales) = part.split_at_mut(ty.number_bytes(value.len()));
    let row_bytes = numbers.len() / PAGE_TOKENS;
    let row = &mut numbers[slot * row_bytes..][..row_bytes];
    let scales = scales.get_mut(slot * (padded / BLOCK) * 2..).unwrap_or(&mut []);
    match ty {
        CacheType::F32 => {
            row.fill(0);
            for (bytes, x) in row.as_chunks_mut::<4>().0.iter_mut().zip(value) {
                *bytes = x.to_le_bytes();
            }
        }
        CacheType::F16 => {
            for (bytes, x) in row.as_chunks_mut::<32>().0.iter_mut().zip(value.chunks(LANES)) {
                s.store_f16(s.load_part(x, 0.0), bytes);
            }
        }
        CacheType::Q8_0 => {
            for (b, x) in value.chunks(BLOCK).enumerate() {
                let (scale, q) = quantise(x, 127.0, -127.0, 127.0, Divisor::Magnitude);
                scales[b * 2..][..2].copy_from_slice(&scale);
                for (byte, q) in row[b * BLOCK..][..BLOCK].iter_mut().zip(q) {
                    *byte = q.cast_unsigned();
                }
            }
        }
        CacheType::Q4_0 => {
            for (b, x) in value.chunks(BLOCK).enumerate() {
                let (scale, q) = quantise(x, -8.0, -8.0, 7.0, Divisor::Signed);
                scales[b * 2..][..2].copy_from_slice(&scale);
                for j in 0..BLOCK / 2 {
                    row[b * BLOCK / 2 + j] = nibbles(&q, j);
                }
            }
        }
    }
}

/// What a block's scale is a fraction of.
#[derive(Clone, Copy, PartialEq)]
enum Divisor {
    /// The largest magnitude.
    Magnitude,
    /// The number of the largest magnitude (the first of them), with its sign.
    Signed,
}

/// A block of up to 32 numbers as integers from `low` to `high` times a scale, which is the extreme / `steps`, rounded to
/// f16. A block with an infinity, a NaN or a scale beyond f16 gets the scale NaN or infinity, and reads back as NaN.
#[inline(always)]
fn quantise(x: &[f32], steps: f32, low: f32, high: f32, divisor: Divisor) -> ([u8; 2], [i8; BLOCK]) {
    let (mut extreme, mut largest) = (0.0f32, 0);
    for &x in x {
        // The bits of magnitudes order like the magnitudes, with infinity and the NaNs at the top.
        let magnitude = x.to_bits() & 0x7FFF_FFFF;
        if magnitude > largest {
            (extreme, largest) = (x, magnitude);
        }
    }
    if divisor == Divisor::Magnitude {
        extreme = extreme.abs();
    }
    let mut q = [0; BLOCK];
    if !extreme.is_finite() {
        return (f16::NAN.to_le_bytes(), q);
    }
    let scale = f16::from_f32_const(extreme / steps);
    let inverse = 1.0 / scale.to_f32_const();
    if inverse.is_finite() {
        for (q, &x) in q.iter_mut().zip(x) {
            let scaled = (x * inverse).clamp(low, high);
            // Rounds to an integer, ties to even.
            *q = ((scaled + crate::math::ROUND_F32) - crate::math::ROUND_F32) as i8;
        }
    }
    (scale.to_le_bytes(), q)
}

/// The byte of a pair of a block.
#[inline(always)]
fn nibbles(q: &[i8; BLOCK], pair: usize) -> u8 {
    let low = (q[pair] + 8).cast_unsigned();
    let high = (q[pair + BLOCK / 2] + 8).cast_unsigned();
    low | high << 4
}

/// The keys of one head of a page as f32, `[padded_dim_k][16]`.
#[inline(always)]
pub(crate) fn unpack_keys<S: Simd>(s: S, layout: &KvLayout, head: &[u8], out: &mut [f32]) {
    let (ty, dim) = (layout.k_type, layout.head_dim_k);
    let (numbers, scales) = head[..layout.k_bytes()].split_at(ty.number_bytes(dim));
    let (out, _) = out[..ty.padded(dim) * LANES].as_chunks_mut::<LANES>();
    match ty {
        CacheType::F32 | CacheType::F16 => unpack_floats(s, ty, numbers, out),
        CacheType::Q8_0 => {
            let blocks = out.chunks_exact_mut(BLOCK).zip(numbers.chunks_exact(BLOCK * LANES));
            for ((out, numbers), scales) in blocks.zip(scales.as_chunks::<32>().0) {
                let scales = s.load_f16(scales);
                for (out, q) in out.iter_mut().zip(numbers.as_chunks::<16>().0) {
                    s.store(s.mul(s.load_i8(q), scales), out);
                }
            }
        }
        CacheType::Q4_0 => {
            let blocks = out.chunks_exact_mut(BLOCK).zip(numbers.chunks_exact(BLOCK / 2 * LANES));
            for ((out, numbers), scales) in blocks.zip(scales.as_chunks::<32>().0) {
                let scales = s.load_f16(scales);
                let (low_out, high_out) = out.split_at_mut(BLOCK / 2);
                let outs = low_out.iter_mut().zip(high_out);
                for ((low_out, high_out), q) in outs.zip(numbers.as_chunks::<16>().0) {
                    let (low, high) = s.load_nibbles(q);
                    s.store(s.mul(low, scales), low_out);
                    s.store(s.mul(high, scales), high_out);
                }
            }
        }
    }
}

/// The values of one head of a page as f32, `[16][padded_dim_v]`.
#[inline(always)]
pub(crate) fn unpack_values<S: Simd>(s: S, layout: &KvLayout, head: &[u8], out: &mut [f32]) {
    let (ty, dim) = (layout.v_type, layout.head_dim_v);
    let (numbers, scales) = head[layout.k_bytes()..].split_at(ty.number_bytes(dim));
    let (out, _) = out[..ty.padded(dim) * PAGE_TOKENS].as_chunks_mut::<LANES>();
    match ty {
        CacheType::F32 | CacheType::F16 => unpack_floats(s, ty, numbers, out),
        // In [position][dim], the scale of each 32 numbers is the next one.
        CacheType::Q8_0 => {
            let blocks = out.as_chunks_mut::<2>().0.iter_mut().zip(numbers.as_chunks::<32>().0);
            for (i, ([low_out, high_out], q)) in blocks.enumerate() {
                let scale = s.splat(scale_at(scales, i));
                let (halves, _) = q.as_chunks::<16>();
                s.store(s.mul(s.load_i8(&halves[0]), scale), low_out);
                s.store(s.mul(s.load_i8(&halves[1]), scale), high_out);
            }
        }
        CacheType::Q4_0 => {
            let blocks = out.as_chunks_mut::<2>().0.iter_mut().zip(numbers.as_chunks::<16>().0);
            for (i, ([low_out, high_out], q)) in blocks.enumerate() {
                let scale = s.splat(scale_at(scales, i));
                let (low, high) = s.load_nibbles(q);
                s.store(s.mul(low, scale), low_out);
                s.store(s.mul(high, scale), high_out);
            }
        }
    }
}

#[inline(always)]
fn scale_at(scales: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([scales[2 * i], scales[2 * i + 1]]).to_f32_const()
}

#[inline(always)]
fn unpack_floats<S: Simd>(s: S, ty: CacheType, numbers: &[u8], out: &mut [[f32; LANES]]) {
    if ty == CacheType::F32 {
        for (out, bytes) in out.iter_mut().zip(numbers.as_chunks::<64>().0) {
            s.store(s.load_bytes(bytes), out);
        }
    } else {
        for (out, bytes) in out.iter_mut().zip(numbers.as_chunks::<32>().0) {
            s.store(s.load_f16(bytes), out);
        }
    }
}
