"""Shared by the command-line tests: runs the built binary (GRAFT_BINARY) and looks at what a user would see."""

import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

BINARY = os.environ.get("GRAFT_BINARY", "build/release/graft")
SANITIZED = "GRAFT_SANITIZED" in os.environ  # slower, and shadow memory is no part of a forecast or a limit
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TINY = str(ROOT / "tests/data/tiny")  # a model of a few kilobytes, without a tokenizer


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        """Standard output as the one JSON object that --json promises."""
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def graft(*arguments, env=None, timeout=120):
    environment = {**os.environ, **(env or {})}
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=environment,
                          stdin=subprocess.DEVNULL, timeout=timeout)
    return Result(done.returncode, done.stdout, done.stderr)


class FolderTest(unittest.TestCase):
    """Tests that each have a folder of their own, `dir`."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="graft-test-")
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)

    def run_graft(self, *arguments, code=0):
        result = graft(*arguments)
        self.assertEqual(result.code, code, result)
        return result


def fixtures():
    """Folder of the fixtures, or None."""
    folder = pathlib.Path(os.environ.get("GRAFT_SHARED", "../shared")) / "fixtures"
    return folder if folder.is_dir() else None


def write_safetensors(path, tensors):
    """{name: (shape, list of int)} as I64."""
    header, data = {}, b""
    for name, (shape, values) in sorted(tensors.items()):
        block = struct.pack(f"<{len(values)}q", *values)
        header[name] = {"dtype": "I64", "shape": list(shape), "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def batches(path, count=4, batch=2, length=8, vocabulary=32):
    """Pre-tokenised training data that needs no tokenizer: a rule that can be learned (each id is the last plus one)."""
    ids = [(3 * b + t) % vocabulary for b in range(count * batch) for t in range(length)]
    write_safetensors(path, {"input_ids": ((count, batch, length), ids), "labels": ((count, batch, length), ids)})
