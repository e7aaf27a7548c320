//! IQ4_XS: the values of IQ4_NL in eight sub-blocks of 32 with signed 6-bit scales.

use std::arch::x86_64::*;

use veritas_quant::tables::IQ4_NL_VALUES;
use veritas_quant::unpack::{GROUP, IQ4_XS};

use super::iq4_nl::looked_up;
use super::panel::Vector;
use super::{Direct, bytes16, nibbles, q32, signed_pairs, store32};

impl Direct for IQ4_XS {
    const D_AT: usize = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dots(block: &[u8], q: &[i8], _sums: &[i16]) -> __m256i {
        let high = u16::from_le_bytes([block[2], block[3]]);
        let low = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let mut acc = _mm256_setzero_si256();
        for sub in 0..8 {
            let scale = ((low >> (4 * sub)) & 15) as i16 | (((high >> (2 * sub)) & 3) << 4) as i16;
            let weights = looked_up(&IQ4_NL_VALUES, nibbles(bytes16(block, 8 + 16 * sub)));
            let pairs = signed_pairs(weights, q32(q, 32 * sub));
            acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(scale - 32)));
        }
        acc
    }
}

impl Vector for IQ4_XS {
    const BITS: u32 = 8;
    const CODE_OFFSET: u8 = 128;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: &[u8], out: &mut [u8]) {
        for sub in 0..8 {
            let values = looked_up(&IQ4_NL_VALUES, nibbles(bytes16(block, 8 + 16 * sub)));
            store32(out, 32 * sub, _mm256_xor_si256(values, _mm256_set1_epi8(-128)));
        }
    }

    #[inline(always)]
    fn scales(block: &[u8]) -> ([i8; GROUP], [i8; GROUP]) {
        let high = u16::from_le_bytes([block[2], block[3]]);
        let low = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        let mut scales = [0; GROUP];
        for (sub, scale) in scales[..8].iter_mut().enumerate() {
            let six = (low >> (4 * sub)) & 15 | (u32::from(high >> (2 * sub)) & 3) << 4;
            *scale = six as i8 - 32;
        }
        (scales, [0; GROUP])
    }
}
