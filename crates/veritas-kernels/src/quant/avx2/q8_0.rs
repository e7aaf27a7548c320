//! Q8_0: signed bytes.

use std::arch::x86_64::*;

use veritas_quant::unpack::Q8_0;

use super::panel::Vector;
use super::{Direct, bytes32, q32, signed_pairs, store32};

impl Direct for Q8_0 {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        _mm256_madd_epi16(signed_pairs(bytes32(block, 2), q32(q, 0)), _mm256_set1_epi16(1))
    }
}

impl Vector for Q8_0 {
    const BITS: u32 = 8;
    const CODE_OFFSET: u8 = 128;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        store32(out, 0, _mm256_xor_si256(bytes32(block, 2), _mm256_set1_epi8(-128)));
    }
}
