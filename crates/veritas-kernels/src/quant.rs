//! Products of quantised weights and quantised activations: which kernel serves which type on which level.
//!
//! Every kernel computes the order that `veritas_quant::dot_row` defines, bit for bit: the sums inside a span are integers,
//! so their order is free; the floating-point steps across spans are one chain per output.

#[cfg(target_arch = "x86_64")]
mod panel;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod stretch;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use veritas_quant::{GgmlType, unpack};

use crate::table::RowsKernel;

/// The portable kernel of a quantised type, or `None`.
pub(crate) fn portable_rows(ty: GgmlType) -> Option<RowsKernel> {
    Some(match ty {
        GgmlType::Q4_0 => portable::rows::<unpack::Q4_0>,
        GgmlType::Q4_1 => portable::rows::<unpack::Q4_1>,
        GgmlType::Q5_0 => portable::rows::<unpack::Q5_0>,
        GgmlType::Q5_1 => portable::rows::<unpack::Q5_1>,
        GgmlType::Q8_0 => portable::rows::<unpack::Q8_0>,
        GgmlType::IQ4_NL => portable::rows::<unpack::IQ4_NL>,
        GgmlType::MXFP4 => portable::rows::<unpack::MXFP4>,
        GgmlType::Q2_K => portable::rows::<unpack::Q2_K>,
        GgmlType::Q3_K => portable::rows::<unpack::Q3_K>,
        GgmlType::Q4_K => portable::rows::<unpack::Q4_K>,
        GgmlType::Q5_K => portable::rows::<unpack::Q5_K>,
        GgmlType::Q6_K => portable::rows::<unpack::Q6_K>,
        GgmlType::IQ4_XS => portable::rows::<unpack::IQ4_XS>,
        GgmlType::IQ2_XXS => portable::rows::<unpack::IQ2_XXS>,
        GgmlType::IQ2_XS => portable::rows::<unpack::IQ2_XS>,
        GgmlType::IQ2_S => portable::rows::<unpack::IQ2_S>,
        GgmlType::IQ3_XXS => portable::rows::<unpack::IQ3_XXS>,
        GgmlType::IQ3_S => portable::rows::<unpack::IQ3_S>,
        GgmlType::IQ1_S => portable::rows::<unpack::IQ1_S>,
        GgmlType::IQ1_M => portable::rows::<unpack::IQ1_M>,
        GgmlType::TQ1_0 => portable::rows::<unpack::TQ1_0>,
        GgmlType::TQ2_0 => portable::rows::<unpack::TQ2_0>,
        GgmlType::NVFP4 => portable::rows::<unpack::NVFP4>,
        GgmlType::Q1_0 => portable::rows::<unpack::Q1_0>,
        GgmlType::Q2_0 => portable::rows::<unpack::Q2_0>,
        _ => return None,
    })
}

/// The AVX2 kernel of a quantised type, or the portable one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn avx2_rows(ty: GgmlType) -> Option<RowsKernel> {
    avx2::rows(ty).or_else(|| portable_rows(ty))
}

/// The AVX-512 kernel of a quantised type, or the portable one.
#[cfg(target_arch = "x86_64")]
pub(crate) fn avx512_rows(ty: GgmlType) -> Option<RowsKernel> {
    avx512::rows(ty).or_else(|| portable_rows(ty))
}

/// The kernel of a quantised type for Advanced SIMD, or the portable one.
#[cfg(target_arch = "aarch64")]
pub(crate) fn neon_rows(ty: GgmlType) -> Option<RowsKernel> {
    let own = if has_neon_kernels() { neon::rows(ty) } else { None };
    own.or_else(|| portable_rows(ty))
}

/// Whether this machine has kernels of its own for quantised types at the level of Advanced SIMD: not every one has the
/// dot products that they are made of.
pub(crate) fn has_neon_kernels() -> bool {
    #[cfg(target_arch = "aarch64")]
    return neon::is_available();
    #[cfg(not(target_arch = "aarch64"))]
    false
}

#[cfg(test)]
mod tests;
