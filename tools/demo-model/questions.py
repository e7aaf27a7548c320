"""The product questions of qa.toml: which wordings are held out, and how training varies the others.

The wordings of qa.toml and wordings.toml are all trained, and so are those that grammar.toml can make.
Those of pool.toml were written before the held-out ones were drawn: 20 of them, at most one an entry, by a
fixed seed, and one more of each entry for development. The others are trained.
"""

import json
import random
import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
N_HELDOUT = 20
HELDOUT_SEED = 20261126

PRODUCT = "Veritas SDR"
NAMES = [PRODUCT] * 12 + ["veritas-sdr", "veritas sdr", "Veritas", "VERITAS SDR", "it", "this program", "the program",
                          "this runtime", "the runtime", "this software", "this tool", "VeritasSDR"]
# Each rule turns a way of asking into others that mean the same.
SYNONYMS = [
    (r"^How do I (.*)\?$", [r"I want to \1.", r"I need to \1.", r"I would like to \1.", r"I am trying to \1.", r"I do not know how to \1.",
                            r"Is there a way to \1?", r"Is there a command to \1?", r"Is it possible to \1?", r"Can I \1?", r"How could I \1?",
                            r"What is the best way to \1?", r"What is the easiest way to \1?", r"What should I do to \1?", r"What do I type to \1?",
                            r"What do I have to do to \1?", r"What do I need to \1?", r"What is needed to \1?", r"Which command lets me \1?",
                            r"Which command do I need to \1?", r"Please show me how to \1.", r"Please explain how to \1.", r"Teach me how to \1.",
                            r"Could you tell me how to \1?", r"Could you explain how to \1?", r"Would you show me how to \1?", r"Do you know how to \1?",
                            r"Any idea how to \1?", r"How can one \1?", r"How can we \1?", r"How do we \1?", r"How do people \1?",
                            r"How would you \1?", r"I'm looking for a way to \1."]),
    (r"^How do I ", ["How can I ", "How should I ", "How would I ", "How does one ", "How do you ", "How to ", "What is the way to ",
                     "Can you tell me how to ", "Tell me how to ", "I want to ", "Explain how to ", "I need to know how to ", "What do I do to ", "What must I do to ",
                     "How might I ", "I would like to ", "Show me how to ", "Which way do I ", "How am I to ", "Help me to "]),
    (r"^How can I ", ["How do I ", "How could I ", "How to ", "Is there a way to "]),
    (r"^Can I (.*)\?$", [r"Is there a way to \1?", r"Will I be able to \1?", r"Does {V} let me \1?", r"Do you let me \1?",
                          r"I want to \1. Is that possible?"]),
    (r"^Is it possible to ", ["Can I ", "Is there a way to ", "Could I "]),
    (r"^Can I ", ["Could I ", "May I ", "Is it possible to ", "Am I able to "]),
    (r"^What is the purpose of (.*)\?$", [r"What is \1 for?", r"What is \1 good for?", r"Why is there \1?", r"What is the use of \1?", r"What does \1 do?"]),
    (r"^What is (.*) for\?$", [r"What is the purpose of \1?", r"What is the use of \1?", r"What is \1 good for?", r"What does \1 do?",
                               r"What do I use \1 for?", r"When do I need \1?", r"When would I use \1?", r"Why would I use \1?"]),
    (r"^What is (.*)\?$", [r"What do you mean by \1?", r"What is meant by \1?", r"What does \1 mean?", r"Tell me about \1.", r"Can you explain \1?",
                           r"Could you explain \1?", r"How would you explain \1?", r"How would you describe \1?", r"How do you define \1?",
                           r"What can you tell me about \1?", r"What should I know about \1?", r"I want to know what \1 is.",
                           r"I do not know what \1 is.", r"Please tell me what \1 is.", r"Do you know what \1 is?", r"Give me a definition of \1.",
                           r"Say what \1 is.", r"\1?"]),
    (r"^What is ", ["What's ", "What exactly is ", "Explain ", "Describe ", "Define ", "Do you know what is ", "What would be ",
                    "Can you tell me what is ", "Tell me what is ", "Please explain ", "Please describe "]),
    (r"^What are ", ["Explain ", "Describe ", "Tell me about ", "What exactly are ", "Tell me what are "]),
    (r"^What does (.*) do\?$", [r"What effect does \1 have?", r"What is the effect of \1?", r"What is the function of \1?", r"What is the job of \1?",
                                r"What can I do with \1?", r"How does \1 work?", r"Describe what \1 does.", r"Explain what \1 does.",
                                r"I do not understand \1.", r"Tell me about \1.", r"What is \1?", r"What is the task of \1?"]),
    (r"^What does (.*) do\?$", [r"What is the purpose of \1?", r"What is \1 for?", r"What is \1 good for?", r"Explain \1.",
                                r"Tell me what \1 does.", r"What happens with \1?", r"When do I use \1?", r"Can you explain \1?"]),
    (r"^What does (.*) mean\?$", [r"What is the meaning of \1?", r"What is meant by \1?", r"Explain \1.", r"Tell me what \1 means."]),
    (r"^Which command (.*)\?$", [r"Is there a command that \1?", r"What is the command that \1?", r"Tell me which command \1.", r"Name the command that \1.",
                                 r"Which of the commands \1?", r"I need the command that \1.", r"I am looking for the command that \1."]),
    (r"^Which flag (.*)\?$", [r"Is there a flag that \1?", r"What is the flag that \1?", r"Tell me which flag \1.", r"Name the option that \1.",
                              r"I need the flag that \1.", r"I am looking for the option that \1.", r"Which argument \1?", r"Which parameter \1?"]),
    (r"^Which command ", ["What command ", "Which subcommand ", "Tell me which command "]),
    (r"^Which flag ", ["What flag ", "Which option ", "What option ", "Which switch "]),
    (r"^Which ", ["What ", "Tell me which "]),
    (r"^Is there (.*)\?$", [r"Does {V} have \1?", r"Does {V} offer \1?", r"Does {V} come with \1?", r"Do I get \1?", r"Can I get \1?", r"Is \1 available?"]),
    (r"^Are there (.*)\?$", [r"Does {V} have \1?", r"Do you have \1?", r"Does {V} offer \1?", r"Are \1 available?", r"Do I get \1?"]),
    (r"^Does \{V\} have (.*)\?$", [r"Is there \1 in {V}?", r"Is there \1?", r"Do you have \1?", r"Has {V} got \1?", r"Does {V} come with \1?",
                                   r"Does {V} offer \1?", r"Does {V} provide \1?", r"Does {V} include \1?"]),
    (r"^Does \{V\} support (.*)\?$", [r"Is \1 supported?", r"Is \1 supported by {V}?", r"Does {V} have support for \1?", r"Do you support \1?",
                                      r"What about \1?", r"Is \1 possible with {V}?"]),
    (r"^(?:Is|Are) (.*) supported\?$", [r"Does {V} support \1?", r"Do you support \1?", r"Does {V} have \1?", r"What about \1?", r"Can I use \1?"]),
    (r"^What happens (?:if|when) (.*)\?$", [r"What if \1?", r"What does {V} do when \1?", r"What will happen if \1?", r"What follows when \1?",
                                            r"Tell me what happens when \1.", r"What is the result when \1?", r"What happens when \1?"]),
    (r"^What if (.*)\?$", [r"What happens if \1?", r"What happens when \1?", r"What does {V} do if \1?"]),
    (r"^How many ", ["What number of ", "Tell me how many ", "Do you know how many "]),
    (r"^How (large|big) ", ["How large ", "How big ", "Tell me how large "]),
    (r"^Who ", ["Tell me who ", "I wonder who "]),
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
    (r"\bmodel file\b", ["model file", "model's file", "GGUF file", "file of a model"]),
    (r"\bconfig(uration)? file\b", ["config file", "configuration file", "settings file", "file with the settings"]),
    (r"\bsettings?\b", ["setting", "option", "value", "settings"]),
    (r"\bexit code\b", ["exit code", "exit status", "return code", "code"]),
    (r"\bgraphics card\b", ["graphics card", "GPU", "video card"]),
    (r"\bcores\b", ["cores", "CPU cores", "processor cores"]),
    (r"\bremove\b", ["remove", "delete", "drop", "take out"]),
    (r"\blist\b", ["list", "show", "enumerate", "name"]),
    (r"\bcheck\b", ["check", "test", "examine", "look at"]),
    (r"\bfind out\b", ["find out", "learn", "discover", "see"]),
    (r"\bmake\b", ["make", "create", "produce", "build"]),
    (r"\bmask\b", ["mask", "hide", "redact", "black out"]),
    (r"\bfast\b", ["fast", "quick"]),
    (r"\bspeed\b", ["speed", "performance", "pace"]),
    (r"\bsmaller\b", ["smaller", "more compact", "less large"]),
    (r"\blonger\b", ["longer", "larger", "bigger"]),
    (r"\bcrash(es)?\b", ["crashes", "dies", "fails", "breaks down"]),
    (r"\bbreak out of\b", ["break out of", "escape from", "get out of", "leave"]),
    (r"\bkept\b", ["kept", "stored", "held", "saved"]),
    (r"\btype\b", ["type", "kind", "enter", "write"]),
    (r"\bclients\b", ["clients", "programs", "applications", "client programs"]),
    (r"\bother users\b", ["other users", "others", "other people", "somebody else"]),
    (r"\btells?\b", ["tells", "says", "shows"]),
    (r"\bprints?\b", ["prints", "writes", "shows", "print"]),
    (r"\bcut\b", ["cut", "truncated", "shortened", "cut off"]),
    (r"\bstory\b", ["story", "tale", "short story"]),
    (r"\brun\b", ["run", "execute", "start"]),
    (r"\bturn on\b", ["turn on", "switch on", "enable", "activate"]),
    (r"\b(turn off|switch off)\b", ["turn off", "switch off", "disable"]),
]
PREFIXES = ["Please tell me: ", "Hi, ", "Hello! ", "Hello, ", "Quick question: ", "I wonder: ", "Tell me, ", "Say, ", "Hey, ", "So, ",
            "One question: ", "Question: ", "Please answer: ", "Excuse me, ", "I would like to know: ", "And ", "Okay, ",
            "I am new here. ", "Sorry, ", "Could you tell me: ", "Can you tell me: ", "Just wondering: ", "Another question: ", "Well, ",
            "Now, ", "Please, ", "My question is: ", "In short: ", "I have a question: ", "A colleague asks: ", "Good morning. "]
SUFFIXES = [" Thanks.", " Please.", " Thank you!", " Answer briefly.", " Be short.", " Tell me.", " please", " Thank you.", " I need to know.", " Do you know?",
            " Any idea?", " I am not sure.", " Please explain.", " In one sentence, please."]
SOME_NAME = re.compile(r"\b(?:%s)\b" % "|".join(sorted({n.lower().replace("-", " ") for n in NAMES}, key=len, reverse=True)))
STOP_WORDS = {"the", "a", "an", "is", "does", "do", "of", "to", "i", "in", "for", "what", "how", "which", "are", "my"}
FILLERS = ["actually", "please", "exactly", "really", "again", "just", "here", "now", "maybe", "then", "usually", "normally", "simply"]
# What the parts of grammar.toml are put into.
FRAMES = {
    "do": ["How do I {}?"] * 6 + ["How can I {}?"] * 4 + ["How to {}?", "how to {}", "How could I {}?", "How would I {}?", "How should I {}?", "How do you {}?",
           "How does one {}?", "How can one {}?", "I want to {}.", "I would like to {}.", "I need to {}.", "I'd like to {}", "I am trying to {}.", "{}", "{}?",
           "Can I {}?", "Can I {}?", "Could I {}?", "May I {}?", "Is it possible to {}?", "Is there a way to {}?", "Is there a command to {}?",
           "Is there an option to {}?", "Which command do I use to {}?", "Which flag do I use to {}?", "What do I type to {}?", "What must I do to {}?",
           "What do I have to do to {}?", "What is the way to {}?", "What is the command to {}?", "What is the option to {}?", "What's the best way to {}?",
           "Tell me how to {}.", "Show me how to {}.", "Explain how to {}.", "Please show me how to {}.", "Can you tell me how to {}?", "Can you show me how to {}?",
           "Could you explain how to {}?", "Do you know how to {}?", "I don't know how to {}", "What if I want to {}?", "Does {V} let me {}?", "Will I be able to {}?",
           "How is it possible to {}?", "Any way to {}?", "Help me {}", "way to {}", "command to {}", "What do I need to {}?", "How do I go about it if I want to {}?"],
    "thing": ["What is {}?"] * 5 + ["What are {}?", "What's {}?", "What does {} do?", "What does {} do?", "What does {} mean?", "What is {} for?", "What is {} good for?",
              "What is {} used for?", "What is the purpose of {}?", "What is the use of {}?", "What is the point of {}?", "What is meant by {}?", "What do you mean by {}?",
              "What exactly is {}?", "Explain {}.", "Explain {} to me.", "Please explain {}.", "Can you explain {}?", "Could you explain {}?", "Can you explain what {} is?",
              "Can you tell me about {}?", "Can you tell me what {} is?", "Tell me about {}.", "Tell me what {} is.", "Tell me more about {}", "Describe {}.", "Define {}.",
              "How does {} work?", "How do I use {}?", "How can I use {}?", "When do I use {}?", "When would I use {}?", "Why would I use {}?", "Why is there {}?",
              "What about {}?", "{}?", "{}", "What can you tell me about {}?", "What should I know about {}?", "I don't understand {}", "I have a question about {}",
              "What happens with {}?", "What effect does {} have?", "Do you know {}?", "Is there {}?", "info on {}", "help with {}", "meaning of {}", "{} explained"],
    "does": ["Does {V} {}?"] * 4 + ["Can {V} {}?", "Will {V} {}?", "Could {V} {}?", "Is {V} able to {}?", "Does {V} ever {}?", "Does {V} really {}?", "Do you {}?",
             "Is it true that {V} does {}?", "Would {V} {}?", "Must {V} {}?", "May {V} {}?", "Can I rely on it that {V} will {}?", "Does the daemon {}?", "Does it {}?"],
    "has": ["Is there {}?"] * 3 + ["Does {V} have {}?", "Does {V} offer {}?", "Does {V} support {}?", "Do you have {}?", "Does {V} come with {}?", "Can I get {}?", "Do I get {}?",
            "What about {}?", "Is {} available?", "Where is {}?", "I am looking for {}", "Has {V} got {}?", "Does {V} provide {}?"],
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def load():
    with open(HERE / "qa.toml", "rb") as f:
        return tomllib.load(f)["qa"]


def expanded(rng, text):
    """One text of a pattern: the first innermost (a|b|) is replaced by one of its choices until none is left."""
    while found := re.search(r"\(([^()]*)\)", text):
        text = text[: found.start()] + rng.choice(found[1].split("|")) + text[found.end() :]
    return re.sub(r" +", " ", text).replace(" ?", "?").strip()


def normal(text):
    """What is left of a wording when case, spacing and punctuation do not count."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def key(text):
    """`normal`, with one name of the product in place of all."""
    return SOME_NAME.sub("v", normal(text.replace("{V}", PRODUCT)))


def split(entries):
    """(trained wordings per entry, held-out pairs, pairs for development)."""
    rng = random.Random(HELDOUT_SEED)
    pool = tomllib.loads((HERE / "pool.toml").read_text())
    further = tomllib.loads((HERE / "wordings.toml").read_text())
    drawn = sorted(rng.sample(range(len(entries)), N_HELDOUT))
    chosen = {i: rng.randrange(len(pool[entries[i]["id"]])) for i in drawn}
    left = {i: [j for j in range(len(pool[e["id"]])) if j != chosen.get(i)] for i, e in enumerate(entries)}
    further_chosen = {i: rng.choice(js) for i, js in left.items() if js}
    pairs = lambda which: [{"id": entries[i]["id"], "question": pool[entries[i]["id"]][j].replace("{V}", PRODUCT), "answer": entries[i]["answer"]}
                           for i, j in which.items()]
    trained = [[*e["wordings"], *further.get(e["id"], []), *(pool[e["id"]][j] for j in left[i] if j != further_chosen.get(i))]
               for i, e in enumerate(entries)]
    return trained, pairs(chosen), pairs(further_chosen)


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
    if rng.random() < 0.6:
        for pattern, others in rng.sample(SYNONYMS, len(SYNONYMS)):
            if rng.random() < 0.5:
                text = re.sub(pattern, rng.choice(others), text, count=1)
    return text


def vary(rng, text):
    """A question as a person might type it: another name of the product, a greeting, a slip, no capitals."""
    text = text.replace("{V}", rng.choice(NAMES))
    dice = rng.random()
    if dice < 0.08:
        kept = [w for w in text.rstrip("?.").split(" ") if w.lower() not in STOP_WORDS]
        if len(kept) > 1:
            text = " ".join(kept)
    elif dice < 0.17:
        text = rng.choice(PREFIXES) + text
    elif dice < 0.22:
        text += rng.choice(SUFFIXES)
    elif dice < 0.28:
        words = text.split(" ")
        words.insert(rng.randrange(len(words)), rng.choice(FILLERS))
        text = " ".join(words)
    elif dice < 0.34:
        # A small word is left out.
        words = text.split(" ")
        small = [i for i, w in enumerate(words) if w.lower() in STOP_WORDS]
        if small:
            del words[rng.choice(small)]
            text = " ".join(words)
    while rng.random() < 0.15:
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
        self.trained, self.heldout, self.development = split(self.entries)
        self.grammar = tomllib.loads((HERE / "grammar.toml").read_text())
        self.banned = {key(h["question"]) for h in [*self.heldout, *self.development]}
        if write:
            (HERE / "heldout.json").write_text(json.dumps(self.heldout, indent=1) + "\n")

    def is_heldout(self, text):
        padded = f" {key(text)} "
        return any(f" {b} " in padded for b in self.banned)

    def composed(self, rng, name):
        """A wording of entry `name` from the grammar; each kind of part is as likely as the number of its patterns."""
        parts = self.grammar[name]
        kind = rng.choices(list(parts), [len(p) for p in parts.values()])[0]
        text = expanded(rng, rng.choice(parts[kind]))
        if kind in FRAMES:
            # Not by `format`: {V} stays.
            text = rng.choice(FRAMES[kind]).replace("{}", text)
        return text[0].upper() + text[1:] if rng.random() < 0.8 else text

    def pair(self, rng):
        """(question, answer). A held-out wording never comes out, nor one that contains it, nor one that
        differs from it in the product's name, in case, in punctuation or by a slip of the keyboard."""
        while True:
            i = rng.randrange(len(self.entries))
            dice = rng.random()
            if dice < 0.5:
                wording = self.composed(rng, self.entries[i]["id"])
            else:
                wording = self.trained[i][0] if dice < 0.53 else rng.choice(self.trained[i])
            plain = rng.random() < 0.2
            base = wording if plain else rephrase(rng, wording)
            if self.is_heldout(base):
                continue
            text = base.replace("{V}", PRODUCT) if plain else vary(rng, base)
            if not self.is_heldout(text):
                return text, self.entries[i]["answer"]
