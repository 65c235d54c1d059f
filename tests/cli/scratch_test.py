"""Training from nothing as people do it: a tokenizer and a mixture of experts from a text file, validation, recompute, resume, bad texts."""

import json
import pathlib
import shutil
import tempfile
import unittest

from graft_cli import ROOT, FolderTest, graft

CONFIG = {"model_type": "graft_moe", "vocab_size": 400, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
          "max_position_embeddings": 64, "tie_word_embeddings": True, "eos_token_id": 0}


class Scratch(FolderTest):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="graft-test-")
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.base = pathlib.Path(cls.temporary.name)
        cls.text = cls.base / "text.txt"
        cls.text.write_text((ROOT / "LICENSE").read_text())
        (cls.base / "config.json").write_text(json.dumps(CONFIG))
        for command in (["tokenizer", "train", cls.text, "--vocab-size", 400, "--out", cls.base / "tokenizer"],
                        ["init", "--config", cls.base / "config.json", "--tokenizer", cls.base / "tokenizer", "--seed", 1, "--out", cls.base / "start"]):
            result = graft(*command)
            assert result.code == 0, result

    def train(self, out, *extra, data=None, dtype="f32", code=0):
        result = graft("train", "--method", "full", "--model", self.base / "start", "--data", data or self.text, "--out", self.dir / out, "--lr", "5e-3",
                       "--batch-size", 8, "--valid", "5%", "--steps", 12, "--save-every", 6, "--eval-every", 6, "--dtype", dtype, "--json", *extra)
        self.assertEqual(result.code, code, result)
        return result

    def weights(self, out):
        return (self.dir / out / "model.safetensors").read_bytes()

    def test_a_text_file_is_learned(self):
        plan = self.train("unused", "--dry-run").json()
        self.assertEqual(plan["longest"], 64)
        told = self.train("out").json()
        lines = [json.loads(line) for line in (self.dir / "out/metrics.jsonl").read_text().splitlines()]
        steps = [line for line in lines if "loss" in line]
        held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
        self.assertLess(steps[-1]["cross_entropy"], steps[0]["cross_entropy"] - 0.5)
        self.assertLess(held_out[-1], held_out[0])
        self.assertEqual(told["eval_loss"], held_out[-1])
        for line in steps:
            self.assertTrue(0.25 <= line["expert_share_max"] <= 1 and line["dead_experts"] == 0, line)
        self.assertIn("\"loads\":{\"step\":[1,2,", (self.dir / "out/report.html").read_text())

        # Activations computed again, another number of threads, and a run that goes on in the middle: the same bytes.
        self.train("again", "--recompute", "every:1", "--threads", 1)
        self.assertEqual(self.weights("again"), self.weights("out"))
        (self.dir / "resumed").mkdir()
        shutil.copytree(self.dir / "out/checkpoint-6", self.dir / "resumed/checkpoint-6")
        result = graft("train", "--resume", self.dir / "resumed/checkpoint-6", "--out", self.dir / "resumed", "--quiet")
        self.assertEqual(result.code, 0, result)
        self.assertEqual(self.weights("resumed"), self.weights("out"))

        # What it writes decodes, and ends at the end token or the limit.
        said = graft("generate", self.dir / "out", "--prompt", "You may", "--max-tokens", 8, "--json").json()
        self.assertTrue(1 <= said["completion_tokens"] <= 8, said)
        loss = graft("eval", self.dir / "out", "--data", self.text, "--json").json()
        self.assertEqual(loss["rows"], plan["rows"])

    def test_bf16_learns_alike(self):
        f32, bf16 = self.train("f32").json(), self.train("bf16", dtype="bf16").json()
        self.assertNotEqual(f32["loss"], bf16["loss"])
        self.assertAlmostEqual(f32["eval_loss"], bf16["eval_loss"], delta=0.02 * f32["eval_loss"])  # bf16 keeps 8 bits of each operand

    def test_long_rows_are_split_where_asked(self):
        rows = self.dir / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": part * 20}) + "\n" for part in ("one two three. ", "four five six. ", "seven eight. ")))
        refused = self.train("no", data=rows, code=1)
        self.assertIn("max_length is 64", refused.err)
        plan = self.train("yes", "--too-long", "split", "--dry-run", data=rows).json()
        self.assertGreater(plan["rows"], 3)
        self.assertEqual(plan["longest"], 64)

    def test_bad_texts_give_one_clear_line(self):
        for name, content, word in (("zero", b"", "no rows"), ("blank", b" \n", "no rows"), ("one", b"a", ""), ("invalid", b"one two \xc0\xaf", "UTF-8")):
            with self.subTest(name):
                path = self.dir / f"{name}.txt"
                path.write_bytes(content)
                result = self.train("out", data=path, code=1)
                self.assertEqual([line.split(":")[0] for line in result.err.splitlines()], ["error", "hint"], result)
                self.assertIn(word, result.err)
                self.assertFalse((self.dir / "out").exists())

    def test_a_tokenizer_larger_than_the_model_is_refused(self):
        (self.dir / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 300}))
        graft("init", "--config", self.dir / "config.json", "--tokenizer", self.base / "tokenizer", "--out", self.dir / "small")
        result = graft("train", "--method", "full", "--model", self.dir / "small", "--data", self.text, "--out", self.dir / "out")
        self.assertEqual(result.code, 1, result)
        self.assertIn("the embedding has 300 rows", result.err)


if __name__ == "__main__":
    unittest.main()
