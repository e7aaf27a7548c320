#!/usr/bin/env python3
"""Measures veritas-sdr beside llama.cpp, and both beside what the machine can do at most.

  cargo build --release -p veritas-cli -p veritas-benchmarks
  compare.py --peer FOLDER                 FOLDER holds llama-bench and llama-batched-bench
  compare.py --peer FOLDER --quick --only 'qwen.*Q4_0 pp512'

definitions.toml says what is measured. Models that are missing are made first, with random weights. The record goes to
--out as record.md, record.json and record.svg, after every row anew, so that a run that is cut short leaves one.
Linux; Python 3.11 or later, and nothing beyond its standard library. Exit status 1 if a row fails or falls short."""
import argparse
import datetime
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib

import machine
import plot
import record as records
from engines import SETTINGS, Failed, Ours, Theirs

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def main():
    options = arguments()
    with open(os.path.join(HERE, "definitions.toml"), "rb") as file:
        definitions = tomllib.load(file)
    with open(os.path.join(HERE, "shapes.toml"), "rb") as file:
        shapes = {shape["name"]: shape for shape in tomllib.load(file)["shape"]}
    plan = [entry for entry in planned(definitions) if re.search(options.only, title(*entry))]
    if not plan:
        sys.exit(f"no row matches {options.only!r}")
    run = Run(options, definitions, shapes)
    for (shape, kind), entries in itertools.groupby(plan, key=lambda entry: entry[:2]):
        run.model(shape, kind, [(test, threads) for _, _, test, threads in entries])
    rows = run.record()["rows"]
    print(records.summary(rows))
    sys.exit(any(row["verdict"] in ("short", "failed") for row in rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="FOLDER", help="where llama.cpp's programs are, built for this machine")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/veritas-sdr"))
    parser.add_argument("--make-model", default=os.path.join(ROOT, "target/release/make-model"), metavar="FILE")
    parser.add_argument("--models", default=os.path.join(ROOT, "target/benchmark-models"), metavar="FOLDER", help="where models are made and kept")
    parser.add_argument("--out", default=os.path.join(HERE, "record"), metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose `SHAPE TYPE TEST THREADS` has a match")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--quick", action="store_true", help="one round of one repetition: shows that everything runs")
    parser.add_argument("--keep", action="store_true", help="go on with the record in --out, of the same machine, versions and rounds: measure what is missing, failed or disturbed")
    return parser.parse_args()


def planned(definitions):
    """All rows that are defined, in their order: shape, type, test, threads."""
    plan = []
    for model in definitions["model"]:
        for kind in model["types"]:
            for test in definitions["test"]:
                if kind not in test.get("except_types", []):
                    plan += [(model["shape"], kind, test, threads) for threads in test["threads"]]
    return plan


def title(shape, kind, test, threads):
    return f"{shape} {kind} {test['name']} {threads}"


def cache_bytes_per_token(shape):
    """Keys and values of one token in all layers, in F16."""
    return 2 * 2 * shape["n_layers"] * shape["n_kv_heads"] * shape["head_dim"]


class Run:
    """A run, and what it has found so far."""

    def __init__(self, options, definitions, shapes):
        self.options, self.definitions, self.shapes = options, definitions, shapes
        self.ours, self.theirs = Ours(options.binary), Theirs(options.peer)
        self.quick = definitions["quick"] if options.quick else {}
        self.rounds = options.rounds or self.quick.get("rounds", definitions["run"]["rounds"])
        self.rows, self.bench_rows = [], []
        self.facts = {
            "machine": machine.describe(),
            "versions": {"ours": self.ours.version(), "commit": commit(), "llama_cpp": self.theirs.version()},
            "rounds": self.rounds,
            "quick": options.quick,
            "others_max": definitions["run"]["others_max"],
        }
        if options.keep:
            self.take_up()

    def take_up(self):
        """Begins with the rows of the record that is there, if it is one of the same machine and the same programs."""
        path = os.path.join(self.options.out, "record.json")
        if not os.path.exists(path):
            return
        with open(path) as file:
            before = json.load(file)
        for name, value in self.facts.items():
            if before.get(name) != value:
                sys.exit(f"{path} cannot be continued: its {name} is {before.get(name)}, not {value}")
        self.rows = [row for row in before["rows"] if not row.get("disturbed", True)]
        self.bench_rows = before["bench_rows"]

    def model(self, shape, kind, entries):
        """Measures rows of one model."""
        done = {(row["shape"], row["type"], row["test"], row["threads"]) for row in self.rows}
        entries = [(test, threads) for test, threads in entries if (shape, kind, test["name"], threads) not in done]
        if not entries:
            return
        path = self.file(shape, kind)
        warm(path)
        model = {"shape": shape, "type": kind, "file_bytes": os.path.getsize(path), "path": path}
        self.measure_limits(model)
        for test, threads in entries:
            self.rows.append(self.row(model, test, threads))
            self.write()
            print(records.row_line(self.judge(self.rows[-1])), flush=True)

    def row(self, model, test, threads):
        repetitions = self.quick.get("repetitions", test["repetitions"])
        arguments = model["path"], test, threads, repetitions
        ours, theirs = [], {}
        others = machine.Others()
        try:
            for n in range(self.rounds):
                ours.append(self.measure_ours(arguments))
                settings = SETTINGS if n == 0 else records.settings_to_keep(theirs, test["kind"], self.definitions["run"]["setting_margin"])
                for setting in settings:
                    found = getattr(self.theirs, test["kind"])(*arguments, SETTINGS[setting])
                    theirs.setdefault(setting, []).append(found["value"])
        except Failed as reason:
            return records.failed_row(model, test, threads, str(reason))
        busy = others.lap()
        row = records.row_of(model, test, threads, ours, theirs, busy)
        return row | {"disturbed": busy > self.definitions["run"]["others_max"]}

    def measure_ours(self, arguments):
        found = getattr(self.ours, arguments[1]["kind"])(*arguments)
        if "row" in found:
            self.keep_limits([found["row"]])
        return found

    def measure_limits(self, model):
        """The limits by one thread and by all numbers of threads, before the rows that are held against them."""
        counts = sorted({1} | {n for test in self.definitions["test"] for n in test["threads"]})
        rows = self.ours.bench(model["path"], {"prompt": 1, "generate": 1}, ",".join(map(str, counts)), 1)
        self.keep_limits(rows)

    def keep_limits(self, rows):
        names = ("isa", "threads", "test", "read_bytes_s_max", "operations_s_max", "arithmetic")
        self.bench_rows += [{name: row[name] for name in names} for row in rows]

    def file(self, shape, kind):
        """The path of a model; it is made if it is missing."""
        os.makedirs(self.options.models, exist_ok=True)
        original = os.path.join(self.options.models, f"{shape}-F16.gguf")
        path = os.path.join(self.options.models, f"{shape}-{kind}.gguf")
        if not os.path.exists(original) and not os.path.exists(path):
            make(original, [self.options.make_model, shape, original])
        if not os.path.exists(path):
            make(path, [self.options.binary, "quantize", original, path, kind])
        return path

    def record(self):
        """Everything that was found, with verdicts: by the limits as they are known now."""
        order = [(shape, kind, test["name"], threads) for shape, kind, test, threads in planned(self.definitions)]
        place = lambda row: order.index((row["shape"], row["type"], row["test"], row["threads"]))
        return self.facts | {
            "date": datetime.date.today().isoformat(),
            "isa": self.bench_rows[0]["isa"],
            "limits": records.limits_of(self.bench_rows),
            "rows": [self.judge(row) for row in sorted(self.rows, key=place)],
            "bench_rows": self.bench_rows,
        }

    def judge(self, row):
        test = next(test for test in self.definitions["test"] if test["name"] == row["test"])
        cache_bytes = cache_bytes_per_token(self.shapes[row["shape"]])
        return records.judge(row, test, records.limits_of(self.bench_rows), self.definitions["run"]["two_threads_min"], cache_bytes)

    def write(self):
        os.makedirs(self.options.out, exist_ok=True)
        found = self.record()
        texts = {"record.json": json.dumps(found, indent=1) + "\n", "record.md": records.markdown(found), "record.svg": plot.svg(found)}
        for name, text in texts.items():
            path = os.path.join(self.options.out, name)
            with open(path + ".part", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(path + ".part", path)


def make(path, command):
    print(f"making {path}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")


def warm(path):
    """Reads a file once, so that the system holds it in memory before anybody is measured."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(1 << 24)
        while file.readinto(buffer):
            pass


def commit():
    """The commit of this tree, and whether something was changed since."""
    ask = lambda *words: subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    head = ask("rev-parse", "--short=12", "HEAD")
    if head.returncode:
        return "not known"
    is_changed = ask("status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.toml", "Cargo.lock").stdout.strip()
    return head.stdout.strip() + (" with changes" if is_changed else "")


if __name__ == "__main__":
    try:
        main()
    except Failed as reason:
        sys.exit(str(reason))
