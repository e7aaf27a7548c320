//! Blocks of quantised weights as integers: what every quantised product starts from.
//!
//! A block of any format is a few floating-point factors and integers: eight-bit quants, an integer scale per
//! group of weights, and in some formats an integer minimum per group. A weight is
//! `d · scale · quant − d_min · min`. Constant powers of two that a format puts beside `d` (an eighth in the IQ2
//! types) are folded into `d`, which is exact; offsets of an eighth (IQ1) become part of the quant, scaled by
//! eight; the halves of MXFP4 and NVFP4 are counted in doubled values.
//!
//! # Bounds
//! Activations are at most 127 in magnitude. The sum over a span of `scale · quant · activation` then is at most,
//! for the types with the largest products:
//!
//! | type | weights | scale | quant | bound |
//! |---|---|---|---|---|
//! | Q8_0 | 32 | 1 | 128 | 520 192 |
//! | Q6_K | 256 | 128 | 32 | 133 169 152 |
//! | IQ4_XS | 256 | 32 | 127 | 132 128 768 |
//! | Q5_K | 256 | 63 | 31 | 63 495 936 |
//! | IQ3_XXS | 256 | 31 | 62 | 62 488 064 |
//! | IQ2_XXS, IQ2_XS, IQ2_S | 256 | 31 | 43 | 43 338 496 |
//!
//! and the sum of `min · activation` at most 256 · 63 · 127 = 2 048 256 (Q4_K, Q5_K): all far inside i32.

mod blocks32;
mod iq;
mod k;
mod tiny;

pub use blocks32::{IQ4_NL, MXFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, half_of_e8m0};
pub use iq::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_XS};
pub use k::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub use tiny::{NVFP4, Q1_0, Q2_0, TQ1_0, TQ2_0};

use half::f16;

use crate::GgmlType;

/// Weights of the longest block.
pub const BLOCK_LEN_MAX: usize = 256;

/// The finest grouping of scales and minimums: the arrays of [`Unpacked`] have one entry per 16 weights.
pub const GROUP: usize = 16;

/// A block of weights as integers and factors. Entries beyond the block's length are unspecified.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Unpacked {
    /// The quants, in the order of the weights.
    pub quants: [i8; BLOCK_LEN_MAX],
    /// The scale of each 16 weights; 1 in formats without integer scales.
    pub scales: [i16; BLOCK_LEN_MAX / GROUP],
    /// The minimum of each 16 weights, unspecified in formats without minimums.
    pub mins: [i16; BLOCK_LEN_MAX / GROUP],
    /// The factor of each span (see [`Format::SPAN`]).
    pub d: [f32; 4],
    /// The factor of the minimums, unspecified in formats without minimums.
    pub d_min: f32,
}

impl Default for Unpacked {
    fn default() -> Self {
        Self { quants: [0; 256], scales: [1; 16], mins: [0; 16], d: [0.0; 4], d_min: 0.0 }
    }
}

/// A block format that can be unpacked to integers.
pub trait Format {
    /// The tensor type.
    const TYPE: GgmlType;
    /// Weights in a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Consecutive weights whose integers are summed before a factor `d` is applied: they share `d` and one
    /// activation scale. Such a sum is one step of the canonical order.
    const SPAN: usize;
    /// Consecutive weights that share an integer scale: 16, or 32 or more.
    const GROUP: usize;
    /// Whether the integer scales are other than 1.
    const SCALED: bool;
    /// Whether weights have a minimum that is subtracted.
    const MINS: bool;

    /// Unpacks one block.
    ///
    /// # Panics
    /// If `block` has another length than [`BYTES`](Self::BYTES).
    fn unpack(block: &[u8], out: &mut Unpacked);
}

/// Calls `$f::<F>($args)` with the [`Format`] `F` of a type; `None` for types that are not quantised.
macro_rules! with_format {
    ($ty:expr, $f:ident ( $($arg:expr),* )) => {{
        use $crate::unpack;
        match $ty {
            $crate::GgmlType::Q4_0 => Some($f::<unpack::Q4_0>($($arg),*)),
            $crate::GgmlType::Q4_1 => Some($f::<unpack::Q4_1>($($arg),*)),
            $crate::GgmlType::Q5_0 => Some($f::<unpack::Q5_0>($($arg),*)),
            $crate::GgmlType::Q5_1 => Some($f::<unpack::Q5_1>($($arg),*)),
            $crate::GgmlType::Q8_0 => Some($f::<unpack::Q8_0>($($arg),*)),
            $crate::GgmlType::IQ4_NL => Some($f::<unpack::IQ4_NL>($($arg),*)),
            $crate::GgmlType::MXFP4 => Some($f::<unpack::MXFP4>($($arg),*)),
            $crate::GgmlType::Q2_K => Some($f::<unpack::Q2_K>($($arg),*)),
            $crate::GgmlType::Q3_K => Some($f::<unpack::Q3_K>($($arg),*)),
            $crate::GgmlType::Q4_K => Some($f::<unpack::Q4_K>($($arg),*)),
            $crate::GgmlType::Q5_K => Some($f::<unpack::Q5_K>($($arg),*)),
            $crate::GgmlType::Q6_K => Some($f::<unpack::Q6_K>($($arg),*)),
            $crate::GgmlType::IQ4_XS => Some($f::<unpack::IQ4_XS>($($arg),*)),
            $crate::GgmlType::IQ2_XXS => Some($f::<unpack::IQ2_XXS>($($arg),*)),
            $crate::GgmlType::IQ2_XS => Some($f::<unpack::IQ2_XS>($($arg),*)),
            $crate::GgmlType::IQ2_S => Some($f::<unpack::IQ2_S>($($arg),*)),
            $crate::GgmlType::IQ3_XXS => Some($f::<unpack::IQ3_XXS>($($arg),*)),
            $crate::GgmlType::IQ3_S => Some($f::<unpack::IQ3_S>($($arg),*)),
            $crate::GgmlType::IQ1_S => Some($f::<unpack::IQ1_S>($($arg),*)),
            $crate::GgmlType::IQ1_M => Some($f::<unpack::IQ1_M>($($arg),*)),
            $crate::GgmlType::TQ1_0 => Some($f::<unpack::TQ1_0>($($arg),*)),
            $crate::GgmlType::TQ2_0 => Some($f::<unpack::TQ2_0>($($arg),*)),
            $crate::GgmlType::NVFP4 => Some($f::<unpack::NVFP4>($($arg),*)),
            $crate::GgmlType::Q1_0 => Some($f::<unpack::Q1_0>($($arg),*)),
            $crate::GgmlType::Q2_0 => Some($f::<unpack::Q2_0>($($arg),*)),
            _ => None,
        }
    }};
}
pub(crate) use with_format;

/// The function that unpacks a block of type `ty`, or `None` for types that are not quantised and for the
/// internal formats Q8_1 and Q8_K.
///
/// The function panics if it is given another number of bytes than a block has.
pub fn unpacker(ty: GgmlType) -> Option<fn(&[u8], &mut Unpacked)> {
    fn of<F: Format>() -> fn(&[u8], &mut Unpacked) {
        F::unpack
    }
    with_format!(ty, of())
}

/// Declares the marker type of a format and its constants.
macro_rules! block_format {
    ($name:ident: $len:literal weights in $bytes:literal bytes, span $span:literal, group $group:literal, scaled $scaled:literal, mins $mins:literal, $unpack:path) => {
        #[doc = concat!("The format ", stringify!($name), ".")]
        #[allow(non_camel_case_types)] // The formats keep the spelling that users know from file names.
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::unpack::Format for $name {
            const TYPE: $crate::GgmlType = $crate::GgmlType::$name;
            const LEN: usize = $len;
            const BYTES: usize = $bytes;
            const SPAN: usize = $span;
            const GROUP: usize = $group;
            const SCALED: bool = $scaled;
            const MINS: bool = $mins;

            #[inline(always)]
            fn unpack(block: &[u8], out: &mut $crate::unpack::Unpacked) {
                let (block, rest) = block.as_chunks::<$bytes>();
                assert!(block.len() == 1 && rest.is_empty(), "a block has {} bytes", $bytes);
                $unpack(&block[0], out);
            }
        }
    };
}
pub(crate) use block_format;

/// The f16 at byte `at` of a block, exactly.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The u16 at byte `at` of a block.
#[inline(always)]
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The u32 at byte `at` of a block.
#[inline(always)]
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
