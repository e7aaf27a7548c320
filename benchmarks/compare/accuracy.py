#!/usr/bin/env python3
"""Compares the perplexity of a real model in every type of weights with llama.cpp's of the same file.

  cargo build --release -p veritas-cli
  VERITAS_TEST_DATA=FOLDER accuracy.py --peer FOLDER     the peer's folder holds llama-perplexity and llama-quantize
  accuracy.py --peer FOLDER --model FILE                 another llama model in F16

definitions.toml says which types, and how far the two may be apart; stories.py makes the text. The table goes to --out as
accuracy.md and accuracy.json. Python 3.11 or later, and nothing beyond its standard library. Exit status 1 if a row is
further apart, or fails."""
import argparse
import datetime
import json
import os
import re
import sys
import tempfile
import tomllib

import stories
import widen
from engines import Failed, Theirs, run

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# llama-perplexity may end before it has written its last lines. It gets so many stories more, and what it says after the
# chunks that count is not read.
STORIES_AFTER = 30


def main():
    options = arguments()
    with open(os.path.join(HERE, "definitions.toml"), "rb") as file:
        definition = tomllib.load(file)["accuracy"]
    original = options.model or os.path.join(data_folder(), definition["model"]["file"])
    name = os.path.basename(options.model).removesuffix(".gguf") if options.model else definition["model"]["name"]
    with tempfile.TemporaryDirectory() as folder:
        texts = {}
        for whose, n in (("ours", definition["stories"]), ("llama_cpp", definition["stories"] + STORIES_AFTER)):
            texts[whose] = os.path.join(folder, whose + ".txt")
            with open(texts[whose], "w", encoding="ascii") as file:
                file.write(stories.text(n))
        rows = [row(options, definition, entry, original, texts, folder) for entry in planned(definition)]
    facts = {"date": datetime.date.today().isoformat(), "model": name, "n_context": definition["n_context"], "stories": definition["stories"], "difference_max": definition["difference_max"]}
    versions = {"ours": run([options.binary, "--version"]).strip(), "llama_cpp": Theirs(options.peer).version()}
    write(options.out, facts | {"versions": versions, "rows": rows})
    print(summary(rows, definition["difference_max"]))
    sys.exit(any(not row.get("holds") for row in rows))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, metavar="FOLDER", help="where llama.cpp's programs are")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/veritas-sdr"), metavar="FILE")
    parser.add_argument("--model", metavar="FILE", help="a llama model in F16; the one of definitions.toml under VERITAS_TEST_DATA")
    parser.add_argument("--out", default=os.path.join(HERE, "record"), metavar="FOLDER")
    return parser.parse_args()


def data_folder():
    return os.environ.get("VERITAS_TEST_DATA") or sys.exit("set VERITAS_TEST_DATA to the folder of the test data, or give --model")


def planned(definition):
    """All rows: whether the model is widened, the type, and whether the peer makes it."""
    return [
        (entry["widened"], kind, by_peer)
        for entry in definition["rows"]
        for key, by_peer in (("types", False), ("types_of_peer", True))
        for kind in entry.get(key, [])
    ]


def row(options, definition, entry, original, texts, folder):
    widened, kind, by_peer = entry
    found = {"widened": widened, "type": kind, "made_by": "llama.cpp" if by_peer else "us"}
    path = os.path.join(folder, "model.gguf")
    try:
        make(options, entry, original, folder, path)
        found["file_bytes"] = os.path.getsize(path)
        context = str(definition["n_context"])
        ours = json.loads(run([options.binary, "perplexity", "--model", path, "--ctx", context, texts["ours"], "--json"]))
        peer = os.path.join(options.peer, "llama-perplexity")
        theirs = run([peer, "-m", path, "-f", texts["llama_cpp"], "-c", context, "-fa", "on"])
        found["ours"] = ours["perplexity"]
        found["llama_cpp"] = after_chunk(theirs, n_chunks(ours["tokens"], definition["n_context"]))
    except Failed as reason:
        found["failed"] = str(reason)
    found = judge(found, definition["difference_max"])
    print(line(found), flush=True)
    return found


def make(options, entry, original, folder, path):
    """Writes the model of a row to `path`."""
    widened, kind, by_peer = entry
    source = original
    if widened:
        source = os.path.join(folder, "widened.gguf")
        if not os.path.exists(source):
            with open(original, "rb") as file:
                content = widen.widened(file.read())
            with open(source, "wb") as file:
                file.write(content)
    if os.path.exists(path):
        os.remove(path)
    ours = [options.binary, "quantize", source, path, kind]
    run([os.path.join(options.peer, "llama-quantize"), source, path, kind] if by_peer else ours)


def n_chunks(n_scored, n_context):
    """Chunks, from the tokens that were scored: those after the first half of a chunk and one more, which has no prediction."""
    n, rest = divmod(n_scored, n_context // 2 - 1)
    if rest:
        raise Failed(f"{n_scored} scored tokens are no whole chunks of {n_context}")
    return n


def after_chunk(said, n):
    """The perplexity of the first `n` chunks in what llama-perplexity prints: `[1]2.5,[2]3.5,…`."""
    found = re.search(rf"\[{n}\]([0-9.]+),", said)
    if not found:
        raise Failed(f"llama-perplexity states no perplexity after {n} chunks: {said.strip()[-200:]}")
    return float(found[1])


def judge(row, difference_max):
    if "failed" in row:
        return row
    difference = row["ours"] / row["llama_cpp"] - 1
    return row | {"difference": difference, "holds": abs(difference) <= difference_max}


def line(row):
    start = f"| {'widened' if row['widened'] else 'as it is'} | {row['type']} | {row['made_by']} |"
    if "failed" in row:
        return f"{start} | | | failed: {row['failed'].replace('|', '/')} | |"
    figures = f"{row['file_bytes'] / 1e3:.0f} | {row['ours']:.4f} | {row['llama_cpp']:.4f} | {row['difference']:+.3%}"
    return f"{start} {figures} | {'yes' if row['holds'] else 'no'} |"


def summary(rows, difference_max):
    holding = sum(row.get("holds", False) for row in rows)
    return f"{len(rows)} rows, {holding} of them within {difference_max:.1%} of llama.cpp."


def markdown(record):
    return "\n".join([
        "# Accuracy beside llama.cpp",
        "",
        f"Perplexity of {record['model']} in every type, of a text of {record['stories']} short stories in chunks of {record['n_context']} tokens, the second half of each chunk scored; by `veritas-sdr perplexity` and by `llama-perplexity` with flash attention, of the same files. *Widened* is the same model with zeros added, so that its rows are whole blocks of every type; it computes what the original does. TQ2_0 and TQ1_0 are for models that were trained for them; of another one they leave no language.",
        "",
        f"- Measured {record['date']}",
        f"- Ours: {record['versions']['ours']}",
        f"- llama.cpp: {record['versions']['llama_cpp']}",
        "",
        summary(record["rows"], record["difference_max"]),
        "",
        f"| model | type | made by | file, kB | ours | llama.cpp | difference | within {record['difference_max']:.1%} |",
        "|---|---|---|--:|--:|--:|--:|---|",
        *map(line, record["rows"]),
        "",
    ])


def write(folder, record):
    os.makedirs(folder, exist_ok=True)
    for name, text in {"accuracy.json": json.dumps(record, indent=1) + "\n", "accuracy.md": markdown(record)}.items():
        path = os.path.join(folder, name)
        with open(path + ".part", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".part", path)


if __name__ == "__main__":
    main()
