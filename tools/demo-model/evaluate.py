"""Measures a GGUF of the built-in model and prints a table.

    python evaluate.py veritas-demo.gguf [--data DATA] [--bin PATH] [--samples]

Nothing that is measured here was trained: the wordings are those of heldout.json, and the texts to
copy come from a seed of their own. Decoding is greedy, but for the stories (temperature 0.8, seeds
1 to 20). An answer is right only if it is the expected one, character for character, and ends by
itself. With --bin the questions, copies and edits are put to the shipped program instead of to PyTorch.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

import tasks
import world
from export import read
from generate import TOKENIZER
from questions import HERE, Questions

SEED = 78_000
N_CASES = 100
N_STORIES = 20
ALL_NAMES = {n for names in world.NAMES.values() for n in names}


class Torch:
    def __init__(self, path):
        self.model = read(path)
        self.tokenizer = Tokenizer.from_file(str(TOKENIZER))
        self.id = self.tokenizer.token_to_id

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def chat(self, text, n_max=200):
        ids = [self.id("<|bos|>"), self.id("<|user|>"), *self.encode(text.strip()), self.id("<|end|>"), self.id("<|assistant|>")]
        return self.answer(ids, n_max)

    def raw(self, text, seed):
        torch.manual_seed(seed)
        out, finish = self.answer([self.id("<|bos|>"), *self.encode(text)], 400, 0.8)
        return text + out, finish

    def answer(self, ids, n_max, temp=0.0):
        out, finish = self.model.generate(ids, n_max, {self.id("<|eos|>"), self.id("<|end|>")}, temp)
        return self.tokenizer.decode(out), finish


class Program:
    def __init__(self, path, model):
        self.command = [path, "run", "--json", "--model", str(model)]

    def run(self, *arguments):
        # Read as a script would: one JSON object on stdout.
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        return result["text"], result["finish_reason"]

    def chat(self, text, n_max=200):
        return self.run("--temp", "0", "-n", str(n_max), "--", text)

    def raw(self, text, seed):
        out, finish = self.run("--raw", "--temp", "0.8", "--seed", str(seed), "-n", "400", "--", text)
        return text + out, finish


def product_questions(model, pairs):
    return [(h["question"], h["answer"], *model.chat(h["question"])) for h in pairs]


def cases(model, makers, seed):
    rng = random.Random(seed)
    done = []
    for _ in range(N_CASES):
        prompt, expected = rng.choice(makers)(rng)
        # The template trims what the user says, so a text that ends in white space could not be copied.
        done.append((prompt, expected.strip(), *model.chat(prompt, 400)))
    return done


def stories(model):
    """The model goes on by itself from each opening."""
    return [(opening, *model.raw(opening, seed)) for seed, opening in enumerate(world.evaluation_openings(N_STORIES), 1)]


def judge_story(opening, text):
    """(mentions of names, mentions of names that were introduced, whether all stays in the world).

    A name is introduced by the opening or by a wording that the world uses for it: "a fox named Ida",
    "Ida, a fox", "his friend Ida". A story stays in its world when each name that it mentions was
    introduced, at most three persons take part, no capitalised word inside a sentence is a name from
    outside, and no thing changes its colour.
    """
    known = {n for n in ALL_NAMES if re.search(rf"\b{n}\b", opening)}
    known |= {n for n in ALL_NAMES if re.search(rf"(named|friend) {n}\b|\b{n}, an? \w+ ", text)}
    mentions = [w for w in re.findall(r"\b[A-Z][a-z]+\b", text) if w in ALL_NAMES]
    kept = [w for w in mentions if w in known]
    foreign = [w for w in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text) if w not in ALL_NAMES]
    colours = [set(re.findall(rf"\b({'|'.join(world.COLOURS)}) {thing}\b", text)) for thing in world.OBJECTS]
    stays = not foreign and len(kept) == len(mentions) and len(set(mentions)) <= 3 and all(len(c) <= 1 for c in colours)
    return len(mentions), len(kept), stays


def shares_a_name(opening, text):
    """Whether somebody is introduced by a name that another one bears; `judge_story` does not ask that."""
    hero = [n for n in ALL_NAMES if re.search(rf"\b{n}\b", opening)]
    others = [a or b for a, b in re.findall(r"(?:named|friend) ([A-Z]\w+)|\b([A-Z]\w+), an? \w+ ", text[len(opening) :])]
    others = [n for n in others if n in ALL_NAMES]
    return len({*hero, *others}) < len(hero) + len(others)


def report(name, done, goal, show):
    right = sum(answer == expected and finish == "stop" for _, expected, answer, finish in done)
    print(f"| {name} | {right} of {len(done)} | {goal} |")
    for prompt, expected, answer, finish in done:
        if answer != expected or finish != "stop":
            show.append(f"{name}: {prompt!r}\n  expected {expected!r}\n  got      {answer!r} ({finish})")


def heldout_loss(path, data):
    from train import RANGES, Rows, loss_by_range

    losses = loss_by_range(read(path), Rows(data, "val"), 64)
    for begin, end, loss in zip((0, *RANGES), RANGES, losses):
        print(f"| held-out loss at positions {begin + 1} to {end}, nats per token with loss | {loss:.4f} | |")


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("model", type=Path)
    args.add_argument("--data", type=Path, help="the folder of generate.py, for the held-out loss")
    args.add_argument("--bin", help="the veritas-sdr to measure instead of PyTorch")
    args.add_argument("--samples", action="store_true", help="print the first stories and answers, whatever they are")
    args = args.parse_args()
    torch.set_num_threads(1)
    model = Program(args.bin, args.model) if args.bin else Torch(args.model)
    failures = []
    print("| what | measured | goal |\n|---|---|---|")
    if args.data:
        heldout_loss(args.model, args.data)
    questions = Questions(write=False)
    report("held-out wordings of product questions, exact", product_questions(model, questions.heldout), "18 of 20", failures)
    report("wordings for development, exact", product_questions(model, questions.development), "", failures)
    report("copying, exact", cases(model, [tasks.copy], SEED), "80 %", failures)
    report("extracting, exact", cases(model, tasks.EXTRACT, SEED + 1), "", failures)
    report("editing, exact", cases(model, tasks.EDIT, SEED + 2), "", failures)
    told = stories(model)
    judged = [judge_story(opening, text) for opening, text, _ in told]
    mentions, kept = sum(j[0] for j in judged), sum(j[1] for j in judged)
    print(f"| stories that stay in their world | {sum(j[2] for j in judged)} of {len(told)} | 20 of 20 |")
    print(f"| names introduced are names kept (mentions) | {kept} of {mentions} = {kept / mentions:.3f} | |")
    print(f"| stories in which two persons share a name | {sum(shares_a_name(o, t) for o, t, _ in told)} of {len(told)} | |")
    print(f"| stories that end by themselves | {sum(f == 'stop' for _, _, f in told)} of {len(told)} | |")
    print("\nFailures:" if failures else "\nNo failures.")
    print("\n".join(failures))
    for (_, text, finish), judged_as in zip(told, judged):
        if not judged_as[2]:
            print(f"story: {text!r} ({finish})")
    if args.samples:
        print("\nSamples (the first of each kind):")
        for question in ("What is Veritas SDR?", "Does Veritas SDR open a network port?", "hello"):
            print(f"> {question}\n{model.chat(question)[0]}\n")
        for _, text, _ in told[:3]:
            print(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
