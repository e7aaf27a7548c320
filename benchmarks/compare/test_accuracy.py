"""Tests of accuracy.py and of what it makes; no engine runs. Run: python3 -m unittest discover -s benchmarks/compare"""
import math
import os
import struct
import tomllib
import unittest

import accuracy
import stories
import widen
from engines import Failed

WIDTH, FORWARD, KV_ROWS, N_VOCAB, EPSILON = 128, 384, 64, 40, 1e-2


def number(kind, format, value):
    return kind, struct.pack("<" + format, value)


def small_model():
    """A llama model of one layer in F16, whose numbers count up, with metadata of every build."""
    name = b"tokens"
    array = struct.pack("<IQ", 8, 2) + 2 * (struct.pack("<Q", len(name)) + name)
    metadata = {
        "general.architecture": (8, struct.pack("<Q", 5) + b"llama"),
        "llama.embedding_length": number(4, "I", WIDTH),
        "llama.feed_forward_length": number(4, "I", FORWARD),
        "llama.attention.head_count": number(4, "I", 8),
        "llama.attention.head_count_kv": number(4, "I", 4),
        "llama.attention.layer_norm_rms_epsilon": number(6, "f", EPSILON),
        "some.array": (9, array),
        "some.flag": number(7, "B", 1),
    }
    shapes = {
        "token_embd.weight": [WIDTH, N_VOCAB],
        "blk.0.attn_norm.weight": [WIDTH],
        "blk.0.attn_q.weight": [WIDTH, WIDTH],
        "blk.0.attn_k.weight": [WIDTH, KV_ROWS],
        "blk.0.ffn_down.weight": [FORWARD, WIDTH],
        "blk.0.ffn_up.weight": [WIDTH, FORWARD],
    }
    tensors = []
    for name, dimensions in shapes.items():
        n = math.prod(dimensions)
        format = "e" if len(dimensions) > 1 else "f"
        numbers = [(i % 61 + 1) / 64 for i in range(n)]
        tensors.append((name, dimensions, 1 if format == "e" else 0, struct.pack(f"<{n}{format}", *numbers)))
    return metadata, tensors


class Widened(unittest.TestCase):
    def setUp(self):
        self.metadata, tensors = small_model()
        self.before = {tensor[0]: tensor for tensor in tensors}
        self.after_metadata, after = widen.read(widen.widened(widen.write(self.metadata, tensors)))
        self.after = {tensor[0]: tensor for tensor in after}

    def rows(self, tensors, name):
        _, (width, n_rows), _, content = tensors[name]
        numbers = struct.unpack(f"<{width * n_rows}e", content)
        return [numbers[i * width :][:width] for i in range(n_rows)]

    def test_a_file_is_read_as_it_was_written(self):
        metadata, tensors = small_model()
        self.assertEqual(widen.read(widen.write(metadata, tensors)), (metadata, tensors))
        with self.assertRaises(ValueError):
            widen.read(b"GGML" + bytes(100))

    def test_matrices_get_zeros_in_rows_and_rows_of_zeros_and_no_tokens(self):
        shapes = {name: tensor[1] for name, tensor in self.after.items()}
        self.assertEqual(shapes["token_embd.weight"], [256, N_VOCAB])
        self.assertEqual(shapes["blk.0.attn_q.weight"], [256, 256])
        self.assertEqual(shapes["blk.0.attn_k.weight"], [256, 128])
        self.assertEqual(shapes["blk.0.ffn_down.weight"], [512, 256])
        self.assertEqual(shapes["blk.0.ffn_up.weight"], [256, 512])
        for name in ("token_embd.weight", "blk.0.attn_k.weight", "blk.0.ffn_down.weight"):
            before, after = self.rows(self.before, name), self.rows(self.after, name)
            for old, new in zip(before, after):
                self.assertEqual((new[: len(old)], set(new[len(old) :])), (old, {0.0}))
            self.assertTrue(all(set(row) == {0.0} for row in after[len(before) :]))

    def test_a_norm_gives_what_it_gave(self):
        x = [math.sin(i) for i in range(WIDTH)]
        before = self.norm(x, self.before, self.metadata)
        after = self.norm(x + [0.0] * WIDTH, self.after, self.after_metadata)
        self.assertEqual(after[WIDTH:], [0.0] * WIDTH)
        for old, new in zip(before, after):
            self.assertAlmostEqual(old, new, delta=1e-6)

    def norm(self, x, tensors, metadata):
        _, (width,), _, content = tensors["blk.0.attn_norm.weight"]
        epsilon = struct.unpack("<f", metadata["llama.attention.layer_norm_rms_epsilon"][1])[0]
        scale = 1 / math.sqrt(sum(value * value for value in x) / width + epsilon)
        return [value * scale * weight for value, weight in zip(x, struct.unpack(f"<{width}f", content))]

    def test_the_metadata_says_the_new_sizes_and_everything_else_as_before(self):
        number = lambda key: struct.unpack("<I", self.after_metadata["llama." + key][1])[0]
        keys = ("embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv")
        self.assertEqual([number(key) for key in keys], [256, 512, 16, 8])
        for key in ("general.architecture", "some.array", "some.flag"):
            self.assertEqual(self.after_metadata[key], self.metadata[key])


class Text(unittest.TestCase):
    def test_the_stories_are_the_same_in_every_run_and_more_of_them_only_continue(self):
        text = stories.text(20)
        self.assertEqual(text, stories.text(20))
        self.assertTrue(stories.text(30).startswith(text.rstrip("\n")))
        self.assertNotEqual(text, stories.text(20, seed=2))
        self.assertTrue(text.isascii() and "{" not in text)
        self.assertEqual(len(set(text.split("\n\n"))), 20)


class Comparison(unittest.TestCase):
    def test_a_fifth_of_a_percent_is_the_most_in_both_directions(self):
        holds = lambda ours: accuracy.judge({"ours": ours, "llama_cpp": 100.0}, 0.002)["holds"]
        self.assertEqual([holds(x) for x in (99.79, 99.81, 100.19, 100.21)], [False, True, True, False])

    def test_the_perplexity_of_the_chunks_that_both_scored_is_read(self):
        self.assertEqual(accuracy.n_chunks(3 * 127, 256), 3)
        with self.assertRaises(Failed):
            accuracy.n_chunks(3 * 127 + 1, 256)
        self.assertEqual(accuracy.after_chunk("[1]9.5,[2]8.25,[12]7.5,", 2), 8.25)
        with self.assertRaises(Failed):
            accuracy.after_chunk("[1]9.5,[12]7.5,", 2)

    def test_a_row_that_failed_is_shown_and_does_not_hold(self):
        failed = {"widened": True, "type": "Q4_K_M", "made_by": "us", "failed": "a | b"}
        good = accuracy.judge({"widened": False, "type": "F16", "made_by": "us", "file_bytes": 1000, "ours": 10.0, "llama_cpp": 10.01}, 0.002)
        record = {"model": "m", "stories": 1, "n_context": 256, "date": "2000-01-01", "difference_max": 0.002, "versions": {"ours": "a", "llama_cpp": "b"}, "rows": [accuracy.judge(failed, 0.002), good]}
        page = accuracy.markdown(record)
        self.assertIn("| widened | Q4_K_M | us | | | | failed: a / b | |", page)
        self.assertIn("| as it is | F16 | us | 1 | 10.0000 | 10.0100 | -0.100% | yes |", page)
        self.assertIn("2 rows, 1 of them within 0.2% of llama.cpp.", page)

    def test_every_row_is_planned_once(self):
        with open(os.path.join(accuracy.HERE, "definitions.toml"), "rb") as file:
            plan = accuracy.planned(tomllib.load(file)["accuracy"])
        self.assertEqual(len(set(plan)), len(plan))
        self.assertIn((True, "IQ4_XS", False), plan)
        self.assertIn((True, "IQ3_S", True), plan)


if __name__ == "__main__":
    unittest.main()
