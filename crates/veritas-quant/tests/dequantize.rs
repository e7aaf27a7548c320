//! Every weight format against the values that ggml gives for the same bytes.

mod support;

use veritas_quant::dequantize_row;
use veritas_testkit::{Tensors, committed};

#[test]
fn all_27_types_dequantize_to_the_bits_that_ggml_gives() {
    let expected = Tensors::read(&committed("quants/expected.safetensors"));
    let tensors = support::tensors(&committed("quants/quants.gguf"));
    assert_eq!(tensors.len(), 27);
    for (name, tensor) in tensors {
        let want = &expected.tensor(&format!("dequant.{name}")).f32s;
        let mut got = vec![0.0; want.len()];
        let row_bytes = tensor.ty.row_bytes(tensor.row_len).expect("rows of the fixture are whole blocks");
        for (row, bytes) in got.chunks_mut(tensor.row_len).zip(tensor.bytes.chunks(row_bytes)) {
            dequantize_row(tensor.ty, bytes, row).expect("a weight type");
        }
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!(got.to_bits(), want.to_bits(), "{name}, weight {i}: {got} instead of {want}");
        }
    }
}
