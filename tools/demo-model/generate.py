"""Writes the tokenizer and the training text.

    python generate.py OUT --tokens 16000000 --seed 1

OUT/train.bin and OUT/val.bin hold little-endian u16 values: token ids, with bit 15 set where no
loss is taken (what the user says: the model has only to read it). OUT/docs*.idx holds, as u32, the
offset at which each document begins. The tokenizer is tokenizer.json
beside this script; it is made anew only if it is not there.
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tasks
import world
from questions import HERE, Questions

N_VOCAB = 1024
SPECIALS = ["<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
NO_LOSS = 0x8000
# The pre-tokeniser that GGUF calls "qwen2": digits stand alone, which makes numbers easy to copy.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TOKENIZER = HERE / "tokenizer.json"
# Names that the world does not know.
STRANGERS = ["Greta", "Ivan", "Sofia", "Pavel", "Marta", "Leo", "Zoe", "Felix", "Alma", "Viktor", "Hanna", "Simon", "Rosa", "Theo", "Vera",
             "Anton", "Julia", "David", "Maja", "Peter", "Linda", "Oliver", "Agnes", "Robert", "Selma", "Gustav", "Iris", "Samuel", "Berta", "Ulrich"]


def train_tokenizer(questions):
    """Byte-level BPE: all 256 bytes are in the vocabulary, so that every text has exact ids."""
    rng = random.Random(100)
    texts = [world.story(rng) for _ in range(1500)]
    texts += [answer for e in questions.entries for answer in [e["answer"]] * 25]
    texts += [questions.pair(rng)[0] for _ in range(8000)]
    texts += [tasks.anything(rng) for _ in range(1000)] + [tasks.UNKNOWN, tasks.GREETING] * 20
    texts += [" ".join(tasks.WORDS)] * 8
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=N_VOCAB - len(SPECIALS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.add_special_tokens(SPECIALS)
    assert tokenizer.get_vocab_size() == N_VOCAB
    tokenizer.save(str(TOKENIZER))
    return tokenizer


class Writer:
    def __init__(self, tokenizer, questions, more_questions=0.0):
        self.encode_text = tokenizer
        self.ids = {s: tokenizer.token_to_id(s) for s in SPECIALS}
        self.questions = questions
        self.more_questions = more_questions
        self.openings = set(world.evaluation_openings(20))
        self.cache = {}

    def text(self, text):
        if len(text) > 200:
            return self.encode_text.encode(text, add_special_tokens=False).ids
        found = self.cache.get(text)
        if found is None:
            found = self.encode_text.encode(text, add_special_tokens=False).ids
            if len(self.cache) < 50000:
                self.cache[text] = found
        return found

    def raw(self, text):
        ids = self.text(text)
        return [self.ids["<|bos|>"] | NO_LOSS] + ids + [self.ids["<|eos|>"]]

    def story(self, rng):
        """A story. In a third of them the hero has a name that no list holds, so that it must be read from the opening."""
        hero = world.Person(rng, ())
        if stranger := rng.random() < 0.33:
            hero.name = rng.choice(STRANGERS) if rng.random() < 0.4 else tasks.nonsense(rng).capitalize()
        begun, name_first = rng.random() < 0.35, rng.random() < 0.2
        while True:
            story = world.tell(rng, hero)
            # At the beginning of a text a name has other tokens than after a space, so a third of the beginnings do begin so.
            if story.parts[0] not in self.openings and (not (begun and name_first) or story.parts[0].startswith(hero.name)):
                break
        if begun:
            # Only its beginning, without an end: where a hero is named again for the first time, names are lost most easily.
            text = world.tidy(" ".join(story.parts[: rng.randint(2, 5)]))
            return self.begun(story.parts[0], text)
        text = world.tidy(story.text())
        return self.begun(story.parts[0], text) + [self.ids["<|eos|>"]] if stranger else self.raw(text)

    def begun(self, opening, text):
        """A text whose opening is given, as a prompt would be: no loss is taken there."""
        given = [i | NO_LOSS for i in [self.ids["<|bos|>"], *self.text(opening)]]
        return given + self.text(text[len(opening) :])

    def chat(self, turns, system=None):
        s = self.ids
        out = [s["<|bos|>"] | NO_LOSS]
        if system:
            out += [i | NO_LOSS for i in [s["<|system|>"], *self.text(system), s["<|end|>"]]]
        for user, assistant in turns:
            out += [i | NO_LOSS for i in [s["<|user|>"], *self.text(user), s["<|end|>"], s["<|assistant|>"]]]
            out += [*self.text(assistant), s["<|end|>"]]
        # A program that knows only the end of text and not the end of a turn stops too.
        out.append(s["<|eos|>"])
        return out

    def turn(self, rng):
        dice = rng.random()
        if dice < 0.55:
            return self.questions.pair(rng)
        if dice < 0.70:
            return tasks.copy(rng)
        if dice < 0.79:
            return rng.choice(tasks.EXTRACT)(rng)
        if dice < 0.88:
            return rng.choice(tasks.EDIT)(rng)
        return tasks.unknown(rng) if dice < 0.96 else tasks.small_talk(rng)

    def document(self, rng):
        """Shares are of documents; stories are several times as long as chats."""
        dice = 0.5 if rng.random() < self.more_questions else rng.random()
        if dice < 0.17:
            return self.story(rng)
        if dice < 0.195:
            return self.chat([tasks.story_request(rng)])
        if dice < 0.20:
            # Induction is learned fastest from text that repeats at once.
            text = tasks.words(rng, 3, 20)
            return self.raw(text + "\n" + text)
        if dice < 0.285:
            return self.chat([tasks.copy(rng)])
        if dice < 0.345:
            return self.chat([rng.choice(tasks.EXTRACT)(rng)])
        if dice < 0.41:
            return self.chat([rng.choice(tasks.EDIT)(rng)])
        if dice < 0.93:
            return self.chat([self.questions.pair(rng)], rng.choice(tasks.SYSTEM) if rng.random() < 0.08 else None)
        if dice < 0.955:
            return self.chat([tasks.unknown(rng)])
        if dice < 0.97:
            return self.chat([tasks.small_talk(rng)], rng.choice(tasks.SYSTEM) if rng.random() < 0.1 else None)
        if dice < 0.98:
            return self.chat(tasks.memory(rng) + ([self.turn(rng)] if rng.random() < 0.3 else []))
        # Some are long, so that more than a beginning of the context is used.
        n_turns = rng.randint(2, 4) if rng.random() < 0.75 else rng.randint(5, 12)
        return self.chat([self.turn(rng) for _ in range(n_turns)], rng.choice(tasks.SYSTEM) if rng.random() < 0.15 else None)


def write(writer, out, name, n_tokens, seed):
    rng = random.Random(seed)
    tokens, starts, n = [], [], 0
    while n < n_tokens:
        doc = writer.document(rng)
        starts.append(n)
        tokens.append(np.array(doc, dtype=np.uint16))
        n += len(doc)
    data = np.concatenate(tokens)
    data.tofile(out / f"{name}.bin")
    np.array(starts, dtype=np.uint32).tofile(out / f"docs-{name}.idx")
    print(f"{name}: {n} tokens, {len(starts)} documents, loss on {np.mean(data < NO_LOSS):.2f}")


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("out", type=Path)
    args.add_argument("--tokens", type=int, default=16_000_000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--more-questions", type=float, default=0.0, help="the share of documents that are product questions besides those of the mixture")
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    questions = Questions()
    print(f"{len(questions.entries)} questions in {sum(map(len, questions.trained))} wordings, {len(questions.heldout)} held out, {len(questions.development)} for development")
    # The vocabulary stays what it is when a question is added: a file that was exported fits it still.
    tokenizer = Tokenizer.from_file(str(TOKENIZER)) if TOKENIZER.exists() else train_tokenizer(questions)
    writer = Writer(tokenizer, questions, args.more_questions)
    write(writer, args.out, "val", 100_000, args.seed + 1_000_003)
    write(writer, args.out, "train", args.tokens, args.seed)
    print(f"{time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
