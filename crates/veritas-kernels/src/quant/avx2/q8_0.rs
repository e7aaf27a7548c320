//! Q8_0: signed bytes.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q8_0;

use super::{Direct, bytes32, q32, signed_pairs};

impl Direct for Q8_0 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        _mm256_madd_epi16(signed_pairs(bytes32(block, 2), q32(q, 0)), _mm256_set1_epi16(1))
    }
}
