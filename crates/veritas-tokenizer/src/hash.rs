//! A fast hash with a secret seed, for tables whose keys come from a vocabulary: nobody who writes one can choose keys
//! that collide.
//!
//! The step is the multiplication of two words to 128 bits whose halves are combined (as in wyhash): every bit of the
//! result depends on every bit of both.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// The high and the low half of a product, combined.
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A hash function that nobody can know before the process runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed([u64; 2]);

impl Seed {
    pub(crate) fn random() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0u8), random.hash_one(1u8)])
    }

    /// The hash of a number.
    pub(crate) fn number(self, number: u64) -> u64 {
        fold(number ^ self.0[0], self.0[1])
    }

    /// The hash of a string of bytes.
    pub(crate) fn bytes(self, bytes: &[u8]) -> u64 {
        let mut state = self.0[1];
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            state = self.step(state, *pair);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        fold(self.step(state, last) ^ bytes.len() as u64, self.0[0])
    }

    fn step(self, state: u64, bytes: [u8; 16]) -> u64 {
        let both = u128::from_le_bytes(bytes);
        fold(both as u64 ^ self.0[0], (both >> 64) as u64 ^ state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_differ_in_a_byte_or_in_length_differ_in_their_hash() {
        let seed = Seed::random();
        let mut hashes: Vec<u64> = (0..64).map(|n| seed.bytes(&vec![0; n])).collect();
        for at in 0..40 {
            for value in 1..=255 {
                let mut bytes = [0; 40];
                bytes[at] = value;
                hashes.push(seed.bytes(&bytes));
            }
        }
        let n = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), n);
    }
}
