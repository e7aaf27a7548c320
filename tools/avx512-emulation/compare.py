#!/usr/bin/env python3
"""Compares what veritas-sdr computes with AVX-512, in the emulator, with what it computes on this processor, bit for bit.

usage: compare.py [--binary FILE] [--built-in] [--timeout SECONDS] [--flags FLAGS]... [FOLDER]...

FOLDER is one of the folders of the golden test data ($VERITAS_TEST_DATA/golden/llama and so on): its model-f16.gguf is
given the token ids of its logits.safetensors. --built-in compares the built-in model: its logits, and a story that is
drawn from them. Each set of FLAGS is a case of its own, for `logits`, for instance '--cache-type-k q8_0 --prefill-chunk 5';
the default is '--cache-type-k f32 --cache-type-v f32'. Ends with the number of cases that are equal, and with 1 if one
is not."""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
F32_CACHE = "--cache-type-k f32 --cache-type-v f32"
# Where a program's standard output can be opened as a file.
STDOUT = "/proc/self/fd/1"
STORY = ["run", "--raw", "Once upon a time", "--seed", "7", "--temp", "0.8", "-n", "120", "--logprobs", "3", "--json"]
# Fields of the story that are computed; the others are times and names.
COMPUTED = ("ids", "logprobs", "top_logprobs", "text", "prompt_ids", "finish_reason", "usage")


def tensors(data):
    """The tensors of a safetensors file as (type, shape, bytes)."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    base = 8 + length
    return {
        name: (t["dtype"], t["shape"], data[base + t["data_offsets"][0] : base + t["data_offsets"][1]])
        for name, t in header.items()
        if name != "__metadata__"
    }


def golden_ids(folder):
    """The lists of token ids of a golden folder: the short ones, then the long one."""
    with open(os.path.join(folder, "logits.safetensors"), "rb") as file:
        golden = tensors(file.read())
    lists = []
    for name in ("tokens", "tokens_long"):
        kind, (rows, columns), data = golden[name]
        ids = struct.unpack(f"<{rows * columns}{ {'I32': 'i', 'I64': 'q', 'U32': 'I'}[kind] }", data)
        lists += [list(ids[row * columns : (row + 1) * columns]) for row in range(rows)]
    return lists


class Failed(Exception):
    """A program did not end well."""


def output(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise Failed(f"exit {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
    return done.stdout


def both(options, arguments, include):
    """What the binary writes to its standard output here, and what it writes in the emulator with AVX-512."""
    here = output([options.binary, *arguments])
    emulator = [os.path.join(HERE, "run.sh"), "--timeout", str(options.timeout)]
    for path in include:
        emulator += ["--include", path]
    return here, output([*emulator, options.binary, *arguments, "--isa", "avx512"])


def same_logits(options, arguments, include):
    here, emulated = (tensors(data) for data in both(options, arguments, include))
    if not here or any(not data for _, _, data in here.values()):
        raise Failed("no logits")
    values = sum(len(data) // 4 for _, _, data in here.values())
    return here == emulated, f"{values} logits"


def same_story(options):
    here, emulated = (json.loads(data) for data in both(options, STORY, []))
    if emulated["effective"]["isa"] != "avx512":
        raise Failed(f"the emulator used {emulated['effective']['isa']}")
    same = all(here[field] == emulated[field] for field in COMPUTED)
    return same, f"{len(here['ids'])} tokens with their log-probabilities"


def cases(options, work):
    """(name, function that compares) of each case."""
    for folder in options.folders:
        name = os.path.basename(os.path.normpath(folder))
        model = os.path.abspath(os.path.join(folder, "model-f16.gguf"))
        ids = os.path.join(work, f"{name}.json")
        with open(ids, "w") as file:
            json.dump(golden_ids(folder), file)
        for flags in options.flags:
            arguments = ["logits", "--quiet", "--model", model, "--ids-file", ids, "--out", STDOUT, *flags.split()]
            yield f"{name} {flags}", lambda a=arguments, i=(model, ids): same_logits(options, a, i)
    if options.built_in:
        prompt = output([options.binary, *STORY[:-2], "0", "--json", "-n", "64"])
        story = json.loads(prompt)
        ids = ",".join(map(str, story["prompt_ids"] + story["ids"]))
        for flags in options.flags:
            arguments = ["logits", "--quiet", "--ids", ids, "--out", STDOUT, *flags.split()]
            yield f"built-in model {flags}", lambda a=arguments: same_logits(options, a, [])
        yield "built-in model, a story", lambda: same_story(options)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="*")
    parser.add_argument("--binary", default="target/release/veritas-sdr")
    parser.add_argument("--built-in", action="store_true")
    parser.add_argument("--timeout", type=int, default=3600)
    parser.add_argument("--flags", action="append")
    options = parser.parse_args()
    options.flags = options.flags or [F32_CACHE]
    equal = unequal = 0
    with tempfile.TemporaryDirectory(prefix="avx512-compare-") as work:
        for name, compare in cases(options, work):
            began = time.monotonic()
            try:
                same, what = compare()
            except Failed as failure:
                same, what = False, str(failure)
            equal, unequal = equal + same, unequal + (not same)
            print(f"{'equal' if same else 'UNEQUAL'}: {name}: {what} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{equal} of {equal + unequal} cases equal")
    sys.exit(0 if equal and not unequal else 1)


if __name__ == "__main__":
    main()
