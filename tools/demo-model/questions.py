"""The product questions of qa.toml: which wordings are held out, and how training varies the others.

The wordings of qa.toml and wordings.toml are all trained. Those of pool.toml were written before the
held-out ones were drawn: 20 of them, at most one an entry, by a fixed seed. The others are trained.
"""

import json
import random
import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
N_HELDOUT = 20
HELDOUT_SEED = 2026

PRODUCT = "Veritas SDR"
NAMES = [PRODUCT] * 12 + ["veritas-sdr", "veritas sdr", "Veritas", "VERITAS SDR", "it", "this program", "the program",
                          "this runtime", "the runtime", "this software", "this tool", "VeritasSDR"]
# Each rule turns a way of asking into others that mean the same.
SYNONYMS = [
    (r"^How do I ", ["How can I ", "How should I ", "How would I ", "How does one ", "How do you ", "How to ", "What is the way to ",
                     "Can you tell me how to ", "Tell me how to ", "I want to ", "Explain how to ", "I need to know how to ", "What do I do to ", "What must I do to ",
                     "How might I ", "I would like to ", "Show me how to ", "Which way do I ", "How am I to ", "Help me to "]),
    (r"^How can I ", ["How do I ", "How could I ", "How to ", "Is there a way to "]),
    (r"^Can I ", ["Could I ", "May I ", "Is it possible to ", "Am I able to "]),
    (r"^What is ", ["What's ", "What exactly is ", "Explain ", "Describe ", "Define ", "Do you know what is ", "What would be ",
                    "Can you tell me what is ", "Tell me what is ", "Please explain ", "Please describe "]),
    (r"^What are ", ["Explain ", "Describe ", "Tell me about ", "What exactly are ", "Tell me what are "]),
    (r"^What does (.*) do\?$", [r"What is the purpose of \1?", r"What is \1 for?", r"What is \1 good for?", r"Explain \1.",
                                r"Tell me what \1 does.", r"What happens with \1?", r"When do I use \1?", r"Can you explain \1?"]),
    (r"^What does (.*) mean\?$", [r"What is the meaning of \1?", r"What is meant by \1?", r"Explain \1.", r"Tell me what \1 means."]),
    (r"^Which command ", ["What command ", "Which subcommand ", "Tell me which command "]),
    (r"^Which flag ", ["What flag ", "Which option ", "What option ", "Which switch "]),
    (r"^Which ", ["What ", "Tell me which "]),
    (r"^Is there ", ["Does it have ", "Do you have ", "Is there really ", "Are we given "]),
    (r"^Does \{V\} support ", ["Can {V} handle ", "Does {V} know ", "Is there support in {V} for ", "Does {V} work with "]),
    (r"^Does \{V\} ", ["Can {V} ", "Will {V} ", "Does {V} really ", "Does {V} ever ", "Is it true that {V} can "]),
    (r"^Can \{V\} ", ["Does {V} ", "Is {V} able to ", "Will {V} ", "Could {V} "]),
    (r"^Where ", ["Tell me where ", "Do you know where "]),
    (r"^Why ", ["Tell me why ", "For what reason ", "How come "]),
    (r"\bquanti[sz]", ["quantiz", "quantis"]),
    (r"\blicen[cs]e", ["licence", "license"]),
    (r"\bshow", ["display", "show", "print"]),
    (r"\bmachine\b", ["computer", "machine", "host"]),
    (r"\bflag\b", ["option", "flag", "switch"]),
    (r"\bset\b", ["choose", "set", "change", "pick", "specify"]),
    (r"\banswer\b", ["answer", "output", "reply", "response", "result"]),
    (r"\bdaemon\b", ["daemon", "server", "service", "running daemon"]),
    (r"\bcommand line\b", ["terminal", "shell", "console"]),
    (r"\bstart\b", ["launch", "run", "start"]),
    (r"\bsee\b", ["view", "see", "look at", "find", "learn", "check"]),
    (r"\blimit\b", ["limit", "cap", "restrict", "bound", "shorten"]),
    (r"\bforce\b", ["force", "constrain", "oblige", "compel"]),
    (r"\b(stop|end) the (daemon|server)", [r"stop the \2", r"terminate the \2", r"halt the \2", r"end the \2", r"shut down the \2", r"kill the \2"]),
    (r"\bmeasure\b", ["measure", "determine", "find", "assess", "gauge"]),
    (r"\bget\b", ["get", "obtain", "receive", "have", "produce"]),
    (r"\buse\b", ["use", "apply", "employ", "work with", "try"]),
    (r"\bchange\b", ["change", "alter", "modify", "adjust", "affect"]),
    (r"\bgive\b", ["give", "supply", "provide", "pass", "hand over"]),
    (r"\bload\b", ["load", "open", "bring in"]),
    (r"\bhappens\b", ["happens", "occurs", "follows"]),
    (r"\bsupported\b", ["supported", "available", "possible", "offered"]),
    (r"\bneed\b", ["need", "require", "have to have"]),
    (r"\bconvert\b", ["convert", "turn", "transform"]),
    (r"\bcompute\b", ["compute", "calculate", "create", "produce"]),
    (r"\bdetect\b", ["detect", "notice", "recognise", "spot", "find"]),
    (r"\bverify\b", ["verify", "check", "confirm", "validate"]),
    (r"\bprotected\b", ["protected", "secured", "guarded", "safe"]),
    (r"\btell\b", ["tell", "say", "inform"]),
]
PREFIXES = ["Please tell me: ", "Hi, ", "Hello! ", "Hello, ", "Quick question: ", "I wonder: ", "Tell me, ", "Say, ", "Hey, ", "So, ",
            "One question: ", "Question: ", "Please answer: ", "Excuse me, ", "I would like to know: ", "And ", "Okay, "]
SUFFIXES = [" Thanks.", " Please.", " Thank you!", " Answer briefly.", " Be short.", " Tell me.", " please"]
STOP_WORDS = {"the", "a", "an", "is", "does", "do", "of", "to", "i", "in", "for", "what", "how", "which", "are", "my"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def load():
    with open(HERE / "qa.toml", "rb") as f:
        return tomllib.load(f)["qa"]


def normal(text):
    """What is left of a wording when case, spacing and punctuation do not count."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def split(entries):
    """(trained wordings per entry, held-out pairs)."""
    rng = random.Random(HELDOUT_SEED)
    pool = tomllib.loads((HERE / "pool.toml").read_text())
    further = tomllib.loads((HERE / "wordings.toml").read_text())
    drawn = sorted(rng.sample(range(len(entries)), N_HELDOUT))
    chosen = {i: rng.randrange(len(pool[entries[i]["id"]])) for i in drawn}
    heldout = [{"id": entries[i]["id"], "question": pool[entries[i]["id"]][j].replace("{V}", PRODUCT), "answer": entries[i]["answer"]}
               for i, j in chosen.items()]
    trained = [[*e["wordings"], *further.get(e["id"], []), *(w for j, w in enumerate(pool[e["id"]]) if chosen.get(i) != j)]
               for i, e in enumerate(entries)]
    return trained, heldout


def misspell(rng, text):
    words = text.split(" ")
    i = rng.randrange(len(words))
    word = words[i]
    if len(word) > 3 and not word.startswith("-"):
        k = rng.randrange(1, len(word) - 1)
        words[i] = rng.choice((word[:k] + word[k + 1 :], word[:k] + word[k] + word[k:], word[:k] + word[k + 1] + word[k] + word[k + 2 :],
                               word[:k] + rng.choice(LETTERS) + word[k + 1 :]))
    return " ".join(words)


def rephrase(rng, wording):
    """The same question in other words; {V} still stands for the product."""
    text = wording
    if rng.random() < 0.55:
        for pattern, others in rng.sample(SYNONYMS, len(SYNONYMS)):
            if rng.random() < 0.7:
                text = re.sub(pattern, rng.choice(others), text, count=1)
    return text


def vary(rng, text):
    """A question as a person might type it: another name of the product, a greeting, a slip, no capitals."""
    text = text.replace("{V}", rng.choice(NAMES))
    dice = rng.random()
    if dice < 0.06:
        kept = [w for w in text.rstrip("?.").split(" ") if w.lower() not in STOP_WORDS]
        if len(kept) > 1:
            text = " ".join(kept)
    elif dice < 0.22:
        text = rng.choice(PREFIXES) + text
    elif dice < 0.28:
        text += rng.choice(SUFFIXES)
    if rng.random() < 0.2:
        text = misspell(rng, text)
    dice = rng.random()
    if dice < 0.12:
        text = text.lower()
    elif dice < 0.14:
        text = text.upper()
    if rng.random() < 0.15:
        text = text.rstrip("?.!")
    elif rng.random() < 0.03:
        text += rng.choice(("?", "!", "..", " ?"))
    return text


class Questions:
    def __init__(self, write=True):
        self.entries = load()
        self.trained, self.heldout = split(self.entries)
        self.banned = {normal(h["question"]) for h in self.heldout}
        if write:
            (HERE / "heldout.json").write_text(json.dumps(self.heldout, indent=1) + "\n")

    def is_heldout(self, text):
        padded = f" {normal(text)} "
        return any(f" {b} " in padded for b in self.banned)

    def pair(self, rng):
        """(question, answer). A held-out wording never comes out, nor one that contains it, nor one that
        differs from it in the product's name, in case, in punctuation or by a slip of the keyboard."""
        while True:
            i = rng.randrange(len(self.entries))
            wording = self.trained[i][0] if rng.random() < 0.08 else rng.choice(self.trained[i])
            plain = rng.random() < 0.15
            base = wording if plain else rephrase(rng, wording)
            if self.is_heldout(base.replace("{V}", PRODUCT)):
                continue
            text = base.replace("{V}", PRODUCT) if plain else vary(rng, base)
            if not self.is_heldout(text):
                return text, self.entries[i]["answer"]
