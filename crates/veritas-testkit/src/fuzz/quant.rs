//! What must hold for any bytes that are given to the block formats.

use veritas_quant::{GgmlType, dequantize_row};

/// Blocks that one input stands for at most: enough for every path, few enough to stay fast.
const MAX_BLOCKS: usize = 4;

/// Takes the first byte as a type and the rest as blocks of it; every block dequantises to as many numbers as the type
/// says, and a wrong length is an error.
///
/// # Panics
/// If a promise is broken.
pub fn check(bytes: &[u8]) {
    let Some((&kind, blocks)) = bytes.split_first() else { return };
    let types = GgmlType::all().collect::<Vec<_>>();
    let ty = types[usize::from(kind) % types.len()];
    let n_blocks = (blocks.len() / ty.block_bytes()).min(MAX_BLOCKS);
    let row = &blocks[..n_blocks * ty.block_bytes()];
    let mut out = vec![0.5; n_blocks * ty.block_len()];
    let whole = dequantize_row(ty, row, &mut out);
    if whole.is_ok() && n_blocks > 0 {
        let short = &row[..row.len() - 1];
        assert!(dequantize_row(ty, short, &mut out).is_err(), "{ty} took a block that lacks a byte");
        let n_out = out.len();
        assert!(
            dequantize_row(ty, row, &mut out[..n_out - 1]).is_err(),
            "{ty} took an output that is too short"
        );
    }
}
