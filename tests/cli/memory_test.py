"""The memory forecast against what a run takes, and --memory-limit."""

import json
import os
import pathlib
import re
import sys
import unittest

from graft_cli import FolderTest, fixtures, graft

FIXTURES = fixtures()


@unittest.skipUnless(FIXTURES and os.environ.get("GRAFT_SANITIZED") is None, "no fixtures, or memory that a sanitizer takes")
class Memory(FolderTest):
    def setUp(self):
        super().setUp()
        rows = (FIXTURES / "data/shelfql/train.jsonl").read_text().splitlines()[:100]
        (self.dir / "sql.jsonl").write_text("\n".join(rows) + "\n")
        (self.dir / "long.jsonl").write_text("".join(json.dumps({"text": "abc def " * n}) + "\n" for n in (10, 20, 30, 28) * 4))

    def command(self, model, data, *extra):
        return ["train", "--model", FIXTURES / "models" / model, "--data", self.dir / data, "--steps", 3, "--save-every", 2, "--json", *extra]

    def test_forecast_is_what_a_run_takes(self):
        cases = [("pystd-5m", "sql.jsonl"), ("pystd-5m", "sql.jsonl", "--batch-size", 16, "--targets", "all-linear", "--threads", 1),
                 ("pystd-5m", "sql.jsonl", "--method", "full", "--valid", "20%"), ("pystd-5m", "sql.jsonl", "--batch-size", 16, "--recompute", "every:1"),
                 ("qwen2", "long.jsonl", "--batch-size", 8, "--dtype", "f32")]
        for i, case in enumerate(cases):
            with self.subTest(" ".join(map(str, case))):
                out = ["--out", self.dir / str(i)]
                plan = graft(*self.command(*case), *out, "--dry-run")
                self.assertEqual(plan.code, 0, plan)
                run = graft(*self.command(*case), *out)
                self.assertEqual(run.code, 0, run)
                forecast, peak = plan.json()["forecast_memory_bytes"], run.json()["peak_memory_bytes"]
                # 16 MB: pages of the program and of the allocator that a run of this size may or may not touch
                self.assertLess(abs(forecast - peak), max(16e6, 0.05 * peak), (forecast, peak))
                self.assertLessEqual(peak, run.json()["forecast_memory_bytes"] + 1e6)

    def test_limit(self):
        # A trained head keeps its chunks whatever the limit, since its sums begin anew with each: no bit may change.
        for targets in ("q_proj,v_proj", "q_proj,lm_head"):
            with self.subTest(targets):
                self.check_limit(targets)

    def check_limit(self, targets):
        def out(name):
            return self.dir / f"{name}-{targets}"

        case = self.command("pystd-5m", "sql.jsonl", "--batch-size", 16, "--dtype", "f32", "--targets", targets)
        free = graft(*case, "--out", out("free")).json()
        refused = graft(*case, "--out", out("small"), "--memory-limit", "20M")
        self.assertEqual(refused.code, 1, refused)
        self.assertFalse(out("small").exists())
        smallest = int(re.search(r"--memory-limit (\d+)M is the smallest", refused.err).group(1))
        self.assertLess(smallest << 20, free["peak_memory_bytes"])  # the choice is recomputation, and it saves something
        run = graft(*case, "--out", out("fits"), "--memory-limit", f"{smallest}M")
        self.assertEqual(run.code, 0, run)
        self.assertIn("recomputed", run.err)
        self.assertLessEqual(run.json()["peak_memory_bytes"], smallest << 20)
        # In f32 recomputation changes no bit.
        weights = [(out(name) / "adapter_model.safetensors").read_bytes() for name in ("free", "fits")]
        self.assertEqual(*weights)
        self.assertEqual(graft(*case, "--out", out("less"), "--memory-limit", f"{smallest - 6}M").code, 1)


if __name__ == "__main__":
    if not FIXTURES:
        sys.exit(77)
    unittest.main()
