//! Quantised products with AVX-512 and VNNI.
//!
//! Many activation rows: panels of 32 weight rows times tiles of up to six columns (`panel`, `prompt`). `vpdpbusd`
//! multiplies unsigned with signed bytes and adds four products in i32 without saturation; signed weights are made
//! unsigned by adding 128, and the accumulators start from −128 times the sum of the activations.
//!
//! Few activation rows: `decode`, straight from the file's layout. The formats with grids, whose unpacking costs most,
//! are unpacked once for a few activation rows (`tile`), and by the reader of `avx2` for one.

mod ahead;
mod decode;
mod panel;
mod prompt;
mod tile;
mod vectors;

use veritas_quant::GgmlType;
use veritas_quant::unpack::{self, Format};

use self::panel::{Blocks32, Blocks256, Fill, Portable};
use super::avx2;
use crate::Activations;
use crate::table::RowsKernel;
use crate::tile::TileWriter;

/// The kernel of a type, or `None` where only the portable one exists.
pub(super) fn rows(ty: GgmlType) -> Option<RowsKernel> {
    Some(match ty {
        GgmlType::Q4_0 => rows_32::<unpack::Q4_0, Blocks32<unpack::Q4_0>>,
        GgmlType::Q5_0 => rows_32::<unpack::Q5_0, Blocks32<unpack::Q5_0>>,
        GgmlType::Q8_0 => rows_32::<unpack::Q8_0, Blocks32<unpack::Q8_0>>,
        GgmlType::Q4_K => rows_256::<unpack::Q4_K, Blocks256<unpack::Q4_K>>,
        GgmlType::Q5_K => rows_256::<unpack::Q5_K, Blocks256<unpack::Q5_K>>,
        GgmlType::Q6_K => rows_256::<unpack::Q6_K, Blocks256<unpack::Q6_K>>,
        GgmlType::Q4_1 => rows_32::<unpack::Q4_1, Blocks32<unpack::Q4_1>>,
        GgmlType::Q5_1 => rows_32::<unpack::Q5_1, Blocks32<unpack::Q5_1>>,
        GgmlType::IQ4_NL => rows_32::<unpack::IQ4_NL, Blocks32<unpack::IQ4_NL>>,
        GgmlType::MXFP4 => rows_32::<unpack::MXFP4, Portable<unpack::MXFP4>>,
        GgmlType::Q2_K => rows_256::<unpack::Q2_K, Portable<unpack::Q2_K>>,
        GgmlType::Q3_K => rows_256::<unpack::Q3_K, Portable<unpack::Q3_K>>,
        GgmlType::IQ4_XS => rows_256::<unpack::IQ4_XS, Portable<unpack::IQ4_XS>>,
        GgmlType::IQ2_XXS => unpacked_rows::<unpack::IQ2_XXS>,
        GgmlType::IQ2_XS => unpacked_rows::<unpack::IQ2_XS>,
        GgmlType::IQ2_S => unpacked_rows::<unpack::IQ2_S>,
        GgmlType::IQ3_XXS => unpacked_rows::<unpack::IQ3_XXS>,
        GgmlType::IQ3_S => unpacked_rows::<unpack::IQ3_S>,
        GgmlType::IQ1_S => unpacked_rows::<unpack::IQ1_S>,
        GgmlType::IQ1_M => unpacked_rows::<unpack::IQ1_M>,
        _ => return None,
    })
}

/// A kernel that leaves many activation rows to `prompt`, and few to another.
macro_rules! few_or_many {
    ($(#[$doc:meta])* $name:ident<F: $bound:path>: $($few:ident)::+) => {
        $(#[$doc])*
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn $name<F: $bound, P: Fill<Format = F>>(
            w: &[u8],
            n_rows: usize,
            cols: usize,
            acts: &Activations,
            out: &mut TileWriter<'_>,
        ) {
            if acts.columns().is_some() {
                prompt::rows::<P>(w, n_rows, cols, acts, out);
            } else {
                $($few)::+::<F>(w, n_rows, cols, acts, out);
            }
        }
    };
}

few_or_many! {
    /// The rows of a format with blocks of 32 that `decode` reads.
    rows_32<F: decode::Block32>: decode::rows_32
}
few_or_many! {
    /// The rows of a format with blocks of 256 that `decode` reads.
    rows_256<F: decode::Block256>: decode::rows_256
}

/// The rows of a format that is unpacked through memory.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn unpacked_rows<F: Format>(
    w: &[u8],
    n_rows: usize,
    cols: usize,
    acts: &Activations,
    out: &mut TileWriter<'_>,
) {
    if acts.columns().is_some() {
        prompt::rows::<Portable<F>>(w, n_rows, cols, acts, out);
    } else if acts.rows() > 1 {
        tile::rows::<F>(w, n_rows, cols, acts, out);
    } else {
        avx2::decode_unpacked::<F>(w, n_rows, cols, acts, out);
    }
}
