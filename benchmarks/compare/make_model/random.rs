//! Seeded random numbers by integers alone, so that a file has the same bytes on every machine: the logarithm and the
//! cosine that a normal deviate is usually made of are the platform's.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

/// Standard deviation of a sum of eight uniform integers below 2¹⁶: √(8 · (2³² − 1) / 12).
const SUM_DEVIATION: f32 = 53509.9;

/// The mean of that sum.
const SUM_MEAN: i32 = 4 * 0xffff;

impl Random {
    /// A stream of its own for each name.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut random = Self { state: seed };
        for byte in name.bytes() {
            random.state = random.next() ^ u64::from(byte);
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is much smaller than 2⁶⁴.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Normal with the mean 0 and the deviation 1, up to 4.9 of them: by the central limit theorem, a sum of eight
    /// uniform numbers.
    pub(crate) fn normal(&mut self) -> f32 {
        let halves = |x: u64| (x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48);
        let sum = (halves(self.next()) + halves(self.next())) as i32;
        (sum - SUM_MEAN) as f32 / SUM_DEVIATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_seeds_give_streams_of_their_own() {
        let first = |seed, name| Random::new(seed, name).next();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "ab"), first(1, "ba"));
    }

    #[test]
    fn the_moments_and_the_tails_are_those_of_a_normal_distribution() {
        let mut random = Random::new(1, "moments");
        let n = 1_000_000;
        let xs = (0..n).map(|_| f64::from(random.normal())).collect::<Vec<_>>();
        let moment = |power| xs.iter().map(|x| x.powi(power)).sum::<f64>() / f64::from(n);
        assert!(moment(1).abs() < 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.005, "{}", moment(2));
        // Of eight summands the fourth moment is 3 − 1.2 / 8.
        assert!((moment(4) - 2.85).abs() < 0.03, "{}", moment(4));
        let beyond = xs.iter().filter(|x| x.abs() > 1.96).count() as f64 / f64::from(n);
        assert!((beyond - 0.05).abs() < 0.002, "{beyond}");
    }
}
