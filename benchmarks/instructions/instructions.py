#!/usr/bin/env python3
"""Counts the instructions of the main kernels with callgrind, and holds them to the counts that are committed.

  cargo build --release -p veritas-kernel-benchmarks --bin run-kernels
  instructions.py                 compares; exit status 1 if a kernel executes over 3 % more than counts.json says
  instructions.py --record        writes counts.json anew

A count does not depend on what else the machine does, so that a slower kernel shows where a clock would not. cases.toml
says which kernels are counted: at the portable level and that of AVX2, since valgrind knows no AVX-512. A kernel that
is not in the record fails, and so does one in the record that is not counted any more. Linux on x86-64; valgrind."""
import argparse
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# The share that a kernel may grow by. Counts of the same program repeat to a few instructions.
GROWTH_MAX = 0.03


def main():
    options = arguments()
    if platform.machine() != "x86_64":
        sys.exit("the record is of x86-64, and this is " + platform.machine())
    names = output_of([options.binary, "--cases", options.cases, "--list"]).splitlines()
    found = counts(options, [name for name in names if re.search(options.only, name)])
    facts = {"compiler": output_of(["rustc", "--version"]).strip(), "valgrind": output_of(["valgrind", "--version"]).strip()}
    record = read(options.counts)
    if options.record:
        kept = {name: record["counts"][name] for name in names if name in record["counts"]}
        write(options.counts, facts | {"counts": kept | found}, names)
        print(f"{len(found)} counts written to {options.counts}")
        return
    report = compare(record["counts"], found, [] if options.only else names)
    for name, n in found.items():
        print(line(name, record["counts"].get(name), n))
    print(*summary(report, record, facts), sep="\n")
    sys.exit(bool(report["grown"] or report["new"] or report["gone"]))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/run-kernels"), metavar="FILE")
    parser.add_argument("--cases", default=os.path.join(HERE, "cases.toml"), metavar="FILE")
    parser.add_argument("--counts", default=os.path.join(HERE, "counts.json"), metavar="FILE")
    parser.add_argument("--only", default="", metavar="REGEX", help="kernels whose `LEVEL NAME` has a match; others keep their counts")
    parser.add_argument("--record", action="store_true", help="write what was counted, instead of comparing")
    return parser.parse_args()


def output_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not there" + (": install valgrind" if command[0] == "valgrind" else ""))
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def counts(options, names):
    """The instructions of one call of each kernel. A level is one run of the program."""
    found = {}
    for level, group in itertools.groupby(names, key=lambda name: name.split()[0]):
        kernels = [name.removeprefix(level + " ") for name in group]
        with tempfile.TemporaryDirectory() as folder:
            # A profile is written where counting ends, and the counter starts at zero where it begins.
            watch = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/profile"]
            watch += ["--zero-before=*::counting_begins*", "--dump-before=*::counting_ends*"]
            output_of(watch + [options.binary, "--cases", options.cases, "--isa", level, *kernels])
            for i, kernel in enumerate(kernels):
                with open(f"{folder}/profile.{i + 1}") as file:
                    found[f"{level} {kernel}"] = total_of(file.read())
    return found


def total_of(profile):
    """The sum that a profile of callgrind states, of a stretch that ends where counting does."""
    if not re.search(r"^desc: Trigger: --dump-before=.*counting_ends", profile, re.MULTILINE):
        raise ValueError("the profile does not end where counting ends")
    return int(re.search(r"^(?:summary|totals): (\d+)", profile, re.MULTILINE)[1])


def read(path):
    if not os.path.exists(path):
        return {"counts": {}}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write(path, record, order):
    """Writes a record with its counts in the order of the cases, so that two records are easily compared."""
    ordered = {name: record["counts"][name] for name in order if name in record["counts"]}
    with open(path + ".part", "w", encoding="utf-8") as file:
        json.dump(record | {"counts": ordered}, file, indent=1)
        file.write("\n")
    os.replace(path + ".part", path)


def compare(recorded, found, names):
    """What is wrong, as lists of names: `grown` by more than it may, `new` without a count, and of `shrunk`, which is no
    fault, those whose gain the record would let go again. `gone` are counts that `names`, all kernels, has no kernel of."""
    known = [name for name in found if name in recorded]
    return {
        "grown": [name for name in known if found[name] > recorded[name] * (1 + GROWTH_MAX)],
        "shrunk": [name for name in known if found[name] < recorded[name] * (1 - GROWTH_MAX)],
        "new": [name for name in found if name not in recorded],
        "gone": [name for name in recorded if names and name not in names],
    }


def summary(report, record, facts):
    words = {
        "grown": f"execute over {GROWTH_MAX:.0%} more than the record says",
        "new": "have no count in the record",
        "gone": "are in the record and were not counted",
        "shrunk": f"execute over {GROWTH_MAX:.0%} less than the record says, which is no fault",
    }
    lines = [f"{len(report[kind])} {text}" + "".join(f"\n  {name}" for name in report[kind]) for kind, text in words.items() if report[kind]]
    lines += [f"the {name} of the record is {record.get(name)}, this is {value}" for name, value in facts.items() if record.get(name) != value]
    if any(report.values()):
        lines.append("If the counts are as they should be, record them: benchmarks/instructions/instructions.py --record")
    return lines or ["every kernel executes what the record says"]


def line(name, before, now):
    change = f"{now / before - 1:+8.2%}" if before else "     new"
    return f"{name:48s} {now:10d} {change}"


if __name__ == "__main__":
    main()
