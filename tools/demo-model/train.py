"""Trains the model on the CPU.

    python train.py DATA OUT --tokens 20000000 --seed 1 --ranks 2

Each rank is a process of one thread that computes its part of a batch; the gradients are averaged.
On a busy machine that is several times as fast as one process of several threads, which would wait
for its slowest thread after each operator.

The learning rate follows the tokens that were seen: warm-up, a plateau, and a linear descent to zero
over the last 52 % of --tokens, or from --decay-from on. The length of the rows is drawn anew in each
step, from 256 to 1024 positions. Nothing depends on the clock: the ranks may be stopped and continued
at any time, and the same command does the same steps. OUT/last.pt is written every hundred steps and
is taken up when the program is started again; OUT/log.jsonl records the tokens that were seen by then,
the processor time of a rank, and the held-out loss by range of positions.

--start GGUF begins with the dequantised weights of an exported file instead of random ones. A lower
rate suits that, such as --rate 0.6.
"""

import argparse
import json
import os
import random
import time
from datetime import timedelta
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
# (positions in a row, rows in a batch and rank, share of the steps)
ROWS = [(256, 12, 0.5), (512, 6, 0.25), (1024, 3, 0.25)]
# Ranges of positions in which the held-out loss is measured, each from the end of the one before.
RANGES = (256, 512, 1024)
SAVE_STEPS = 100
# A rank that is stopped while others measure must not end the run.
TIMEOUT = timedelta(hours=12)
MATRIX_RATE, OTHER_RATE = 0.02, 0.003
DECAY_FROM = 0.48
# The weight of the loss on words that may not come next in a story.
WRONG = 4.0
# The generators leave a choice only in stories, and none of less than a fortieth. What the model takes to be rarer
# than TAIL is a slip: its sum is pushed down with this weight, so that a sampler that cuts nothing off seldom draws one.
TAIL, TAIL_WEIGHT = 0.01, 2.0


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
    """Which names, colours and things a text has introduced so far, and which of them may not come next.

    A story names nobody whom it has not introduced, no thing changes its colour, and who or what is introduced
    is new. The likelihood alone teaches that slowly: 22 wrong names of one in a thousand each are one slip a
    story. So the probability of names and colours that were not introduced is pushed down, but where the text
    itself introduces one; there, it is that of the names, colours or things which are known already.
    """

    def __init__(self, tokenizer):
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        names = [n for group in world.NAMES.values() for n in group]
        groups = [(0, names), (1, world.COLOURS), (2, world.OBJECTS)]
        words = [(group, w, encode(" " + w)[0]) for group, ws in groups for w in ws if len(encode(" " + w)) == 1]
        self.ids = torch.tensor([i for _, _, i in words])
        self.groups = [torch.tensor([g == group for g, _, _ in words]) for group, _ in groups]
        # A story speaks of things in passing, too.
        self.must_be_introduced = ~self.groups[2]
        # At the beginning of a text a name has tokens of its own.
        self.begin = [(k, torch.tensor(encode(w))) for k, (_, w, _) in enumerate(words) if w in names]
        self.bos = tokenizer.token_to_id("<|bos|>")
        self.chat = torch.tensor([tokenizer.token_to_id(t) for t in ("<|user|>", "<|system|>")])

    def wrong(self, ids, targets):
        """[rows, positions, words]: the words that may not come next; none in a chat."""
        at = torch.arange(ids.shape[1], dtype=torch.int32)[None, :, None]
        said = ids[:, :, None] == self.ids
        for k, begin in self.begin:
            n = len(begin)
            windows = ids.unfold(1, n + 1, 1)
            found = (windows[:, :, 0] == self.bos) & (windows[:, :, 1:] == begin).all(2)
            said[:, n:, k] |= found
        last = lambda where: torch.where(where, at, -1).cummax(1)[0]
        is_bos = ids[:, :, None] == self.bos
        opened = last(is_bos)
        is_chat = torch.zeros_like(is_bos)
        is_chat[:, 1:, 0] = is_bos[:, :-1, 0] & torch.isin(ids[:, 1:], self.chat)
        in_story = last(is_chat) <= opened
        known = last(said) >= opened
        introduced = ~known & (targets[:, :, None] == self.ids)
        wrong = ~known & self.must_be_introduced & ~introduced.any(2, keepdim=True)
        for group in self.groups:
            wrong |= known & group & (introduced & group).any(2, keepdim=True)
        return wrong & in_story


def loss_of(model, ids, targets, introduced):
    """The mean over the targets: cross-entropy, and the losses on words that may not come next and on the tail."""
    hidden = model(ids).flatten(0, 1)
    keep = (targets.flatten() != IGNORE).nonzero()[:, 0]
    target = targets.flatten()[keep]
    log_shares = F.log_softmax(model.logits(hidden[keep]), 1)
    shares = log_shares.exp()
    wrong = introduced.wrong(ids, targets).flatten(0, 1)[keep]
    off = (shares[:, introduced.ids] * wrong).sum(1)
    is_tail = (shares < TAIL).scatter(1, target[:, None], False)
    tail = (shares * is_tail).sum(1)
    return F.nll_loss(log_shares, target) + WRONG * less(off) + TAIL_WEIGHT * less(tail)


def less(share):
    """The mean of -log(1 - share)."""
    return -torch.log1p(-share.clamp(max=0.999)).mean()


@torch.no_grad()
def loss_by_range(model, rows, n_rows):
    """The mean cross-entropy in each of RANGES, over `n_rows` rows that fill the context."""
    rows.cursor = 0
    total, count = torch.zeros(RANGES[-1]), torch.zeros(RANGES[-1])
    for _ in range(n_rows):
        ids, targets = rows.batch(1, RANGES[-1])
        loss = F.cross_entropy(model.logits(model(ids))[0], targets[0], ignore_index=IGNORE, reduction="none")
        total += loss
        count += targets[0] != IGNORE
    return [(total[a:b].sum() / count[a:b].sum()).item() for a, b in zip((0, *RANGES), RANGES)]


def rate(share, decay_from):
    return 1.0 if share < decay_from else max(0.0, (1 - share) / (1 - decay_from))


def shape_of(step, seed):
    """(positions in a row, rows) of a step, the same for each rank."""
    shapes = [(n_positions, n_rows) for n_positions, n_rows, _ in ROWS]
    return random.Random(seed * 1_000_003 + step).choices(shapes, [share for _, _, share in ROWS])[0]


def all_cursors(cursor, n_ranks):
    if n_ranks == 1:
        return [cursor]
    cursors = [torch.zeros(1, dtype=torch.int64) for _ in range(n_ranks)]
    dist.all_gather(cursors, torch.tensor([cursor]))
    return [c.item() for c in cursors]


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
        dist.init_process_group("gloo", init_method=f"file://{(args.out / 'ranks').resolve()}", rank=rank, world_size=args.ranks, timeout=TIMEOUT)
    model = read(args.start) if args.start else Llama(Config())
    model.train()
    parameters = list(model.parameters())
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blk")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("blk"))]
    optimisers = [Muon(matrices, MATRIX_RATE), torch.optim.AdamW(others, OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)]
    introduced = Introduced(Tokenizer.from_file(str(TOKENIZER)))
    text, held = Rows(args.data, "train", rank, args.ranks), Rows(args.data, "val")
    step, tokens, seconds = 0, 0, 0.0
    last = args.out / "last.pt"
    if last.exists():
        saved = torch.load(last, weights_only=False)
        model.load_state_dict(saved["model"])
        for o, state in zip(optimisers, saved["optimisers"]):
            o.load_state_dict(state)
        step, tokens, seconds, text.cursor = saved["step"], saved["tokens"], saved["seconds"], saved["cursors"][rank]
    if rank == 0:
        print(f"{sum(p.numel() for p in parameters)} parameters, {len(text.data)} tokens of text, step {step}", flush=True)
    # The processor's time, which does not go on while the process is stopped.
    seconds -= time.process_time()
    while True:
        share = tokens / args.tokens
        done = share >= 1 or step == args.steps
        if done or (step % SAVE_STEPS == 0 and step > 0):
            cursors = all_cursors(text.cursor, args.ranks)
            if rank == 0:
                spent = seconds + time.process_time()
                torch.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "config": model.config.to_dict(),
                            "step": step, "tokens": tokens, "seconds": spent, "cursors": cursors}, args.out / "last.tmp")
                (args.out / "last.tmp").rename(last)
                losses = [round(x, 4) for x in loss_by_range(model, held, 16)]
                record = {"step": step, "tokens": tokens, "processor_seconds": round(spent), "held_out_loss": dict(zip(map(str, RANGES), losses))}
                print(record, flush=True)
                with open(args.out / "log.jsonl", "a") as log:
                    log.write(json.dumps(record) + "\n")
        if done:
            break
        n_positions, n_rows = shape_of(step, args.seed)
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
            print(f"step {step} {tokens / 1e6:.2f} M tokens, {seconds + time.process_time():.0f} s, loss {loss.item():.3f}", flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("data", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--tokens", type=int, default=20_000_000, help="tokens to see, over all ranks")
    args.add_argument("--steps", type=int, help="end after so many steps, before all tokens are seen")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--ranks", type=int, default=2)
    args.add_argument("--start", type=Path, help="an exported file whose weights are the first ones")
    args.add_argument("--rate", type=float, default=1.0, help="the learning rate, as a multiple of that for random weights")
    args.add_argument("--decay-from", type=float, default=DECAY_FROM, help="the share of the tokens at which the rate begins to fall")
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
