"""Every hostile or malformed input of the fixtures through the real commands: verdict, exit code, words a person needs to find the
fault, time and memory. What the fields of expect.json mean stands in the README.md beside it."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from graft_cli import BINARY, SANITIZED, FolderTest, fixtures

BAD = fixtures() and fixtures() / "data/bad"
# A machine that does other work too: what takes four times as long would fail on a quiet one.
PATIENCE = 12 if SANITIZED else 4


class Done:
    def __init__(self, code, out, err, seconds, megabytes):
        self.code, self.out, self.err, self.seconds, self.megabytes = code, out, err, seconds, megabytes


def run(arguments, stdin=b"", timeout=60):
    """Runs the binary; its peak resident size comes from wait4."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        begin = time.monotonic()
        process = subprocess.Popen([BINARY, *map(str, arguments)], stdin=given, stdout=out, stderr=err)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Done(process.returncode, *texts, seconds, 0 if SANITIZED else usage.ru_maxrss / 1024)


def input_of(case, folder):
    """The case laid out in `folder`; the path that is given to graft."""
    place = folder / case["id"]
    place.mkdir()
    if case["base"]:
        shutil.copytree(BAD / case["base"], place, dirs_exist_ok=True)
    for name in case.get("remove", []):
        (place / name).unlink(missing_ok=True)
    for name in case["files"]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BAD / case["id"] / name, place / name)
    if case["how"] == "read data" and not case["base"]:
        if case.get("argument"):
            return BAD / case["argument"]
        return place / case["files"][0] if case["files"] else place
    return place


def commands(case, path, out):
    """(arguments, standard input) of every command that reads the case."""
    how = case["how"]
    text = case.get("text", "some text")
    dump = ["dump", path, "--input", BAD / "good/golden.safetensors", "--output", out, "--want", "logits", "--threads", 1]
    tokenize = (["tokenize", path, "--file", "-"], json.dumps({"text": text}).encode())
    if how == "load adapter":
        dump[1] = BAD / "good/model"
        return [(dump + ["--adapter", path], b"")]
    if how in ("load model", "load tensors", "load gguf"):
        return [(dump, b"")]
    if how == "load tokenizer":
        return [tokenize]
    if how == "load model and tokenizer":
        # Each command sees one half: what ties them together is found where both are read.
        return [(["generate", path, "--prompt", text, "--max-tokens", 1], b"")]
    if how == "render":
        return [(["template", path, "--file", "-"], json.dumps({"messages": case["messages"]}).encode())]
    if how == "read data":
        length = ["--max-length", case["max_length"]] if "max_length" in case else []
        return [(["data", "check", path, "--model", BAD / case["model"], *length], b"")]
    assert how == "resume", how
    return [(["train", "--model", BAD / "good/model", "--data", BAD / "good/train.jsonl", "--out", out, "--resume", given], b"")
            for given in (path, path / "checkpoint-40")]


def answer_of(done):
    """ok, warn or refuse, whatever way a command has to say so; anything else is a crash."""
    if done.code == 1:
        return "refuse"
    if done.code != 0:
        return f"exit {done.code}"
    for line in done.out.splitlines():
        if line.startswith('{"error"'):
            return "refuse"
    return "warn" if "warning: " in done.err else "ok"


def allowed(verdict):
    if verdict == "bounded":
        return {"refuse", "warn", "ok"}
    if verdict == "ok":
        return {"ok", "warn"}
    return set(verdict.replace(",", " or ").replace("or or", "or").split(" or ")) if " " in verdict else {verdict}


def missing_words(case, done):
    said = (done.out + done.err).lower()
    wanted = [[entry] if isinstance(entry, str) else entry for entry in case.get("mention") or []]
    return [words for words in wanted if not any(str(word).lower() in said for word in words)]


def faults_of(case, folder, usual):
    path, out = input_of(case, folder), folder / (case["id"] + ".out")
    faults = []
    for arguments, stdin in commands(case, path, out):
        done = run(arguments, stdin)
        answer = answer_of(done)
        verdicts = {word.strip() for word in allowed(case["verdict"])}
        if answer not in verdicts:
            faults.append(f"answer {answer}, expected {case['verdict']}")
        if answer == "refuse":
            if done.code == 1 and arguments[0] != "data" and "error: " not in done.err:
                faults.append("no line error:")
            if out.exists():
                faults.append("something was written")
        if answer != "ok" or case["verdict"] != "ok":
            lacking = missing_words(case, done) if answer in ("refuse", "warn") else []
            if lacking:
                faults.append(f"does not mention {lacking}")
        limit = case["limit"]
        if done.seconds > PATIENCE * limit["seconds"]:
            faults.append(f"took {done.seconds:.1f} s, limit {limit['seconds']}")
        if done.megabytes > usual[arguments[0]] + limit["mb"]:
            faults.append(f"took {done.megabytes:.0f} MB, {usual[arguments[0]]:.0f} on good input, limit + {limit['mb']}")
        if case["verdict"] == "ok" and "rows" in case.get("expect", {}):
            check = json.loads(run([*arguments, "--json"]).out)
            if check["rows"] != case["expect"]["rows"]:
                faults.append(f"{check['rows']} rows, expected {case['expect']['rows']}")
        if case["verdict"] == "ok" and "ids" in case.get("expect", {}):
            ids = json.loads(done.out)["ids"]
            if ids != case["expect"]["ids"]:
                faults.append(f"ids {ids}, expected {case['expect']['ids']}")
        if faults:
            said = (done.err + done.out).strip()
            faults.append("    graft " + " ".join(map(str, arguments)) + "\n    " + said[:700].replace("\n", "\n    "))
            break
    shutil.rmtree(path if path.is_relative_to(folder) and path.is_dir() else folder / case["id"], ignore_errors=True)
    return faults


@unittest.skipUnless(BAD and BAD.is_dir(), "no fixtures")
class BadCases(FolderTest):
    def usual(self):
        """MB that each command takes on good input."""
        model, out = BAD / "good/model", self.dir / "usual"
        conversation = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
        given = {"dump": (["dump", model, "--adapter", BAD / "good/adapter", "--input", BAD / "good/golden.safetensors", "--output", out, "--threads", 1], b""),
                 "tokenize": (["tokenize", model, "--file", "-"], b'{"text": "some text"}'),
                 "generate": (["generate", model, "--prompt", "a", "--max-tokens", 1], b""),
                 "template": (["template", model, "--file", "-"], conversation),
                 "data": (["data", "check", BAD / "good/train.jsonl", "--model", model], b""),
                 "train": (["train", "--model", model, "--data", BAD / "good/train.jsonl", "--out", self.dir / "trained", "--steps", 1], b"")}
        usual = {}
        for name, (arguments, stdin) in given.items():
            done = run(arguments, stdin)
            self.assertEqual(done.code, 0, f"graft {arguments}: {done.err}")
            usual[name] = done.megabytes
        return usual

    def test_every_case(self):
        cases = [case for case in json.loads((BAD / "expect.json").read_text())["cases"] if not case["id"].startswith(("gguf-", "ok-gguf"))]
        wanted = os.environ.get("GRAFT_CASES")
        cases = [case for case in cases if not wanted or case["id"].startswith(tuple(wanted.split(",")))]
        usual = self.usual()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda case: (case, faults_of(case, self.dir, usual)), cases))
        failed = [f"{case['id']} ({case['wrong'] if 'wrong' in case else case['kind']}): " + "; ".join(faults) for case, faults in answers if faults]
        self.assertFalse(failed, f"{len(failed)} of {len(cases)} cases:\n" + "\n".join(failed))


@unittest.skipUnless(BAD and BAD.is_dir() and os.environ.get("GRAFT_SLOW"), "slow, or no fixtures")
class SlowBigCases(unittest.TestCase):
    def test_big(self):
        generate = fixtures() / "generate/gen_bad.py"
        with tempfile.TemporaryDirectory(prefix="graft-test-") as name:
            folder = pathlib.Path(name)
            subprocess.run([sys.executable, "-B", generate, "big", folder], check=True, cwd=generate.parent)
            model = folder / "model"
            shutil.copytree(BAD / "good/model", model)
            size = lambda file: (folder / file).stat().st_size / 2**20
            check = lambda file, *more: run(["data", "check", folder / file, "--model", model, *more], timeout=120)

            line = check("data-5mb-line.jsonl", "--max-length", 64)
            self.assertIn(answer_of(line), ("warn", "refuse"), line.err)
            self.assertIn("data-5mb-line.jsonl:1", line.out + line.err)
            self.assertLess(line.megabytes, 64 + 10 * size("data-5mb-line.jsonl"))
            cut = check("data-5mb-line.jsonl", "--max-length", 64, "--too-long", "truncate")
            self.assertEqual(cut.code, 0, cut.err)
            self.assertLess(cut.megabytes, 64 + 10 * size("data-5mb-line.jsonl"))

            rows = check("data-million-rows.jsonl", "--json")
            self.assertEqual(json.loads(rows.out)["rows"], 1000000)
            self.assertLess(rows.seconds, 20 * PATIENCE)

            shutil.copyfile(folder / "st-many-tensors.safetensors", model / "model.safetensors")
            many = run(["dump", model, "--input", BAD / "good/golden.safetensors", "--output", folder / "out"])
            self.assertEqual(many.code, 1, many.err)
            self.assertLess(many.seconds, 5 * PATIENCE)
            self.assertLess(len(many.err), 20000)  # a message, not a list of 200000 names

            long = run(["template", folder / "tpl-long.jinja", "--file", "-"], b'{"messages": [{"role": "user", "content": "x"}]}')
            self.assertIn(long.code, (0, 1))
            self.assertLess(long.seconds, 5 * PATIENCE)

            word = json.dumps({"text": (folder / "tok-long-word.txt").read_text()}).encode()
            split = run(["tokenize", BAD / "good/model", "--file", "-"], word)
            self.assertEqual(split.code, 0, split.err)
            self.assertLess(split.seconds, 10 * PATIENCE)


if __name__ == "__main__":
    if not BAD:
        sys.exit(77)
    unittest.main()
