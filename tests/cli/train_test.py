"""graft train as a user runs it: what it writes, the same bits on any threads and CPU level, interruption, kill and resume."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

from graft_cli import BINARY, SANITIZED, TINY, batches, graft

STEPS = 12


class Train(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="graft-test-")
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)
        self.data = self.dir / "data.safetensors"
        batches(self.data)

    def arguments(self, out, *extra, steps=STEPS):
        return ["train", "--model", TINY, "--data", self.data, "--out", self.dir / out, "--steps", steps, "--no-shuffle",
                "--lr", "1e-2", "--dtype", "f32", "--targets", "all-linear", "--save-every", 3, *extra]

    def train(self, out, *extra, env=None, **more):
        result = graft(*self.arguments(out, "--json", *extra, **more), env=env)
        self.assertEqual(result.code, 0, result)
        return result.json()

    def weights(self, out):
        return (self.dir / out / "adapter_model.safetensors").read_bytes()

    def metrics(self, out):
        return [json.loads(line) for line in (self.dir / out / "metrics.jsonl").read_text().splitlines()]

    def test_writes_what_the_contract_says(self):
        answer = self.train("a")
        for key in ("steps", "loss", "eval_loss", "tokens", "tokens_per_second", "peak_memory_bytes", "forecast_memory_bytes", "seconds", "adapter"):
            self.assertIn(key, answer)
        self.assertEqual(answer["steps"], STEPS)
        self.assertEqual(answer["tokens"], STEPS * 16)
        if not SANITIZED:
            self.assertLessEqual(answer["peak_memory_bytes"], 1.1 * answer["forecast_memory_bytes"])
        out = self.dir / "a"
        for name in ("adapter_config.json", "adapter_model.safetensors", "config.toml", "metrics.jsonl", "report.html", f"checkpoint-{STEPS}"):
            self.assertTrue((out / name).exists(), name)
        self.assertLessEqual(len(list(out.glob("checkpoint-*"))), 3)  # --keep 2, and the last
        lines = self.metrics("a")
        self.assertEqual([line["step"] for line in lines], list(range(1, STEPS + 1)))
        for key in ("epoch", "loss", "learning_rate", "grad_norm", "num_tokens", "tokens_per_second", "step_time"):
            self.assertIn(key, lines[0])
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])  # the rule is learned
        config = json.loads((out / "adapter_config.json").read_text())
        self.assertEqual((config["peft_type"], config["r"], config["lora_alpha"]), ("LORA", 8, 16))
        report = (out / "report.html").read_text()
        self.assertNotIn("http://", report.replace("http://www.w3.org", ""))
        self.assertNotIn("src=\"https", report)

    def test_same_bytes_on_any_threads_and_level(self):
        self.train("one", "--threads", 1)
        for name, extra, env in (("seven", ["--threads", 7], None), ("scalar", [], {"GRAFT_CPU": "scalar"}), ("avx2", [], {"GRAFT_CPU": "avx2"})):
            if name == "avx2" and os.uname().machine != "x86_64":
                continue
            self.train(name, *extra, env=env)
            self.assertEqual(self.weights(name), self.weights("one"), name)

    def test_resume_ends_in_the_same_bytes(self):
        self.train("whole")
        self.train("parts", "--schedule-steps", STEPS, steps=STEPS)
        reference = self.dir / "parts"
        # A run that stopped after a checkpoint: the later ones and the results are gone.
        kept = min(int(p.name.split("-")[1]) for p in reference.glob("checkpoint-*"))
        for path in reference.glob("checkpoint-*"):
            if int(path.name.split("-")[1]) != kept:
                subprocess.run(["rm", "-rf", str(path)], check=True)
        (reference / "adapter_model.safetensors").unlink()
        self.train("parts", "--schedule-steps", STEPS, "--resume")
        self.assertEqual(self.weights("parts"), self.weights("whole"))
        self.assertEqual([line["step"] for line in self.metrics("parts")], list(range(1, STEPS + 1)))

    def test_killed_at_any_moment_resumes_to_the_same_bytes(self):
        steps = 400
        self.train("whole", steps=steps)
        for delay in (0.05, 0.2, 0.4):
            out = f"killed-{delay}"
            process = subprocess.Popen([BINARY, *map(str, self.arguments(out, "--quiet", steps=steps))], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.train(out, "--resume", steps=steps)
            self.assertEqual(self.weights(out), self.weights("whole"), delay)
            leftovers = [p.name for p in (self.dir / out).iterdir() if "tmp" in p.name]
            self.assertEqual(leftovers, [])

    def test_interrupt_saves_and_exits_130(self):
        process = subprocess.Popen([BINARY, *map(str, self.arguments("stopped", steps=1000000))], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(600):
            if list((self.dir / "stopped").glob("checkpoint-*")):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        steps = max(int(p.name.split("-")[1]) for p in (self.dir / "stopped").glob("checkpoint-*"))
        self.assertEqual(steps, self.metrics("stopped")[-1]["step"])  # the last update done is in a checkpoint

    def test_out_folder_is_protected(self):
        (self.dir / "mine").mkdir()
        (self.dir / "mine/notes.txt").write_text("keep")
        self.assertEqual(graft(*self.arguments("mine")).code, 1)
        result = graft(*self.arguments("mine", "--overwrite"))
        self.assertEqual((self.dir / "mine/notes.txt").read_text(), "keep", result)

    def test_changed_setting_is_refused_by_name(self):
        self.train("a")
        result = graft(*self.arguments("a", "--resume", "--weight-decay", "0.5"))
        self.assertEqual(result.code, 1, result)
        self.assertIn("weight-decay", result.err.replace("_", "-"))

    def test_a_failed_start_leaves_nothing(self):
        result = graft(*self.arguments("none", "--memory-limit", "1M"))
        self.assertEqual(result.code, 1, result)
        self.assertFalse((self.dir / "none").exists(), list(self.dir.iterdir()))

    def test_dry_run_trains_nothing(self):
        result = graft(*self.arguments("dry", "--dry-run", "--json"))
        self.assertEqual(result.code, 0, result)
        answer = result.json()
        for key in ("rows", "tokens", "trained_tokens", "longest", "steps", "forecast_memory_bytes", "seconds"):
            self.assertIn(key, answer)
        self.assertFalse((self.dir / "dry").exists())
        said = graft(*self.arguments("dry", "--dry-run"))  # the answer is a result
        self.assertIn("peak memory", said.out)
        self.assertIn("nothing was written", said.out)
        self.assertEqual(said.err, "")


if __name__ == "__main__":
    unittest.main()
