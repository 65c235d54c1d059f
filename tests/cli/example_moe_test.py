"""The commands of examples/moe/README.md, with fewer steps, and the file of stories that its script writes."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

from graft_cli import BINARY, ROOT

EXAMPLE = ROOT / "examples/moe"


class Example(unittest.TestCase):
    def test_commands_of_the_readme(self):
        readme = (EXAMPLE / "README.md").read_text()
        block = re.search(r"```\n(graft .*?)```", readme, re.DOTALL)[1].replace("\\\n", " ")
        commands = [shlex.split(line) for line in block.splitlines() if line.strip()]
        self.assertEqual([command[1] for command in commands], ["tokenizer", "init", "train", "generate"])
        with tempfile.TemporaryDirectory(prefix="graft-test-") as folder:
            os.symlink(ROOT / "examples", pathlib.Path(folder) / "examples")
            for command in commands:
                if command[1] == "train":
                    for flag, value in (("--steps", "4"), ("--warmup", "1"), ("--eval-every", "4")):
                        command[command.index(flag) + 1] = value
                if command[1] == "generate":
                    command[command.index("--max-tokens") + 1] = "5"
                done = subprocess.run([pathlib.Path(BINARY).resolve(), *command[1:]], cwd=folder, capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode, 0, (command, done.stderr))
            self.assertTrue(done.stdout.strip())
            out = pathlib.Path(folder) / commands[2][commands[2].index("--out") + 1]
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            losses = [line["cross_entropy"] for line in lines if "cross_entropy" in line]
            self.assertLess(losses[-1], losses[0])
            self.assertTrue(any("eval_loss" in line for line in lines))
            self.assertEqual(max(line.get("dead_experts", 0) for line in lines), 0)

    def test_the_script_writes_the_stories(self):
        done = subprocess.run([sys.executable, EXAMPLE / "make_stories.py"], capture_output=True, check=True)
        self.assertEqual(done.stdout, (EXAMPLE / "stories.jsonl").read_bytes())


if __name__ == "__main__":
    unittest.main()
