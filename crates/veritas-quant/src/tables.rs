//! Tables that are part of the block formats: the grids of the IQ types and the values of 4-bit codes.
//!
//! The packed numbers in `data.rs` are generated; here they are expanded at compile time into the rows that
//! decoders index. A row of a grid is the magnitudes (IQ2, IQ3) or the signed values (IQ1) of 8 or 4
//! consecutive weights.

mod data;

/// The value of each 4-bit code of IQ4_NL and IQ4_XS, ascending.
pub static IQ4_NL_VALUES: [i8; 16] = data::IQ4_NL_VALUES;

/// The value of each 4-bit code of MXFP4 and NVFP4: twice the number that the E2M1 code stands for.
pub static MXFP4_VALUES: [i8; 16] = data::MXFP4_VALUES;

/// Magnitudes of IQ2_XXS: the row of each 8-bit index.
pub static IQ2_XXS_GRID: [[i8; 8]; 256] = expand(&data::IQ2_XXS_PACKED, &data::IQ2_XXS_ALPHABET, 2);

/// Magnitudes of IQ2_XS: the row of each 9-bit index.
pub static IQ2_XS_GRID: [[i8; 8]; 512] = expand(&data::IQ2_XS_PACKED, &data::IQ2_XS_ALPHABET, 2);

/// Magnitudes of IQ2_S: the row of each 10-bit index.
pub static IQ2_S_GRID: [[i8; 8]; 1024] = expand(&data::IQ2_S_PACKED, &data::IQ2_S_ALPHABET, 2);

/// Magnitudes of IQ3_XXS: the row of each 8-bit index.
pub static IQ3_XXS_GRID: [[i8; 4]; 256] = expand(&data::IQ3_XXS_PACKED, &data::IQ3_XXS_ALPHABET, 3);

/// Magnitudes of IQ3_S: the row of each 9-bit index.
pub static IQ3_S_GRID: [[i8; 4]; 512] = expand(&data::IQ3_S_PACKED, &data::IQ3_S_ALPHABET, 3);

/// Values −1, 0 and 1 of IQ1_S and IQ1_M: the row of each 11-bit index.
pub static IQ1_GRID: [[i8; 8]; 2048] = expand(&data::IQ1_S_PACKED, &data::IQ1_S_ALPHABET, 2);

/// The sign bits of eight weights for each 7-bit sign index of IQ2_XXS, IQ2_XS and IQ3_XXS: a set bit
/// negates its weight.
///
/// The eighth bit is the parity of the stored seven, so that the number of negative weights is always even.
pub static EVEN_SIGNS: [u8; 128] = {
    let mut table = [0; 128];
    let mut index = 0;
    while index < 128 {
        let bits = index as u8;
        table[index] = bits | ((bits.count_ones() as u8 & 1) << 7);
        index += 1;
    }
    table
};

/// Rows of `N` values from indices of `bits` bits each, the first value in the lowest bits.
const fn expand<const N: usize, const ROWS: usize, const A: usize>(
    packed: &[u16; ROWS],
    alphabet: &[i8; A],
    bits: u32,
) -> [[i8; N]; ROWS] {
    let mut grid = [[0; N]; ROWS];
    let mut row = 0;
    while row < ROWS {
        let mut rest = packed[row];
        let mut at = 0;
        while at < N {
            grid[row][at] = alphabet[(rest & ((1 << bits) - 1)) as usize];
            rest >>= bits;
            at += 1;
        }
        row += 1;
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_row_holds_its_values_in_ascending_place() {
        assert_eq!(IQ2_XXS_GRID[0], [8; 8]);
        assert_eq!(IQ2_XXS_GRID[1], [43, 8, 8, 8, 8, 8, 8, 8]);
        assert_eq!(IQ1_GRID[0], [-1; 8]);
        assert_eq!(IQ3_XXS_GRID[0], [4; 4]);
        assert_eq!(EVEN_SIGNS[1], 0x81);
        assert_eq!(EVEN_SIGNS[3], 0x03);
    }
}
