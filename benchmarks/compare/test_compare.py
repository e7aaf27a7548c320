"""Tests of what the runner computes; nothing is measured. Run: python3 -m unittest discover -s benchmarks/compare"""
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
import xml.etree.ElementTree as ElementTree
from unittest import mock

import compare
import engines
import machine
import plot
import record

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = {"shape": "s", "type": "Q4_0", "file_bytes": 1000}
PROMPT = {"name": "pp512", "kind": "speed", "limit": "arithmetic", "must": {"ratio_min": 1.0, "share_min": 0.4}, "aim": {"ratio_min": 2.5, "share_min": 0.55}}


def load(name):
    with open(os.path.join(HERE, name), "rb") as file:
        return tomllib.load(file)


def limits(one=(500.0, 20.0), two=(1000.0, 40.0)):
    return {threads: {"int8_gop_s": gop, "read_gb_s": gb} for threads, (gop, gb) in ((1, one), (2, two))}


def speed(value, permitted):
    return {"value": value, "permitted": permitted}


class Rows(unittest.TestCase):
    def test_the_better_setting_of_the_peer_counts_and_the_median_over_the_rounds(self):
        theirs = {"repacked": [90.0, 100.0, 110.0], "not repacked": [50.0]}
        row = record.row_of(MODEL, PROMPT, 2, [speed(180.0, 400.0), speed(220.0, 500.0), speed(200.0, 450.0)], theirs, 0.0)
        self.assertEqual((row["ours"], row["llama_cpp"], row["llama_cpp_setting"], row["ratio"]), (200.0, 100.0, "repacked", 2.0))
        # The best limit of all rounds counts, not the one of the median.
        self.assertEqual((row["permitted"], row["share"]), (500.0, 0.4))

    def test_less_time_and_less_memory_are_better(self):
        test = {"name": "load", "kind": "load"}
        row = record.row_of(MODEL, test, 2, [{"value": 50.0}], {"repacked": [400.0], "not repacked": [100.0]}, 0.0)
        self.assertEqual((row["llama_cpp_setting"], row["ratio"]), ("not repacked", 2.0))
        memory = record.row_of(MODEL, {"name": "memory", "kind": "memory"}, 2, [{"value": 1100.0}], {"repacked": [2200.0]}, 0.0)
        self.assertEqual((memory["ratio"], memory["file_share"]), (2.0, 1.1))

    def test_a_setting_far_behind_is_left_out_after_the_first_round(self):
        keep = lambda kind, a, b: record.settings_to_keep({"a": [a], "b": [b]}, kind, 0.1)
        self.assertEqual(keep("speed", 100.0, 95.0), ["a", "b"])
        self.assertEqual(keep("speed", 100.0, 80.0), ["a"])
        self.assertEqual(keep("load", 100.0, 80.0), ["b"])


class Verdicts(unittest.TestCase):
    def judged(self, ratio, share, test=PROMPT, threads=2, limits=limits(), kind="Q4_0"):
        row = {"type": kind, "threads": threads, "ratio": ratio, "share": share, "ours": 1.0, "file_bytes": 1000}
        return record.judge(row, test, limits, 1.7, 0)["verdict"]

    def test_every_condition_has_to_hold(self):
        self.assertEqual(self.judged(3.0, 0.6), "aim")
        self.assertEqual(self.judged(3.0, 0.5), "must")
        self.assertEqual(self.judged(2.0, 0.6), "must")
        self.assertEqual(self.judged(3.0, 0.39), "short")
        self.assertEqual(self.judged(0.99, 0.6), "short")

    def test_two_threads_of_one_core_make_a_row_void_and_one_thread_never_does(self):
        shared = limits(one=(500.0, 20.0), two=(840.0, 21.0))
        self.assertEqual(self.judged(0.5, 0.1, limits=shared), "void")
        self.assertEqual(self.judged(0.5, 0.1, limits=shared, threads=1), "short")

    def test_the_rules_for_generation_follow_the_read_rate(self):
        test = next(test for test in load("definitions.toml")["test"] if test["name"] == "tg128")
        slow, fast = limits(), limits((500.0, 35.0), (1000.0, 60.0))
        share = lambda threads, kind, limits: record.conditions(test, {"type": kind, "threads": threads}, limits)[0].get("share_min")
        self.assertEqual([share(2, "Q4_0", slow), share(2, "Q4_0", fast)], [0.75, 0.65])
        self.assertEqual([share(1, "Q4_0", slow), share(1, "Q4_0", fast)], [0.60, None])
        self.assertEqual([share(1, "Q8_0", slow), share(1, "Q8_0", fast)], [0.75, 0.75])
        self.assertEqual(share(2, "F16", slow), None)

    def test_the_cache_comes_on_top_of_the_file_where_a_condition_says_so(self):
        row = {"ours": 1150.0, "file_bytes": 1000}
        self.assertTrue(record.holds({"file_share_max": 1.05, "cache_tokens": 100}, row, 1))
        self.assertFalse(record.holds({"file_share_max": 1.05, "cache_tokens": 99}, row, 1))
        self.assertTrue(record.holds({"file_share_max": 1.15}, row, 1))

    def test_a_condition_that_is_not_known_is_an_error(self):
        with self.assertRaises(ValueError):
            record.holds({"ratio_max": 1.0}, {}, 0)

    def test_the_limits_are_the_best_of_all_runs_and_reads_are_those_of_generation(self):
        row = lambda test, read, gop, arithmetic: {"threads": 1, "test": test, "read_bytes_s_max": read * 1e9, "operations_s_max": gop * 1e9, "arithmetic": arithmetic}
        found = record.limits_of([row("tg1", 20, 500, "int8"), row("pp1", 90, 510, "int8"), row("tg1", 22, 60, "f32")])
        self.assertEqual(found, {1: {"int8_gop_s": 510.0, "read_gb_s": 22.0, "f32_gop_s": 60.0}})


class Definitions(unittest.TestCase):
    def test_every_model_has_a_shape_and_every_row_conditions_that_are_known(self):
        definitions, shapes = load("definitions.toml"), {shape["name"]: shape for shape in load("shapes.toml")["shape"]}
        plan = compare.planned(definitions)
        titles = [compare.title(*entry) for entry in plan]
        self.assertEqual(len(set(titles)), len(titles))
        self.assertIn("qwen2.5-0.5b Q4_K_M tg128@d4096 2", titles)
        self.assertNotIn("qwen2.5-0.5b F16 tg128@d4096 2", titles)
        for shape, kind, test, threads in plan:
            self.assertIn(shape, shapes)
            row = {"type": kind, "threads": threads, "ratio": 9.0, "share": 1.0, "ours": 1.0, "file_bytes": 1000}
            self.assertEqual(record.judge(row, test, limits(), 1.7, 0)["verdict"], "aim", f"{kind} {test['name']}")

    def test_the_cache_of_a_shape_has_its_published_size(self):
        shapes = {shape["name"]: shape for shape in load("shapes.toml")["shape"]}
        self.assertEqual(compare.cache_bytes_per_token(shapes["qwen2.5-0.5b"]), 12288)
        self.assertEqual(compare.cache_bytes_per_token(shapes["llama-3.2-1b"]), 32768)


class Programs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.go = os.path.join(folder.name, "go")

    def waits(self):
        """Python code that waits for the file `go`, and fails if it never comes."""
        return f"import os, time; n = 0\nwhile not os.path.exists({self.go!r}): n += 1; time.sleep(0.01); assert n < 3000\n"

    def test_the_time_to_a_line_ends_with_the_line_and_not_with_the_program(self):
        times = iter((10.0, 12.5))

        def clock():
            now = next(times)
            if now > 10.0:
                open(self.go, "w").close()
            return now

        script = "import sys; print('ready: yes', file=sys.stderr, flush=True)\n" + self.waits()
        with mock.patch.object(engines.time, "perf_counter", clock):
            self.assertEqual(engines.seconds_to_line([sys.executable, "-c", script], b"ready: "), 2.5)

    def test_a_program_that_fails_or_never_says_the_line_is_an_error(self):
        for script in ("raise SystemExit('out of luck')", "print('out of luck')"):
            for stream in ("stdout", "stderr"):
                with self.assertRaisesRegex(engines.Failed, "out of luck"):
                    engines.seconds_to_line([sys.executable, "-c", script], b"ready: ", stream)
        with self.assertRaisesRegex(engines.Failed, "out of luck"):
            engines.run([sys.executable, "-c", "raise SystemExit('out of luck')"])

    @unittest.skipUnless(sys.platform == "linux", "memory is read from /proc")
    def test_the_peaks_of_children_count_even_if_memory_was_given_back(self):
        look = engines.high_water_bytes

        def watched(pid):
            peak = look(pid)
            if peak > 64 << 20:
                open(self.go, "w").close()
            return peak

        child = "x = bytearray(b'1') * (64 << 20); del x\n" + self.waits()
        parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
        with mock.patch.object(engines, "high_water_bytes", watched):
            both = engines.peak_bytes([sys.executable, "-c", parent])
        # Two interpreters besides, each of some megabytes.
        self.assertGreater(both, (64 << 20) + (8 << 20))

    def test_the_speed_of_a_batch_is_that_of_its_only_row(self):
        line = '{"n_kv_max": 64, "pl": 4, "speed_pp": 300.5, "speed_tg": 80.25}'
        self.assertEqual(engines.batched_speed(f"main: n_kv_max = 64\n{line}\n"), 80.25)
        with self.assertRaises(engines.Failed):
            engines.batched_speed("")


class Machine(unittest.TestCase):
    def test_a_processor_is_described_by_its_name_and_the_features_that_matter(self):
        text = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 hypervisor avx512_vnni\n\nprocessor\t: 1\nmodel name\t: Some CPU\n"
        cpu = machine.cpu_of(text)
        self.assertEqual((cpu["processor"], cpu["processors"], cpu["is_virtual"]), ("Some CPU (family 25, model 17)", 2, True))
        self.assertEqual(cpu["features"], ["avx2", "avx512_vnni"])

    def test_idle_time_is_not_busy_and_stolen_time_is(self):
        self.assertEqual(machine.busy_of("cpu  1 2 4 1000 2000 8 16 32 0 0"), 63)


class Outputs(unittest.TestCase):
    def record(self):
        rows = [
            record.row_of(MODEL, PROMPT, 2, [speed(150.0, 300.0)], {"repacked": [100.0], "not repacked": [80.0]}, 0.02),
            record.row_of(MODEL, PROMPT | {"name": "tg128", "limit": "bandwidth"}, 1, [speed(30.0, 100.0)], {"repacked": [40.0]}, 0.5) | {"disturbed": True},
            record.row_of(MODEL, {"name": "memory", "kind": "memory", "must": {"file_share_max": 1.15}, "aim": {"file_share_max": 1.05}}, 2, [{"value": 1200.0}], {"repacked": [2000.0]}, 0.0),
            record.failed_row(MODEL, {"name": "load", "kind": "load"}, 2, "it <ended> | with 1"),
        ]
        tests = {"pp512": PROMPT, "tg128": PROMPT, "memory": {"must": {"file_share_max": 1.15}, "aim": {"file_share_max": 1.05}}, "load": {}}
        rows = [record.judge(row, tests[row["test"]], limits(), 1.7, 0) for row in rows]
        machine_facts = {"processor": "A & B", "processors": 2, "is_virtual": True, "memory_gib": 8.0, "system": "Linux", "features": ["avx2"]}
        versions = {"ours": "veritas-sdr 0.1.0", "commit": "abc", "llama_cpp": "version 1"}
        return {"machine": machine_facts, "versions": versions, "rounds": 1, "quick": True, "others_max": 0.1, "date": "2000-01-01", "isa": "avx2", "limits": limits(), "rows": rows}

    def test_the_page_has_every_row_and_every_cell_losers_and_failures_included(self):
        page = record.markdown(self.record())
        lines = [line for line in page.splitlines() if line.startswith("| s | Q4_0")]
        self.assertEqual([line.count("|") for line in lines], [13] * 4)
        self.assertIn("| tg128 | 1 | 30.0 tokens/s | 40.0 tokens/s | repacked | 0.75 | 30% of bandwidth | 1.0 ×, 40% | 2.5 ×, 55% | short (disturbed) |", page)
        self.assertIn("failed: it <ended> / with 1", page)
        self.assertIn("4 rows, 1 of them behind llama.cpp. 1 row: reaches what it must; 2 rows: falls short; 1 row: failed.", page)

    def test_the_picture_is_well_formed_and_draws_the_ratios_to_scale(self):
        picture = plot.svg(self.record())
        root = ElementTree.fromstring(picture)
        space = "{http://www.w3.org/2000/svg}"
        bars = [float(rect.get("width")) for rect in root.iter(space + "rect") if rect.get("x") == str(plot.LABELS) and float(rect.get("y")) > plot.TOP]
        self.assertEqual(bars, [round(plot.RATIOS * ratio / 3, 1) for ratio in (1.5, 0.75, 2000 / 1200)])
        # The aim of 2.5 stands beyond every bar, so the axis ends at 3.
        words = [text.text for text in root.iter(space + "text")]
        self.assertIn("tg128, 1 thread (disturbed)", words)
        self.assertIn("0.75 ×", words)
        self.assertIn("A & B, 2000-01-01, llama.cpp version 1", words)

    def test_the_axis_ends_at_a_whole_number_beyond_every_bar(self):
        self.assertEqual([plot.scale_end(x) for x in (0.4, 2.0, 2.1, 7.0)], [2, 2, 3, 7])

    def test_the_help_names_every_option_of_the_program(self):
        done = subprocess.run([sys.executable, os.path.join(HERE, "compare.py"), "--help"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        for option in ("--peer", "--only", "--rounds", "--quick", "--out", "--keep"):
            self.assertTrue(re.search(rf"\s{option}\b", done.stdout), option)


if __name__ == "__main__":
    unittest.main()
