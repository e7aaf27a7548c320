//! The merges of BPE: from two ids to a rank and an id. An open-addressing table of whole numbers, so that a look-up is
//! one multiplication and mostly one line of the cache.

use crate::hash::Seed;

/// The key of a free place. No merge has it: [`PairTable::insert`] is never called with two ids of `u32::MAX`.
const FREE: u64 = u64::MAX;

/// From a pair of ids to a rank and the id of the result.
#[derive(Debug)]
pub(crate) struct PairTable {
    /// A power of two places: the key, and rank and id in one number. At most two of three are taken.
    places: Vec<(u64, u64)>,
    seed: Seed,
}

impl PairTable {
    /// A table with room for `n` pairs.
    pub(crate) fn with_capacity(n: usize) -> Self {
        let n_places = (n + n / 2 + 2).next_power_of_two();
        Self { places: vec![(FREE, 0); n_places], seed: Seed::random() }
    }

    /// Adds a pair, unless it is there already. There must be room for it.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, id: u32) {
        let key = key(left, right);
        let place = self.find(key);
        if self.places[place].0 == FREE {
            self.places[place] = (key, u64::from(rank) << 32 | u64::from(id));
        }
    }

    /// The rank and the id of the result.
    pub(crate) fn find_pair(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        match self.places[self.find(key(left, right))] {
            (FREE, _) => None,
            (_, value) => Some(((value >> 32) as u32, value as u32)),
        }
    }

    /// The place of a key, or the free place where it would stand.
    fn find(&self, key: u64) -> usize {
        let mask = self.places.len() - 1;
        let mut place = self.seed.number(key) as usize & mask;
        loop {
            let found = self.places[place].0;
            if found == key || found == FREE {
                return place;
            }
            place = (place + 1) & mask;
        }
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_table_holds_what_a_map_holds(
            pairs in proptest::collection::vec((0u32..20, 0u32..20, any::<u32>(), any::<u32>()), 0..200)
        ) {
            let mut table = PairTable::with_capacity(pairs.len());
            let mut map = HashMap::new();
            for &(left, right, rank, id) in &pairs {
                table.insert(left, right, rank, id);
                map.entry((left, right)).or_insert((rank, id));
            }
            for left in (0..20).chain([u32::MAX]) {
                for right in (0..20).chain([u32::MAX]) {
                    prop_assert_eq!(table.find_pair(left, right), map.get(&(left, right)).copied());
                }
            }
        }
    }
}
