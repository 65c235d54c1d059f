"""Signals, two runs in one folder, and other things a user does to a running command: exit 130, nothing half made."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest

from graft_cli import BINARY, ROOT, TINY, FolderTest, batches, fixtures, graft

FIXTURES = fixtures()


def start(*arguments, **more):
    return subprocess.Popen([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("what was waited for did not come")
        time.sleep(0.01)


class Control(FolderTest):
    def setUp(self):
        super().setUp()
        batches(self.dir / "data.safetensors")

    def stop(self, process, number=signal.SIGINT):
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def test_one_run_in_a_folder(self):
        out = self.dir / "out"
        train = ["train", "--model", TINY, "--data", self.dir / "data.safetensors", "--out", out, "--steps", 10000000, "--save-every", 0]
        first = start(*train)
        wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size > 0)
        for flag in ("--resume", "--overwrite"):
            second = graft(*train, flag)
            self.assertEqual(second.code, 1, second)
            self.assertIn(f"{out}: another graft is writing to this folder", second.err)
            self.assertIn("hint: wait for it to end, or choose another --out", second.err)
        self.assertTrue((out / "config.toml").exists())  # nothing was taken away
        code, _, err = self.stop(first)
        self.assertEqual(code, 130, err)
        # The lock ends with the process; no file of it is left to be cleaned up.
        for end in (signal.SIGKILL, signal.SIGINT):
            lines = len((out / "metrics.jsonl").read_text().splitlines())
            again = start(*train, "--resume")
            wait_for(lambda: again.poll() is not None or len((out / "metrics.jsonl").read_text().splitlines()) > lines)
            code, _, err = self.stop(again, end)
            self.assertEqual(code, -9 if end == signal.SIGKILL else 130, err)

    def test_init_and_merge_leave_nothing(self):
        config = json.loads(pathlib.Path(TINY, "config.json").read_text())
        config.update(vocab_size=60000, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8, head_dim=64)
        (self.dir / "config.json").write_text(json.dumps(config))
        for number in (signal.SIGINT, signal.SIGTERM):
            process = start("init", "--config", self.dir / "config.json", "--out", self.dir / "model", "--threads", 1)
            wait_for(lambda: process.poll() is not None or len(list(self.dir.iterdir())) > 2)  # its temporary folder
            code, _, err = self.stop(process, number)
            self.assertEqual(code, 130, err)
            self.assertEqual({p.name for p in self.dir.iterdir()}, {"config.json", "data.safetensors"})
        self.assertEqual(graft("init", "--config", self.dir / "config.json", "--out", self.dir / "model").code, 0)
        train = graft("train", "--model", self.dir / "model", "--data", self.dir / "data.safetensors", "--out", self.dir / "adapter", "--steps", 1, "--targets", "all-linear")
        self.assertEqual(train.code, 0, train)
        before = {p.name for p in self.dir.iterdir()}
        process = start("merge", self.dir / "model", self.dir / "adapter", "--out", self.dir / "merged", "--threads", 1)
        wait_for(lambda: process.poll() is not None or {p.name for p in self.dir.iterdir()} != before)
        code, _, err = self.stop(process)
        self.assertEqual(code, 130, err)
        self.assertEqual({p.name for p in self.dir.iterdir()}, before)

    @unittest.skipUnless(FIXTURES, "no fixtures")
    def test_reading_commands_end_at_once(self):
        model = FIXTURES / "models/pystd-5m"
        rows = [json.loads(line) for line in (FIXTURES / "data/shelfql/test.jsonl").read_text().splitlines()]
        (self.dir / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 20))
        for number in (signal.SIGINT, signal.SIGTERM):
            process = start("eval", model, "--data", self.dir / "rows.jsonl", "--metrics", "loss,exact_match", "--threads", 1)
            time.sleep(0.5)
            code, out, err = self.stop(process, number)
            self.assertEqual((code, out, err), (130, "", "interrupted\n"))
        # What was answered before is there, in whole lines.
        (self.dir / "lines.jsonl").write_text(json.dumps({"text": "some text " * 20}) + "\n" * 1 + (json.dumps({"text": "some text " * 20}) + "\n") * 200000)
        with open(self.dir / "answers", "w") as answers:
            process = subprocess.Popen([BINARY, "tokenize", str(model), "--file", str(self.dir / "lines.jsonl")], stdout=answers)
            wait_for(lambda: (self.dir / "answers").stat().st_size > 0)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 130)
        lines = (self.dir / "answers").read_text().splitlines()
        self.assertLess(len(lines), 200001)
        for line in (lines[0], lines[-1]):
            self.assertIn("ids", json.loads(line))

    def test_want_is_known_from_the_command_line(self):
        for want, code in (("nonsense", 2), ("logits,nonsense", 2), ("embeddings", 1)):
            result = graft("dump", TINY, "--input", self.dir / "none", "--output", self.dir / "out", "--want", want)
            self.assertEqual(result.code, code, result)
            self.assertIn(want.split(",")[-1], result.err)

    def test_check_of_pretokenised_rows_without_a_tokenizer(self):
        check = graft("data", "check", self.dir / "data.safetensors", "--model", TINY, "--json")
        self.assertEqual(check.code, 0, check)
        self.assertEqual(check.json()["rows"], 8)
        self.assertEqual(graft("data", "check", self.dir / "data.safetensors", "--model", TINY, "--max-length", 4).code, 1)

    @unittest.skipUnless(FIXTURES, "no fixtures")
    def test_a_template_that_reads_the_clock_is_warned_about(self):
        model = self.dir / "model"
        shutil.copytree(FIXTURES / "data/bad/good/model", model)
        (model / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ '\\n' + m.role + ': ' + m.content }}{% endfor %}")
        row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
        (self.dir / "rows.jsonl").write_text(json.dumps(row) + "\n")
        train = ["train", "--model", model, "--data", self.dir / "rows.jsonl", "--out", self.dir / "out", "--dry-run"]
        told = graft(*train)
        self.assertEqual(told.code, 0, told)
        self.assertEqual(told.err.count("strftime_now"), 1, told)
        self.assertIn("SOURCE_DATE_EPOCH", told.err)
        self.assertNotIn("strftime_now", graft(*train, env={"SOURCE_DATE_EPOCH": "1700000000"}).err)


if __name__ == "__main__":
    unittest.main()
