"""Tests of what the script computes; nothing is counted. Run: python3 -m unittest discover -s benchmarks/instructions"""
import json
import os
import tempfile
import unittest

import instructions

PROFILE = "version: 1\ncreator: callgrind\ndesc: Trigger: {trigger}\nevents: Ir\n{sum}\nfn=(1) x\n1 2\n"


class Profiles(unittest.TestCase):
    def test_a_profile_states_its_sum_in_one_of_two_lines(self):
        trigger = "--dump-before=run_kernels::counting_ends"
        for line in ("summary: 1234", "totals: 1234"):
            self.assertEqual(instructions.total_of(PROFILE.format(trigger=trigger, sum=line)), 1234)

    def test_a_profile_of_something_else_is_no_count(self):
        with self.assertRaises(ValueError):
            instructions.total_of(PROFILE.format(trigger="Program termination", sum="summary: 1234"))


class Comparison(unittest.TestCase):
    def compare(self, recorded, found, names=()):
        return {kind: names for kind, names in instructions.compare(recorded, found, list(names)).items() if names}

    def test_three_percent_more_is_the_most(self):
        found = {"a": 1030, "b": 1031, "c": 1000}
        self.assertEqual(self.compare(dict.fromkeys(found, 1000), found), {"grown": ["b"]})

    def test_a_kernel_that_executes_less_is_told_and_no_fault(self):
        self.assertEqual(self.compare({"a": 1000, "b": 1000}, {"a": 970, "b": 969}), {"shrunk": ["b"]})

    def test_a_kernel_without_a_count_and_a_count_without_a_kernel_are_faults(self):
        self.assertEqual(self.compare({"a": 1, "old": 1}, {"a": 1, "b": 1}, ("a", "b")), {"new": ["b"], "gone": ["old"]})

    def test_counts_of_a_part_say_nothing_about_the_others(self):
        self.assertEqual(self.compare({"a": 1, "other": 1}, {"a": 1}), {})

    def test_the_summary_says_how_to_record_and_that_another_compiler_counted(self):
        report = {"grown": ["avx2 a"], "shrunk": [], "new": [], "gone": []}
        text = "\n".join(instructions.summary(report, {"compiler": "rustc 1"}, {"compiler": "rustc 2"}))
        self.assertIn("1 execute over 3% more than the record says\n  avx2 a\n", text)
        self.assertIn("the compiler of the record is rustc 1, this is rustc 2", text)
        self.assertIn("--record", text)
        self.assertNotIn("no count", text)
        same = instructions.summary(dict.fromkeys(report, []), {"compiler": "rustc 1"}, {"compiler": "rustc 1"})
        self.assertEqual(same, ["every kernel executes what the record says"])


class Record(unittest.TestCase):
    def test_a_record_keeps_the_order_of_the_cases_and_what_is_no_case_is_left_out(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "counts.json")
            self.assertEqual(instructions.read(path), {"counts": {}})
            instructions.write(path, {"compiler": "c", "counts": {"b": 2, "a": 1, "old": 3}}, ["a", "b"])
            record = instructions.read(path)
            self.assertEqual((record["compiler"], list(record["counts"].items())), ("c", [("a", 1), ("b", 2)]))

    def test_the_committed_record_counts_both_levels_and_names_what_made_it(self):
        with open(os.path.join(instructions.HERE, "counts.json"), encoding="utf-8") as file:
            record = json.load(file)
        levels = {level: [name for name in record["counts"] if name.startswith(level + " ")] for level in ("portable", "avx2")}
        self.assertEqual(len(levels["portable"]), len(levels["avx2"]))
        self.assertGreater(len(levels["avx2"]), 30)
        self.assertTrue(all(isinstance(n, int) and n > 0 for n in record["counts"].values()))
        self.assertIn("rustc", record["compiler"])


if __name__ == "__main__":
    unittest.main()
