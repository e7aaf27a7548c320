#!/usr/bin/env python3
"""Writes crates/veritas-quant/src/tables/data.rs: the tables that are part of the block formats (IQ grids, value tables).

The PyPI package `gguf` (MIT, see NOTICE) publishes them as data; nothing here is typed by hand.
usage: python3 -m venv venv && venv/bin/pip install gguf==0.19.0 && venv/bin/python generate.py [--check]
`--check` compares with the committed file and exits 1 if it differs.
"""
import os
import subprocess
import sys
from math import ceil, log2

import numpy as np
from gguf import quants

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
OUT = os.path.join(ROOT, "crates/veritas-quant/src/tables/data.rs")
GRIDS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S")


def grid(name):
    """One packed grid: an index of `bits` bits a value into the alphabet, the first value in the lowest bits."""
    cls = getattr(quants, name)
    cls.init_grid()
    alphabet = [int(v) for v in cls.grid_map]
    bits = ceil(log2(len(alphabet)))
    rows = cls.grid.reshape(cls.grid_shape).astype(int)
    width = cls.grid_shape[1]
    packed = [sum(alphabet.index(int(v)) << (bits * i) for i, v in enumerate(row)) for row in rows]
    assert max(packed) < 1 << 16
    what = f"The grid of {name}: {len(rows)} rows of {width} values, {bits} bits a value, the first value lowest."
    alphabet_name = f"{name}_ALPHABET"
    return "\n".join((
        f"/// The values that the rows of [`{name}_PACKED`] index.",
        f"pub(super) const {alphabet_name}: [i8; {len(alphabet)}] = [{', '.join(map(str, alphabet))}];",
        f"/// {what}",
        f"pub(super) const {name}_PACKED: [u16; {len(packed)}] = [{', '.join(f'0x{p:04x}' for p in packed)}];",
    ))


def values(name, cls):
    return "\n".join((
        f"/// The value of each 4-bit code of {cls}.",
        f"pub(super) const {name}: [i8; 16] = [{', '.join(str(int(v)) for v in getattr(quants, cls).kvalues)}];",
    ))


def main():
    signs = np.frombuffer(quants.IQ2_XXS.ksigns, np.uint8)
    # The signs of eight values are seven stored bits and their parity; the Rust side computes it.
    assert all(int(s) == i | (bin(i).count("1") & 1) << 7 for i, s in enumerate(signs))
    assert quants.NVFP4.kvalues == quants.MXFP4.kvalues
    text = "\n\n".join((
        "//! Tables of the block formats, written by `tools/gguf-tables/generate.py` from the PyPI package `gguf`\n"
        "//! (MIT, see NOTICE). Do not edit: run the script.",
        values("IQ4_NL_VALUES", "IQ4_NL"), values("MXFP4_VALUES", "MXFP4"), *map(grid, GRIDS))) + "\n"
    text = subprocess.run(["rustfmt", "--edition", "2024", "--config-path", ROOT],
                          input=text, capture_output=True, text=True, check=True).stdout
    if "--check" in sys.argv[1:]:
        sys.exit(0 if open(OUT).read() == text else f"{OUT} differs from the package's data: run generate.py")
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    open(OUT, "w").write(text)


if __name__ == "__main__":
    main()
