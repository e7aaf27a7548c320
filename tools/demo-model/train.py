"""Trains the model on the CPU.

    python train.py DATA OUT --minutes 70 --seed 1 --ranks 2

Each rank is a process of one thread that computes its part of a batch; the gradients are averaged.
On a busy machine that is several times as fast as one process of several threads, which would wait
for its slowest thread after each operator.

The learning rate follows the wall clock: warm-up, a plateau, and a linear descent to zero over the
last 52 % of the time, or from --decay-from on; near the end rows grow from 256 to 512 and then to 1024 positions. OUT/last.pt
is written every few minutes and is taken up again when the program is started again; OUT/log.jsonl
records each step that is printed, so that the number of tokens that were seen is known.

--start GGUF begins with the dequantised weights of an exported file instead of random ones. A lower
rate suits that, such as --rate 0.6 --decay-from 0.15.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer

import world
from export import read
from generate import NO_LOSS, TOKENIZER
from model import Config, Llama

IGNORE = -100
# (share of the time at which it begins, positions in a row, rows in a batch and rank)
STAGES = [(0.0, 256, 12), (0.83, 512, 7), (0.95, 1024, 4)]
MATRIX_RATE, OTHER_RATE = 0.02, 0.003
DECAY_FROM = 0.48
# The weight of the loss on words that a story has not introduced.
UNINTRODUCED = 4.0


@torch.no_grad()
def orthogonalised(g, steps=5):
    """The nearest matrix with singular values near one (Newton-Schulz, as in the Muon optimiser)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: for the matrices between the embeddings."""

    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m = state.setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalised(p.grad.lerp(m, group["momentum"]))
                p.mul_(1 - group["lr"] * 0.01)
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


class Rows:
    """Rows that begin with a document and are filled with the documents that follow it."""

    def __init__(self, folder, name, rank=0, n_ranks=1):
        self.data = np.fromfile(folder / f"{name}.bin", dtype=np.uint16)
        self.starts = np.fromfile(folder / f"docs-{name}.idx", dtype=np.uint32).astype(np.int64)
        self.cursor = len(self.starts) * rank // n_ranks

    def batch(self, n_rows, n_positions):
        rows = []
        for _ in range(n_rows):
            if self.starts[self.cursor] + n_positions + 1 > len(self.data):
                self.cursor = 0
            begin = self.starts[self.cursor]
            rows.append(self.data[begin : begin + n_positions + 1])
            self.cursor = int(np.searchsorted(self.starts, begin + n_positions)) % len(self.starts)
        rows = np.stack(rows)
        ids = (rows & (NO_LOSS - 1)).astype(np.int64)
        targets = np.where(rows < NO_LOSS, ids, IGNORE)
        return torch.from_numpy(ids[:, :-1]), torch.from_numpy(targets[:, 1:].copy())


class Introduced:
    """Which names and colours a text has introduced so far.

    A story names nobody whom it has not introduced, and no thing changes its colour. The likelihood alone
    teaches that slowly: 22 wrong names of one in a thousand each are one slip a story. So the probability
    of the words that were not introduced is pushed down, but where the text itself introduces one.
    """

    def __init__(self, tokenizer):
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        names = [n for group in world.NAMES.values() for n in group]
        words = [(w, encode(" " + w)) for w in [*names, *world.COLOURS]]
        self.ids = torch.tensor([ids[0] for _, ids in words if len(ids) == 1])
        # At the beginning of a text a name has tokens of its own.
        self.begin = [(k, torch.tensor(encode(w))) for k, w in enumerate(w for w, ids in words if len(ids) == 1) if w in names]
        self.bos = tokenizer.token_to_id("<|bos|>")
        self.chat = torch.tensor([tokenizer.token_to_id(t) for t in ("<|user|>", "<|system|>")])

    def missing(self, ids, targets):
        """[rows, positions, words]: the words that may not come next; none in a chat, or where the target introduces one."""
        at = torch.arange(ids.shape[1])[None, :, None]
        seen = ids[:, :, None] == self.ids
        for k, begin in self.begin:
            n = len(begin)
            windows = ids.unfold(1, n + 1, 1)
            found = (windows[:, :, 0] == self.bos) & (windows[:, :, 1:] == begin).all(2)
            seen[:, n:, k] |= found
        last = lambda where: torch.where(where, at, -1).cummax(1)[0]
        is_bos = ids[:, :, None] == self.bos
        opened = last(is_bos)
        is_chat = torch.zeros_like(is_bos)
        is_chat[:, 1:, 0] = is_bos[:, :-1, 0] & torch.isin(ids[:, 1:], self.chat)
        missing = (last(seen) < opened) & ~(last(is_chat) > opened)
        introduces = (missing & (targets[:, :, None] == self.ids)).any(2)
        return missing & ~introduces[:, :, None]


def loss_of(model, ids, targets, introduced=None):
    hidden = model(ids).flatten(0, 1)
    keep = (targets.flatten() != IGNORE).nonzero()[:, 0]
    logits = model.logits(hidden[keep])
    loss = F.cross_entropy(logits, targets.flatten()[keep])
    if introduced is None:
        return loss
    missing = introduced.missing(ids, targets).flatten(0, 1)[keep]
    shares = (logits[:, introduced.ids] - logits.logsumexp(1, keepdim=True)).exp()
    return loss - UNINTRODUCED * torch.log1p(-(shares * missing).sum(1).clamp(max=0.999)).mean()


@torch.no_grad()
def validation_loss(model, rows, n_batches=6):
    rows.cursor = 0
    return sum(loss_of(model, *rows.batch(16, 256)).item() for _ in range(n_batches)) / n_batches


def rate(share, decay_from):
    return 1.0 if share < decay_from else max(0.0, (1 - share) / (1 - decay_from))


def average_gradients(parameters, n_ranks):
    if n_ranks > 1:
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        flat /= n_ranks
        for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
            p.grad.copy_(g.view_as(p))


def train(args, rank):
    # A session of its own gives a rank its own share of the scheduler's time.
    os.setsid()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    if args.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{(args.out / 'ranks').resolve()}", rank=rank, world_size=args.ranks)
    model = read(args.start) if args.start else Llama(Config())
    model.train()
    parameters = list(model.parameters())
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blk")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("blk"))]
    optimisers = [Muon(matrices, MATRIX_RATE), torch.optim.AdamW(others, OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)]
    introduced = Introduced(Tokenizer.from_file(str(TOKENIZER)))
    text, held = Rows(args.data, "train", rank, args.ranks), Rows(args.data, "val")
    step, tokens, spent = 0, 0, 0.0
    last = args.out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=False)
        model.load_state_dict(saved["model"])
        for o, state in zip(optimisers, saved["optimisers"]):
            o.load_state_dict(state)
        step, tokens, spent = saved["step"], saved["tokens"], saved["spent"]
        text.cursor = (text.cursor + saved["documents"]) % len(text.starts)
    first_document, documents = text.cursor, 0 if not last.exists() else saved["documents"]
    if rank == 0:
        print(f"{sum(p.numel() for p in parameters)} parameters, {len(text.data)} tokens of text, step {step}", flush=True)
    begin = saved_at = time.time()
    begin -= spent
    while True:
        clock = torch.tensor([time.time() - begin], dtype=torch.float64)
        if args.ranks > 1:
            dist.broadcast(clock, 0)
        spent = clock.item()
        share = spent / (args.minutes * 60)
        if rank == 0 and (share >= 1 or time.time() - saved_at > 240 or step == 200):
            saved_at = time.time()
            n = documents + (text.cursor - first_document) % len(text.starts)
            torch.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "config": model.config.to_dict(),
                        "step": step, "tokens": tokens, "spent": spent, "documents": n}, args.out / "last.tmp")
            (args.out / "last.tmp").rename(last)
            record = {"step": step, "tokens": tokens, "seconds": round(spent), "val_loss": round(validation_loss(model, held), 4)}
            print(record, flush=True)
            with open(args.out / "log.jsonl", "a") as log:
                log.write(json.dumps(record) + "\n")
        if share >= 1:
            break
        _, n_positions, n_rows = [s for s in STAGES if share >= s[0]][-1]
        factor = args.rate * rate(share, args.decay_from) * min(1.0, (step + 1) / 60)
        for o, base in zip(optimisers, (MATRIX_RATE, OTHER_RATE)):
            for group in o.param_groups:
                group["lr"] = base * factor
        loss = loss_of(model, *text.batch(n_rows, n_positions), introduced)
        loss.backward()
        average_gradients(parameters, args.ranks)
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for o in optimisers:
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        tokens += n_rows * n_positions * args.ranks
        if rank == 0 and step % 25 == 0:
            print(f"step {step} {tokens / 1e6:.2f} M tokens, {spent:.0f} s, loss {loss.item():.3f}", flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("data", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--minutes", type=float, default=70)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--ranks", type=int, default=2)
    args.add_argument("--start", type=Path, help="an exported file whose weights are the first ones")
    args.add_argument("--rate", type=float, default=1.0, help="the learning rate, as a multiple of that for random weights")
    args.add_argument("--decay-from", type=float, default=DECAY_FROM, help="the share of the time at which the rate begins to fall")
    args = args.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "ranks").unlink(missing_ok=True)
    ranks = [torch.multiprocessing.get_context("spawn").Process(target=train, args=(args, r)) for r in range(args.ranks)]
    for p in ranks:
        p.start()
    for p in ranks:
        p.join()


if __name__ == "__main__":
    main()
