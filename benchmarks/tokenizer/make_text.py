"""Makes the text on which the speed of the tokenizer is measured: prose in many scripts, code and JSON.

Prose and code are what is installed on this machine: the translations of programs (gettext catalogues), manual pages
and documentation, and the sources of Python, Perl, Rust and C. JSON records are made of their words and of random
numbers. A line of 24 characters or more comes once and never again, so that no encoder profits from a text that
repeats; shorter lines may come again, since code without its closing brackets is no code.

The text depends on what is installed. The same machine and seed give the same bytes; the script prints their digest.

    python3 make_text.py DIRECTORY [--megabytes 24] [--seed 1]

It writes one file for each part and `all.txt`, in which documents of all parts stand in a random order.
"""

import argparse
import gettext
import glob
import gzip
import hashlib
import json
import os
import random
import re
import sys
import sysconfig

# Parts of the whole, in percent.
SHARES = {"english": 21, "latin": 17, "cyrillic": 10, "cjk": 12, "scripts": 8, "code": 20, "json": 12}

LANGUAGES = {
    "latin": ["de", "fr", "es", "pl", "tr", "vi", "it", "pt", "nl", "sv", "cs", "fi", "hu"],
    "cyrillic": ["ru", "uk", "el", "bg", "sr"],
    "cjk": ["zh_CN", "ja", "zh_TW", "ko"],
    "scripts": ["ar", "he", "fa", "hi", "th", "bn", "ta", "ka"],
}

LINE_MIN = 24
DOCUMENT_BYTES = 16384


class Once:
    """Lets each long line through once."""

    def __init__(self):
        self.seen = set()

    def lines(self, text):
        for line in text.splitlines():
            line = line.rstrip()
            key = line.strip()
            if len(key) >= LINE_MIN:
                digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
                if digest in self.seen:
                    continue
                self.seen.add(digest)
            yield line


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def translations(language):
    """The texts of all catalogues of a language, each message a line or more."""
    for path in sorted(glob.glob(f"/usr/share/locale/{language}/LC_MESSAGES/*.mo")):
        try:
            with open(path, "rb") as file:
                catalogue = gettext.GNUTranslations(file)
        except (OSError, UnicodeDecodeError, ValueError):
            continue
        for source, text in sorted(catalogue._catalog.items(), key=str):
            if source and isinstance(text, str) and text != source:
                yield text


ROFF = re.compile(r"\\f[A-Z]|\\f\(..|\\-|\\&|\\\(..|\\e")


def manual(text):
    """The words of a manual page without its requests."""
    lines = (line for line in text.splitlines() if not line.startswith((".", "'")))
    return ROFF.sub("", "\n".join(lines))


def files(patterns, rng):
    paths = sorted({path for pattern in patterns for path in glob.glob(pattern, recursive=True)})
    rng.shuffle(paths)
    return paths


def english(rng):
    documents = files(["/usr/share/man/man*/*.gz", "/usr/share/info/*.gz", "/usr/share/doc/**/*.gz",
                       "/usr/share/doc/**/*.txt", "/usr/share/perl/**/*.pod"], rng)
    for path in documents:
        if "change" in os.path.basename(path).lower():
            continue
        text = read(path)
        yield manual(text) if "/man/" in path else text


def prose(languages, rng):
    """Languages in turns."""
    sources = [translations(language) for language in languages]
    while sources:
        source = rng.choice(sources)
        batch = [text for _, text in zip(range(60), source)]
        if batch:
            yield "\n".join(batch)
        else:
            sources.remove(source)


def code(rng):
    registry = os.path.expanduser(os.environ.get("CARGO_HOME", "~/.cargo")) + "/registry/src"
    library = sysconfig.get_paths()["stdlib"]
    kinds = [files([f"{library}/**/*.py", "/usr/lib/python3/**/*.py"], rng),
             files([f"{registry}/**/src/**/*.rs"], rng),
             files(["/usr/share/perl/**/*.pm"], rng),
             files(["/usr/include/**/*.h", f"{library}/../../include/**/*.h"], rng)]
    while any(kinds):
        for kind in kinds:
            if kind:
                yield read(kind.pop())


def records(words, rng):
    """Records as programs exchange them."""
    def phrase(n):
        return " ".join(rng.choice(words) for _ in range(rng.randint(2, n)))

    def value(depth):
        kind = rng.randrange(9 if depth else 7)
        if kind == 0:
            return rng.randrange(10 ** rng.randint(1, 9))
        if kind == 1:
            return round(rng.gauss(0, 100), rng.randint(1, 6))
        if kind == 2:
            return rng.choice([True, False, None])
        if kind == 3:
            return "%08x-%04x-%04x" % (rng.getrandbits(32), rng.getrandbits(16), rng.getrandbits(16))
        if kind == 4:
            return "20%02d-%02d-%02dT%02d:%02d:%02dZ" % tuple(
                rng.randint(a, b) for a, b in [(10, 29), (1, 12), (1, 28), (0, 23), (0, 59), (0, 59)])
        if kind in (5, 6):
            return phrase(18)
        if kind == 7:
            return [value(depth - 1) for _ in range(rng.randint(1, 5))]
        return record(depth - 1)

    def record(depth):
        return {"_".join(rng.choice(words).lower() for _ in range(rng.randint(1, 2))): value(depth)
                for _ in range(rng.randint(3, 9))}

    while True:
        yield json.dumps(record(3), ensure_ascii=False, indent=rng.choice([None, None, 2, 4]))


def fill(n_bytes, texts, once):
    """Documents of about DOCUMENT_BYTES that are n_bytes together."""
    documents, lines, size = [], [], 0
    for text in texts:
        for line in once.lines(text):
            lines.append(line)
            size += len(line.encode()) + 1
            if size >= DOCUMENT_BYTES or n_bytes <= size:
                documents.append("\n".join(lines) + "\n")
                n_bytes -= size
                lines, size = [], 0
                if n_bytes <= 0:
                    return documents
    documents.append("\n".join(lines) + "\n")
    return documents


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--megabytes", type=float, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.makedirs(options.directory, exist_ok=True)

    once, every = Once(), []
    words = []
    for part, share in SHARES.items():
        rng = random.Random(f"{options.seed} {part}")
        n_bytes = int(options.megabytes * 1e6 * share / 100)
        texts = {"english": english, "code": code}.get(part)
        if part == "json":
            texts = records(words, rng)
        elif texts:
            texts = texts(rng)
        else:
            texts = prose(LANGUAGES[part], rng)
        documents = fill(n_bytes, texts, once)
        if part in ("english", "latin"):
            words += re.findall(r"[^\W\d_]{2,}", "".join(documents))
        every += documents
        write(options.directory, part, documents)
        got = sum(len(document.encode()) for document in documents)
        if got < 0.98 * n_bytes:
            print(f"note: only {got} of {n_bytes} bytes of {part} are installed here", file=sys.stderr)
    random.Random(f"{options.seed} order").shuffle(every)
    write(options.directory, "all", every)


def write(directory, name, documents):
    data = "".join(documents).encode()
    with open(os.path.join(directory, name + ".txt"), "wb") as file:
        file.write(data)
    print(f"{name:10} {len(data):>10} bytes  sha256 {hashlib.sha256(data).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
