#!/usr/bin/env python3
"""Writes crates/veritas-sandbox/src/syscalls/data.rs: the numbers of Linux's system calls on x86-64 and AArch64.

They are read from the crate `linux-raw-sys`, which generates them from the kernel's headers; nothing is typed by hand.
usage: generate.py FOLDER [--check]
FOLDER is the crate's source, for example ~/.cargo/registry/src/*/linux-raw-sys-0.12.1.
`--check` compares with the committed file and exits 1 if it differs.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
OUT = os.path.join(ROOT, "crates/veritas-sandbox/src/syscalls/data.rs")


def numbers(folder, arch):
    text = open(os.path.join(folder, "src", arch, "general.rs")).read()
    found = re.findall(r"pub const __NR_(\w+): u32 = (\d+);", text)
    # A count of the calls, not a call.
    return {name: int(number) for name, number in found if name != "syscalls"}


def optional(number):
    return "None" if number is None else f"Some({number})"


def main():
    folder = sys.argv[1]
    x86_64, aarch64 = numbers(folder, "x86_64"), numbers(folder, "aarch64")
    rows = [f'    ("{name}", {optional(x86_64.get(name))}, {optional(aarch64.get(name))}),'
            for name in sorted(x86_64.keys() | aarch64.keys())]
    text = "\n".join((
        "//! The system calls of Linux, written by `tools/syscall-table/generate.py` from the crate `linux-raw-sys`\n"
        "//! (see NOTICE). Do not edit: run the script. generated",
        "",
        "/// Name, number on x86-64, number on AArch64; sorted by name.",
        f"pub(super) const SYSCALLS: [(&str, Option<u32>, Option<u32>); {len(rows)}] = [",
        *rows,
        "];")) + "\n"
    text = subprocess.run(["rustfmt", "--edition", "2024", "--config-path", ROOT],
                          input=text, capture_output=True, text=True, check=True).stdout
    if "--check" in sys.argv[2:]:
        sys.exit(0 if open(OUT).read() == text else f"{OUT} differs from the crate's data: run generate.py")
    open(OUT, "w").write(text)


main()
