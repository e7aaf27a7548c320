#!/usr/bin/env python3
"""Write tests/data/tokenizers/tiny/NAME.jsonl: what the tiny vocabularies of tests/data/golden must produce.

    pip install gguf sentencepiece tokenizers
    python3 tools/tokenizer-expectations/generate.py

The ids come from PyPI's tokenizers, built from the vocabulary in the GGUF file and the published pattern of its
pre-tokenizer; the texts are those of tests/data/tokenizers/expected/gpt-2.jsonl. One {"text", "ids"} per line,
without BOS and EOS and with control tokens not parsed.
"""
import json
from pathlib import Path

import gguf
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

DATA = Path(__file__).resolve().parents[2] / "tests/data"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": WORDS % r"\p{N}{1,3}",
    "qwen2": WORDS % r"\p{N}",
}
NAMES = ["gpt2", "llama", "qwen2", "llama_tied", "gemma", "bert"]


def metadata(path):
    fields = gguf.GGUFReader(str(path)).fields
    return {k.removeprefix("tokenizer.ggml."): v.contents() for k, v in fields.items() if k.startswith("tokenizer.")}


def byte_level(m):
    t = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(m["tokens"])},
                             merges=[tuple(x.split(" ", 1)) for x in m["merges"]], ignore_merges=m["pre"] == "llama-bpe"))
    if m["pre"] == "qwen2":
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERNS[m["pre"]]), behavior="isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


def sentencepiece(m):
    """As BPE with byte fallback: the merges are all ways to part a token, in the order of the scores."""
    vocab = {x: i for i, x in enumerate(m["tokens"])}
    plain = [x for x, kind in zip(m["tokens"], m["token_type"]) if kind == 1]
    merges = [(-m["scores"][vocab[x]], vocab[x], (x[:i], x[i:])) for x in plain for i in range(1, len(x))
              if x[:i] in plain and x[i:] in plain]
    t = Tokenizer(models.BPE(vocab=vocab, merges=[x for _, _, x in sorted(merges)], byte_fallback=True, unk_token="<unk>"))
    steps = [normalizers.Replace(" ", "▁")]
    if m.get("add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
    t.normalizer = normalizers.Sequence(steps)
    return t


def word_piece(m):
    def piece(x, kind):
        return x if kind != 1 else x.removeprefix("▁") if x.startswith("▁") else "##" + x
    vocab = {piece(x, kind): i for i, (x, kind) in enumerate(zip(m["tokens"], m["token_type"]))}
    t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return t


def main():
    texts = [json.loads(line)["text"] for line in open(DATA / "tokenizers/expected/gpt-2.jsonl", encoding="utf-8")]
    build = {"gpt2": byte_level, "llama": sentencepiece, "bert": word_piece}
    for name in NAMES:
        m = metadata(DATA / "golden" / name / "model-f16.gguf")
        t = build[m["model"]](m)
        with open(DATA / "tokenizers/tiny" / f"{name}.jsonl", "w", encoding="utf-8") as f:
            for text in texts:
                ids = t.encode(text, add_special_tokens=False).ids
                f.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=False) + "\n")


main()
