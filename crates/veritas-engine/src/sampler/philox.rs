//! Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (SC 2011). A draw is a pure function of a key and a counter: there is no state to carry along, to save or
//! to get out of step, so a draw is the same whatever was drawn before it and in whichever batch it is made.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57]; // M0, M1 of section 4.3 of the paper
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85]; // golden ratio and √3 − 1: the key's step per round

/// What a draw is for. Two purposes at one position are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The choice of the token.
    Token = 0,
    /// Whether XTC acts at this position.
    Xtc = 1,
}

/// The block of four words at `counter` under `key`.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A number in [0, 1), a multiple of 2⁻⁵³, keyed by the seed, the index of the choice and the position in the
/// sequence (the number of tokens before the one that is drawn, those of the prompt included).
pub fn uniform(seed: u64, choice: u32, position: u64, purpose: Purpose) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, choice, purpose as u32];
    let words = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(words[1]) << 32 | u64::from(words[0])) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_known_answers() {
        // kat_vectors of the Random123 distribution, lines `philox4x32 10`.
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, want) in cases {
            assert_eq!(philox4x32_10(counter, key), want);
        }
    }

    #[test]
    fn every_part_of_the_key_changes_the_draw() {
        let draw = |seed, choice, position, purpose| uniform(seed, choice, position, purpose);
        let all = [
            draw(1, 0, 0, Purpose::Token),
            draw(1 << 32, 0, 0, Purpose::Token),
            draw(1, 1, 0, Purpose::Token),
            draw(1, 0, 1, Purpose::Token),
            draw(1, 0, 1 << 32, Purpose::Token),
            draw(1, 0, 0, Purpose::Xtc),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!((0.0..1.0).contains(a));
            assert!(all[..i].iter().all(|b| a != b), "draw {i} repeats another");
        }
    }

    #[test]
    fn draws_of_successive_positions_are_uniform() {
        // Chi-square over 100 cells, 99 degrees of freedom: 0.1 % lies above 148.2. The seed is fixed, so this cannot flake.
        let (n, cells) = (100_000u64, 100usize);
        let mut counts = vec![0u32; cells];
        for position in 0..n {
            counts[(uniform(42, 0, position, Purpose::Token) * cells as f64) as usize] += 1;
        }
        let expected = n as f64 / cells as f64;
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
        assert!(chi2 < 148.2, "chi-square {chi2}");
    }
}
