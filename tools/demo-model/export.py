"""Writes a checkpoint as GGUF, Q8_0.

    python export.py OUT/last.pt veritas-demo.gguf

Matrices are Q8_0, norms F32, the output matrix is the embedding (tied).
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from generate import SPECIALS, TOKENIZER
from model import Config
from questions import HERE

DESCRIPTION = ("The built-in model of Veritas SDR, made from generated text. It proves that the installation works; "
               "it is not a source of knowledge.")


def tensors(state, n_layers):
    """(GGUF name, f32 array) in the order of the network."""
    yield "token_embd.weight", state["token_embd.weight"]
    for i in range(n_layers):
        for part in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"):
            yield f"blk.{i}.{part}.weight", state[f"blk.{i}.{part}.weight"]
    yield "output_norm.weight", state["output_norm.weight"]


def vocabulary():
    saved = json.loads(TOKENIZER.read_text())
    ids = dict(saved["model"]["vocab"]) | {t["content"]: t["id"] for t in saved["added_tokens"]}
    tokens = [t for t, _ in sorted(ids.items(), key=lambda item: item[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in saved["model"]["merges"]]
    types = [gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.NORMAL for t in tokens]
    return tokens, types, merges, ids


def write(checkpoint, path):
    saved = torch.load(checkpoint, weights_only=False, map_location="cpu")
    config = Config(**saved["config"])
    tokens, types, merges, ids = vocabulary()
    w = gguf.GGUFWriter(path, "llama")
    w.add_type("model")
    w.add_name("Veritas demo")
    w.add_author("Veritas SDR authors")
    w.add_license("apache-2.0")
    w.add_description(DESCRIPTION)
    w.add_context_length(config.n_ctx)
    w.add_embedding_length(config.d_model)
    w.add_block_count(config.n_layers)
    w.add_feed_forward_length(config.d_ffn)
    w.add_head_count(config.n_heads)
    w.add_head_count_kv(config.n_kv_heads)
    w.add_rope_dimension_count(config.head_dim)
    w.add_rope_freq_base(config.rope_base)
    w.add_layer_norm_rms_eps(config.norm_eps)
    w.add_vocab_size(config.n_vocab)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # Answers by heart want little chance; a story asks for more with --temp.
    w.add_sampling_temp(0.3)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(ids["<|bos|>"])
    w.add_eos_token_id(ids["<|eos|>"])
    w.add_eot_token_id(ids["<|end|>"])
    w.add_pad_token_id(ids["<|eos|>"])
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_chat_template((HERE / "chat_template.jinja").read_text().rstrip("\n"))
    for name, value in tensors(saved["model"], config.n_layers):
        value = value.float().numpy()
        if value.ndim == 1:
            w.add_tensor(name, value)
        else:
            packed = gguf.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            w.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read(path):
    """The exported weights, dequantised, in the network of model.py: what is measured is what is shipped."""
    from model import Llama

    r = gguf.GGUFReader(path)
    value = lambda key: r.get_field(key).contents()
    config = Config(n_vocab=len(value("tokenizer.ggml.tokens")), n_ctx=value("llama.context_length"), d_model=value("llama.embedding_length"),
                    n_layers=value("llama.block_count"), n_heads=value("llama.attention.head_count"),
                    n_kv_heads=value("llama.attention.head_count_kv"), d_ffn=value("llama.feed_forward_length"),
                    rope_base=value("llama.rope.freq_base"), norm_eps=value("llama.attention.layer_norm_rms_epsilon"))
    model = Llama(config)
    state = {t.name: torch.from_numpy(np.array(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32)) for t in r.tensors}
    model.load_state_dict({k: v.reshape(model.state_dict()[k].shape) for k, v in state.items()})
    return model.eval()


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("checkpoint", type=Path)
    args.add_argument("out", type=Path)
    args = args.parse_args()
    write(args.checkpoint, args.out)
    print(f"{args.out}: {args.out.stat().st_size} bytes")
