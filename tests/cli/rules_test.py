"""What --resume, --overwrite, --keep and --early-stop allow; runs that go wrong: not finite, no space, no permission, wrong kinds of files."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import unittest

from graft_cli import BINARY, TINY, FolderTest, batches, graft, write_safetensors


class Folder(FolderTest):
    def setUp(self):
        super().setUp()
        self.data = self.dir / "data.safetensors"
        batches(self.data)
        self.ids = self.dir / "ids.safetensors"
        write_safetensors(self.ids, {"input_ids": ((1, 4), [1, 2, 3, 4])})

    def train(self, out, *extra, code=0, steps=6, model=TINY, env=None):
        usual = [("--lr", "1e-2"), ("--save-every", 2)]
        result = graft("train", "--model", model, "--data", self.data, "--out", self.dir / out, "--steps", steps, "--dtype", "f32",
                       *[word for flag in usual if flag[0] not in extra for word in flag], *extra, env=env)
        self.assertEqual(result.code, code, result)
        if code == 1:
            self.assertRegex(result.err, r"(?m)^error: ")
            self.assertRegex(result.err, r"(?m)^hint: ")
        return result

    def checkpoints(self, out):
        return sorted(int(p.name[11:]) for p in (self.dir / out).glob("checkpoint-*"))


class Rules(Folder):
    def test_changed_settings_are_refused_by_name_all_together(self):
        self.train("a")
        for flag, value in (("--rank", 4), ("--batch-size", 8), ("--schedule", "cosine"), ("--seed", 5), ("--steps", 9), ("--clip", "off"),
                            ("--accumulate", 2), ("--targets", "k_proj"), ("--max-length", 7)):
            result = graft("train", "--resume", "--out", self.dir / "a", flag, value)
            self.assertEqual(result.code, 1, result)
            self.assertIn(flag[2:].replace("-", "_"), result.err)
        result = graft("train", "--resume", "--out", self.dir / "a", "--rank", 4, "--lr", 1)
        self.assertIn("rank", result.err)
        self.assertIn("lr", result.err)

    def test_allowed_changes_and_a_finished_run(self):
        self.train("a")
        weights = (self.dir / "a/adapter_model.safetensors").read_bytes()
        result = self.train("a", "--resume", "--threads", 1, "--eval-every", 3, "--save-every", 1, "--keep", 5, "--quiet", "--memory-limit", "8G")
        self.assertEqual((self.dir / "a/adapter_model.safetensors").read_bytes(), weights)
        self.assertEqual(result.out, "")

    def test_resume_without_a_run_says_that_it_starts(self):
        self.assertIn("starting at update 0", self.train("new", "--resume").err)
        result = graft("train", "--resume", "--out", self.dir / "none")
        self.assertEqual(result.code, 1, result)
        self.assertIn("none", result.err)

    def test_resume_elsewhere_and_from_an_older_checkpoint(self):
        self.train("a", "--keep", 5)
        whole = (self.dir / "a/adapter_model.safetensors").read_bytes()
        steps = lambda out: [json.loads(line)["step"] for line in (self.dir / out / "metrics.jsonl").read_text().splitlines()]
        for out in ("b", "a"):
            self.train(out, "--resume", self.dir / "a/checkpoint-2")
            self.assertEqual((self.dir / out / "adapter_model.safetensors").read_bytes(), whole)
            self.assertEqual(steps(out), [1, 2, 3, 4, 5, 6])
            self.assertTrue((self.dir / out / "config.toml").exists())
        shutil.move(self.dir / "b", self.dir / "moved")  # without --out: where the checkpoint lies
        self.assertEqual(graft("train", "--resume", self.dir / "moved/checkpoint-6").code, 0)
        self.assertFalse((self.dir / "b").exists())

    def test_other_data_is_refused(self):
        self.train("a")
        batches(self.data, length=9)
        result = self.train("a", "--resume", code=1)
        self.assertIn("data", result.err)

    def test_overwrite_removes_only_what_graft_wrote(self):
        self.train("a", "--method", "full", "--keep", 9)
        (self.dir / "a/notes.txt").write_text("mine")
        (self.dir / "a/checkpoint-mine").mkdir()
        self.assertIn("--overwrite", self.train("a", code=1).err)
        self.train("a", "--overwrite", steps=2)
        self.assertEqual(sorted(p.name for p in (self.dir / "a").iterdir()),
                         ["adapter_config.json", "adapter_model.safetensors", "checkpoint-2", "checkpoint-mine", "config.toml", "graft.json", "metrics.jsonl",
                          "notes.txt", "report.html"])

    def test_merge_protects_its_out(self):
        self.train("a", steps=2)
        merge = lambda *extra, out="merged": graft("merge", TINY, self.dir / "a", "--out", self.dir / out, *extra)
        self.assertEqual(merge("--shard-size", "4K").code, 0)
        self.assertGreater(len(list((self.dir / "merged").glob("model-*"))), 1)
        (self.dir / "merged/notes.txt").write_text("mine")
        self.assertEqual(merge().code, 1)
        self.assertEqual(merge("--overwrite").code, 0)
        # No shard of the first merge stays to confuse a reader.
        self.assertEqual(list((self.dir / "merged").glob("model-*")) + list((self.dir / "merged").glob("*.index.json")), [])
        self.assertTrue((self.dir / "merged/notes.txt").exists())
        (self.dir / "file").write_text("")
        self.assertEqual(merge(out="file").code, 1)

    def test_merge_never_eats_its_own_input(self):
        self.train("a", steps=2)
        base = self.dir / "base"
        shutil.copytree(TINY, base)
        before = {p.name: p.read_bytes() for p in base.iterdir()}
        for out in (base, self.dir / "a"):
            result = graft("merge", base, self.dir / "a", "--out", out, "--overwrite")
            self.assertEqual(result.code, 1, result)
        self.assertEqual({p.name: p.read_bytes() for p in base.iterdir()}, before)

    def test_keep_and_best(self):
        valid = self.dir / "valid.safetensors"
        batches(valid, count=2)
        self.train("keep", "--keep", 3, steps=12)
        self.assertEqual(self.checkpoints("keep"), [8, 10, 12])
        result = graft("train", "--model", TINY, "--data", self.data, "--valid", valid, "--out", self.dir / "best", "--steps", 40, "--lr", 3, "--dtype", "f32",
                       "--optimizer", "adamw", "--eval-every", 2, "--save-every", 2, "--keep", 1, "--early-stop", 3, "--json")
        self.assertEqual(result.code, 0, result)
        lines = [json.loads(line) for line in (self.dir / "best/metrics.jsonl").read_text().splitlines()]
        losses = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
        best, done = min(losses, key=losses.get), max(losses)
        self.assertEqual(done, best + 6)  # three evaluations without gain
        self.assertEqual(self.checkpoints("best"), [best, done])
        self.assertEqual(result.json()["eval_loss"], losses[best])
        self.assertIn(f"update {best}", result.err)
        weights = (self.dir / "best/adapter_model.safetensors").read_bytes()
        self.assertEqual(weights, (self.dir / f"best/checkpoint-{best}/adapter_model.safetensors").read_bytes())
        again = graft("train", "--resume", "--out", self.dir / "best")  # finished, although steps are left
        self.assertEqual(again.code, 0, again)
        self.assertEqual((self.dir / "best/adapter_model.safetensors").read_bytes(), weights)
        self.assertEqual(len((self.dir / "best/metrics.jsonl").read_text().splitlines()), len(lines))


class NotFinite(Folder):
    def test_a_rate_that_blows_up(self):
        result = self.train("a", "--lr", "1e30", "--clip", "off", "--targets", "all-linear", code=1, steps=40)
        self.assertRegex(result.err, r"update \d+ is not applied")
        self.assertIn("data.safetensors", result.err)
        self.assertRegex(result.err, r"lora_[AB]")
        self.assertIn("3 updates in a row", result.err)
        for step in self.checkpoints("a"):  # whatever was saved is whole
            self.assertEqual(graft("inspect", self.dir / f"a/checkpoint-{step}").code, 0)

    def test_nan_in_the_model(self):
        model = self.dir / "model"
        shutil.copytree(TINY, model)
        path = model / "model.safetensors"
        content = bytearray(path.read_bytes())
        (size,) = struct.unpack("<Q", content[:8])
        name, info = next((n, i) for n, i in json.loads(content[8 : 8 + size]).items() if n.endswith("mlp.up_proj.weight"))
        at = 8 + size + info["data_offsets"][0]
        content[at : at + 4] = b"\xc0\x7f\xc0\x7f"  # NaN as one f32 or two bf16
        path.write_bytes(content)
        result = self.train("a", "--save-every", 1, code=1, model=model)
        self.assertIn(name, result.err)
        self.assertIn("data.safetensors", result.err)
        result = self.train("b", model=model, env={"GRAFT_DEBUG": "ops"}, code=1)
        self.assertRegex(result.err, r"op '\w+'")
        self.assertIn("mlp", result.err)


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class Disk(Folder):
    def run_limited(self, size, *arguments):
        """A disk on which no file grows beyond `size` bytes; writes fail as they do where there is no space."""
        done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, preexec_fn=limited(size))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"(?m)^error: .*: .*\nhint: ")
        return done.stderr

    def no_leftovers(self):
        left = [p for p in self.dir.rglob("*") if ".tmp-" in p.name]
        self.assertEqual(left, [])

    def test_no_space(self):
        arguments = ["train", "--model", TINY, "--data", self.data, "--out", self.dir / "a", "--steps", 6, "--save-every", 2, "--targets", "all-linear"]
        self.assertIn("checkpoint-2", self.run_limited(4096, *arguments))
        self.assertEqual(self.checkpoints("a"), [])
        self.no_leftovers()
        self.train("ok", steps=2)
        self.run_limited(8192, "merge", TINY, self.dir / "ok", "--out", self.dir / "merged")
        self.no_leftovers()
        self.assertFalse((self.dir / "merged").exists() and list((self.dir / "merged").iterdir()))
        self.run_limited(512, "dump", TINY, "--input", self.ids, "--output", self.dir / "dumped", "--want", "hidden")
        self.no_leftovers()
        self.assertFalse((self.dir / "dumped").exists())

    def test_a_full_standard_output_is_an_error(self):
        for arguments in (["inspect", TINY], ["inspect", TINY, "--json"], ["--help"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 1, (arguments, done.stderr))
            self.assertIn("error: ", done.stderr)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root to become somebody else")
    def test_no_permission(self):
        os.chmod(self.dir, 0o755)
        os.chmod(self.data, 0o644), os.chmod(self.ids, 0o644)
        binary = self.dir / "graft"
        shutil.copyfile(BINARY, binary), os.chmod(binary, 0o755)
        shutil.copytree(TINY, self.dir / "model")
        os.chmod(self.dir / "model", 0o755)
        for path in (self.dir / "model").iterdir():
            os.chmod(path, 0o644)
        nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", str(binary)]

        def run(*arguments):
            done = subprocess.run([*nobody, *map(str, arguments)], capture_output=True, text=True, cwd="/")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, r"(?m)^error: .*(ermission|denied)")
            self.assertRegex(done.stderr, r"(?m)^hint: ")

        train = ["train", "--model", self.dir / "model", "--data", self.data, "--steps", 1, "--out"]
        run(*train, self.dir / "new")
        (self.dir / "mine").mkdir()
        run(*train, self.dir / "mine")
        run("dump", self.dir / "model", "--input", self.ids, "--output", self.dir / "out")
        os.chmod(self.dir / "model/model.safetensors", 0o600)
        run("inspect", self.dir / "model")
        run("dump", self.dir / "model", "--input", self.ids, "--output", "/dev/null")
        os.chmod(self.data, 0o600)
        run(*train, self.dir / "new")

    def test_wrong_kinds_of_files(self):
        (self.dir / "file").write_text("x")
        folder = self.dir / "folder"
        folder.mkdir()
        dump = ["dump", TINY, "--input", self.ids, "--output"]
        train = ["train", "--model", TINY, "--data", self.data, "--steps", 1]
        for arguments in ([*dump, folder], [*dump, self.dir / "file/x"], [*dump, self.dir / "no/such/x"], ["dump", TINY, "--input", folder, "--output", "x"],
                          [*train, "--out", self.dir / "file"], [*train, "--out", self.dir / "file/x"], [*train, "--out", "/proc/x"],
                          ["inspect", "/dev/zero"], ["inspect", folder], ["inspect", self.dir / "nothing"],
                          ["tokenize", TINY, "--file", folder], ["tokenize", folder, "--file", self.dir / "file"],
                          ["generate", self.dir / "file", "--prompt", "x"], ["eval", TINY, "--data", folder], ["merge", TINY, folder, "--out", self.dir / "m"],
                          ["data", "check", folder, "--model", TINY], ["template", self.dir / "no.jinja", "--file", "-"]):
            with self.subTest(" ".join(map(str, arguments))):
                result = graft(*arguments)
                self.assertEqual(result.code, 1, result)
                self.assertRegex(result.err, r"(?m)^error: ")
                self.assertRegex(result.err, r"(?m)^hint: ")
        self.assertFalse((self.dir / "m").exists())

    def test_the_model_vanishes_while_training(self):
        for method in ("lora", "full"):
            model = self.dir / "model"
            shutil.copytree(TINY, model)
            process = subprocess.Popen([BINARY, "train", "--model", model, "--data", self.data, "--out", self.dir / method, "--steps", "300", "--method", method,
                                        "--save-every", "100"], stderr=subprocess.PIPE, text=True)
            while process.poll() is None and not (self.dir / method / "metrics.jsonl").exists():
                pass
            while process.poll() is None and not (self.dir / method / "metrics.jsonl").stat().st_size:
                pass
            shutil.rmtree(model)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, err)  # everything it needs is in memory or in --out
            self.assertTrue((self.dir / method / "checkpoint-300").exists())


if __name__ == "__main__":
    unittest.main()
