"""graft bench moe: every scenario with the keys of the specification, its page, and answers to a script that times peers in turns."""

import json
import pathlib
import subprocess
import tempfile
import unittest

from graft_cli import BINARY, SANITIZED, graft

IDS = """mem_train_step mem_scale_batch_1 mem_scale_batch_2 mem_scale_batch_4 mem_scale_batch_8 mem_scale_seq_8 mem_scale_seq_16 mem_scale_seq_32
    mem_scale_seq_64 kernel_matmul kernel_softmax kernel_rmsnorm dispatch_warm dispatch_cold parallel_T1 parallel_T2 parallel_T4 parallel_train_T1
    parallel_train_T2 parallel_train_T4 scale_forward_256 scale_train_256""".split()
KEYS = """id axis params warmup_runs trial_runs timings_ns cpu_times_ns warmup_timings_ns median_ns p95_ns min_ns max_ns iqr_ns cpu_median_ns memory gc
    numerical throughput_tokens_per_sec derived""".split()
SLOW = ["scale_forward_256", "scale_train_256"] if SANITIZED else []  # their weights alone take seconds there


class BenchMoe(unittest.TestCase):
    def test_every_scenario(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as folder:
            page = pathlib.Path(folder) / "moe.html"
            ids = [i for i in IDS if i not in SLOW]
            report = graft("bench", "moe", "--warmup", 1, "--trials", 2, "--only", ",".join(ids), "--json", "--html", page).json()
            text = page.read_text()
        self.assertEqual([s["id"] for s in report["scenarios"]], ids)
        self.assertEqual((report["seed"], report["threads"]), (42, 1))
        for s in report["scenarios"]:
            with self.subTest(s["id"]):
                self.assertEqual(sorted(s), sorted(KEYS))
                self.assertEqual((len(s["timings_ns"]), len(s["cpu_times_ns"]), len(s["warmup_timings_ns"])), (2, 2, 1))
                self.assertAlmostEqual(s["median_ns"], sum(s["timings_ns"]) / 2, delta=1e-6 * s["median_ns"])
                low, high = sorted(s["timings_ns"])
                self.assertEqual((s["min_ns"], s["max_ns"]), (low, high))
                self.assertAlmostEqual(s["p95_ns"], low + 0.95 * (high - low), delta=1e-6 * high)
                self.assertAlmostEqual(s["iqr_ns"], (high - low) / 2, delta=1e-6 * high)
                self.assertEqual((s["numerical"]["nan_count"], s["numerical"]["inf_count"]), (0, 0))
                self.assertGreater(s["numerical"]["max_abs"], 0)
                self.assertGreater(s["memory"]["peak_rss_bytes"], 1 << 20)
                tokens = s["params"].get("batch", 0) * s["params"].get("seq", 0) * s["params"]["workers"]
                self.assertAlmostEqual(s["throughput_tokens_per_sec"], 1e9 * tokens / s["median_ns"], delta=1e-6 * 1e9 * tokens / s["median_ns"])
                self.assertGreater(s["derived"]["gflops"], 0)
                # Only making a model allocates.
                if s["id"] != "dispatch_cold" and s["params"]["workers"] == 1:
                    self.assertEqual((s["derived"]["allocations_per_run"], s["memory"]["alloc_bytes"]), (0, 0))
        of = {s["id"]: s for s in report["scenarios"]}
        self.assertGreater(of["parallel_T2"]["derived"]["speed_up"], 0)
        ratio = of["dispatch_cold"]["median_ns"] / of["dispatch_warm"]["median_ns"]
        self.assertAlmostEqual(of["dispatch_cold"]["derived"]["cold_over_warm"], ratio, delta=1e-6 * ratio)
        if not SANITIZED:  # where operator new is not counted, buffers still are
            self.assertGreater(of["dispatch_cold"]["derived"]["allocations_per_run"], 100)
        shown = next(line for line in text.splitlines() if line.startswith("const report = "))
        self.assertEqual(json.loads(shown.removeprefix("const report = ").removesuffix(";")), report)

    def test_same_numbers_on_any_threads(self):
        ids = "mem_train_step,mem_scale_seq_8"
        once, twice = (graft("bench", "moe", "--only", ids, "--trials", 2, "--warmup", 1, "--threads", n, "--json").json()["scenarios"] for n in (1, 3))
        self.assertEqual([s["numerical"] for s in once], [s["numerical"] for s in twice])
        other = graft("bench", "moe", "--only", ids, "--trials", 2, "--warmup", 1, "--seed", 1, "--json").json()["scenarios"]
        self.assertNotEqual([s["numerical"] for s in once], [s["numerical"] for s in other])

    def test_answers_in_turns(self):
        asked = [{"id": "mem_scale_seq_8", "runs": 3}, {"id": "mem_train_step"}, {"id": "nothing"}, [], {"id": "parallel_T2", "runs": 2}]
        done = subprocess.run([BINARY, "bench", "moe", "--serve"], input="\n".join(map(json.dumps, asked)) + "\n", capture_output=True, text=True, timeout=60)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([len(a.get("timings_ns", [])) for a in answers], [3, 1, 0, 0, 2])
        self.assertEqual(["error" in a for a in answers], [False, False, True, True, False])

    def test_wrong_usage(self):
        for arguments, word in ((["--only", "mem_trian_step"], "did you mean mem_train_step?"), (["--trials", 0], "trials"), (["--from", "x.json"], "--html")):
            result = graft("bench", "moe", *arguments)
            self.assertEqual(result.code, 2, result)
            self.assertIn(word, result.err)


if __name__ == "__main__":
    unittest.main()
