"""A run that is killed at random moments, or interrupted, and resumed ends in the bytes of the undisturbed run."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
import unittest

from graft_cli import BINARY, TINY, FolderTest, batches, fixtures, graft

KILLS = 4  # per method; the slow test does 30
LORA, FULL = ["--targets", "all-linear", "--lr", "1e-2"], ["--method", "full", "--lr", "1e-3"]


def contents(folder):
    """Weights, and the newest checkpoint's tensors."""
    files = [*folder.glob("*.safetensors"), *max(folder.glob("checkpoint-*"), key=lambda p: int(p.name[11:])).glob("*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Resume(FolderTest):
    def setUp(self):
        super().setUp()
        self.model, self.data = TINY, self.dir / "data.safetensors"
        batches(self.data, count=7)
        self.valid = self.dir / "valid.safetensors"
        batches(self.valid, count=2)

    def command(self, out, method, *extra, steps):
        return [BINARY, "train", "--model", self.model, "--data", self.data, "--out", self.dir / out, "--steps", steps, "--accumulate", 3,
                "--dtype", "f32", "--save-every", 2, "--valid", self.valid, "--eval-every", 3, *method, *extra]

    def start(self, *arguments, **more):
        return subprocess.Popen([str(a) for a in self.command(*arguments, **more)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, *arguments, code=0, **more):
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, err)
        return out, err

    def check_end(self, out, reference, steps):
        self.assertEqual(sorted(contents(self.dir / out)), sorted(reference))
        for name, content in contents(self.dir / out).items():
            self.assertEqual(content, reference[name], f"{out}/{name}")
        lines = [json.loads(line) for line in (self.dir / out / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines if "loss" in line], list(range(1, steps + 1)))
        evaluated = sorted({*range(3, steps + 1, 3), steps})
        self.assertEqual([line["step"] for line in lines if "eval_loss" in line], evaluated)
        self.assertEqual([p.name for p in (self.dir / out).iterdir() if ".tmp-" in p.name], [])

    def kill_until_done(self, method, kills, steps, seed):
        begin = time.monotonic()
        self.finish("whole", method, steps=steps)
        usual = time.monotonic() - begin
        reference = contents(self.dir / "whole")
        draw = random.Random(seed)
        killed, out = 0, "killed"
        while killed < kills:
            process = self.start(out, method, "--resume", "--quiet", steps=steps)
            try:
                _, err = process.communicate(timeout=draw.uniform(0.01, usual))
                self.assertEqual(process.returncode, 0, err)
                # Done before the moment came: check, and once more from the start.
                self.check_end(out, reference, steps)
                shutil.rmtree(self.dir / out)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
        self.finish(out, method, "--resume", steps=steps)
        self.check_end(out, reference, steps)

    def test_killed_lora(self):
        self.kill_until_done(LORA, KILLS, 24, 1)

    def test_killed_full(self):
        self.kill_until_done(FULL, KILLS, 24, 2)

    @unittest.skipUnless(os.environ.get("GRAFT_SLOW"), "slow")
    def test_slow_killed_often(self):
        self.kill_until_done(LORA, 30, 60, 3)
        shutil.rmtree(self.dir / "whole"), shutil.rmtree(self.dir / "killed", ignore_errors=True)
        self.kill_until_done(FULL, 30, 40, 4)

    @unittest.skipUnless(fixtures(), "no fixtures")
    def test_killed_with_dropout_and_shuffled_rows(self):
        """Text rows in shuffled epochs: the data position and every random draw come back."""
        self.model, self.data = fixtures() / "models/qwen2", self.dir / "train.jsonl"
        rows = (fixtures() / "data/shelfql/train.jsonl").read_text().splitlines()[:50]
        self.data.write_text("\n".join(rows[:40]) + "\n")
        self.valid = self.dir / "valid.jsonl"
        self.valid.write_text("\n".join(rows[40:]) + "\n")
        method = [*LORA, "--dropout", "0.2", "--batch-size", 2, "--schedule", "cosine", "--warmup", "10%"]
        self.kill_until_done(method, 2, 12, 5)

    def test_signals_save_and_say_how_to_go_on(self):
        for number, method in ((signal.SIGINT, LORA), (signal.SIGTERM, FULL)):
            with self.subTest(number):
                name, out = signal.Signals(number).name, "out-" + signal.Signals(number).name
                steps = 24
                self.finish(name, method, steps=steps)
                process = self.start(out, method, "--json", steps=steps)
                metrics = self.dir / out / "metrics.jsonl"
                while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
                    time.sleep(0.002)
                process.send_signal(number)
                printed, err = process.communicate(timeout=60)
                if process.returncode == 0:  # finished first: a machine too fast for the signal
                    continue
                self.assertEqual(process.returncode, 130, err)
                self.assertIn("--resume", err)
                self.assertLess(json.loads(printed)["steps"], steps)
                # The command that the message gives goes on, without any other flag.
                line = next(line for line in err.splitlines() if "graft train --resume" in line)
                arguments = line[line.index("graft train") :].split()[1:]
                result = graft(*arguments)
                self.assertEqual(result.code, 0, result)
                self.check_end(out, contents(self.dir / name), steps)

    def test_signal_before_the_first_update(self):
        process = self.start("early", LORA, steps=40)
        time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertIn(process.returncode, (130, -signal.SIGTERM))
        # Whatever was made by then, the run goes on from it.
        self.finish("early", LORA, "--resume", "--quiet", steps=40)
        self.finish("whole", LORA, steps=40)
        self.check_end("early", contents(self.dir / "whole"), 40)


if __name__ == "__main__":
    unittest.main()
