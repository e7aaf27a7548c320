"""Compares the tokenizer with the `tokenizers` package: the same vocabulary, the same documents, one thread each.

The package's tokenizer is built from the tokens and merges of the GGUF file and the pre-tokenizer that belongs to its
name. Both give ids for every document, which are compared; then both are timed, each in a process of its own, by the
time of the processor.

    python3 compare.py --binary target/release/tokenizer --text all.txt --model a.gguf b.gguf

It needs the packages `tokenizers` and `numpy`.
"""

import argparse
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST


def metadata(path):
    """The metadata of a GGUF file."""
    with open(path, "rb") as file:
        data = file.read()
    offset = 0

    def take(form):
        nonlocal offset
        values = struct.unpack_from("<" + form, data, offset)
        offset += struct.calcsize("<" + form)
        return values[0]

    def string():
        nonlocal offset
        n = take("Q")
        offset += n
        return data[offset - n:offset].decode()

    numbers = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            kind, n = take("I"), take("Q")
            return [value(kind) for _ in range(n)]
        return take(numbers[kind])

    if data[:4] != b"GGUF":
        sys.exit(f"{path} is no GGUF file")
    offset = 16
    n = take("Q")
    pairs = {}
    for _ in range(n):
        key = string()
        pairs[key] = value(take("I"))
    return pairs


def build(path):
    """The package's tokenizer for a vocabulary."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    data = metadata(path)
    model, name = data["tokenizer.ggml.model"], data.get("tokenizer.ggml.pre")
    tokens = data["tokenizer.ggml.tokens"]
    vocabulary = {}
    for index, token in enumerate(tokens):
        vocabulary.setdefault(token, index)
    if model == "llama":
        # Every way to make a token of two, in the order of the scores.
        scores, merges = data["tokenizer.ggml.scores"], []
        for token, index in vocabulary.items():
            splits = ((token[:at], token[at:]) for at in range(1, len(token)))
            merges += [(-scores[index], split) for split in splits if all(part in vocabulary for part in split)]
        merges.sort(key=lambda merge: merge[0])
        tokenizer = Tokenizer(models.BPE(vocabulary, [pair for _, pair in merges], byte_fallback=True,
                                         unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        return tokenizer
    if model != "gpt2":
        sys.exit(f"{path}: no comparison for the model {model}")
    merges = [tuple(merge.split(" ")) for merge in data["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=name == "llama-bpe"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    rules = {
        "gpt-2": gpt2,
        "llama-bpe": pre_tokenizers.Sequence([split(LLAMA3), byte_level]),
        "qwen2": pre_tokenizers.Sequence([split(QWEN2), byte_level]),
        "starcoder": pre_tokenizers.Sequence([digits, gpt2]),
        "refact": pre_tokenizers.Sequence([digits, gpt2]),
    }
    if name not in rules:
        sys.exit(f"{path}: no comparison for the pre-tokenizer {name}")
    tokenizer.pre_tokenizer = rules[name]
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def read_ids(path, text):
    """Documents and their ids from a file of the program."""
    import numpy

    data = numpy.fromfile(path, dtype="<u4")
    at, done, documents, ids = 0, 0, [], []
    while at < len(data):
        n_bytes, n_ids = data[at:at + 2]
        documents.append(text[done:done + n_bytes].decode())
        ids.append(data[at + 2:at + 2 + n_ids])
        at, done = at + 2 + int(n_ids), done + int(n_bytes)
    return documents, ids


def time_package(model, documents, rounds, results):
    tokenizer = build(model)
    best = 0
    for _ in range(rounds + 1):
        started = time.process_time()
        encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
        seconds = time.process_time() - started
        best = max(best, sum(len(document.encode()) for document in documents) / 1e6 / seconds)
    results.put((best, [encoding.ids for encoding in encodings]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--model", required=True, nargs="+")
    parser.add_argument("--document-bytes", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with open(options.text, "rb") as file:
        text = file.read()

    import tokenizers
    print(f"tokenizers {tokenizers.__version__}, {options.text}: {len(text)} bytes")
    print(f"{'vocabulary':16} {'ids':>9} {'ours MB/s':>10} {'package MB/s':>13} {'ratio':>7}  documents that differ")
    for model in options.model:
        with tempfile.NamedTemporaryFile() as file:
            command = [options.binary, "--model", model, "--text", options.text, "--json", "--ids", file.name,
                       "--rounds", str(options.rounds), "--document-bytes", str(options.document_bytes)]
            ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            documents, ids = read_ids(file.name, text)
        results = multiprocessing.Queue()
        process = multiprocessing.Process(target=time_package, args=(model, documents, options.rounds, results))
        process.start()
        rate, theirs = results.get()
        process.join()
        different = [n for n, (a, b) in enumerate(zip(ids, theirs)) if a.tolist() != b]
        print(f"{ours['vocabulary']:16} {ours['ids']:>9} {ours['best_mb_s']:>10.1f} {rate:>13.1f} "
              f"{ours['best_mb_s'] / rate:>7.1f}  {len(different)} of {len(ids)}")
        for n in different[:3]:
            show(documents[n], ids[n].tolist(), theirs[n])


def show(document, ours, theirs):
    """Where the ids of a document part."""
    at = next((at for at, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    print(f"    after {at} ids: {ours[at:at + 6]} and {theirs[at:at + 6]} in {document[:40]!r}…", file=sys.stderr)


if __name__ == "__main__":
    main()
