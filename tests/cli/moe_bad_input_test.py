"""What goes wrong around a mixture of experts: configurations, texts of no use, checkpoints and adapters of another model. Each a
clear line, exit 1 and nothing written; what does no harm works. NaN, collapse and the library's own errors: tests/moe_*_test.cc."""

import json
import pathlib
import shutil
import struct
import unittest

from graft_cli import ROOT, FolderTest, batches

TOKENIZER = ROOT / "tests/data/tokenizer/qwen2"  # 2,000 tokens
CONFIG = {"model_type": "graft_moe", "vocab_size": 2000, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
          "max_position_embeddings": 64, "rope_theta": 10000.0}


class MoeBadInput(FolderTest):
    def model(self, name="model", **changes):
        config = self.dir / f"{name}.json"
        config.write_text(json.dumps({**CONFIG, **changes}))
        self.run_graft("init", "--config", config, "--tokenizer", TOKENIZER, "--out", self.dir / name)
        return self.dir / name

    def train(self, data, out="out", *extra, code=0, model="model", method="full"):
        return self.run_graft("train", "--model", self.dir / model, "--data", data, "--out", self.dir / out, "--method", method, "--steps", 2,
                              "--dtype", "f32", *extra, code=code)

    def refused(self, result, *words):
        """One line of error, with its words, and perhaps a hint."""
        lines = [line for line in result.err.splitlines() if not line.startswith("hint: ")]
        self.assertEqual(len([line for line in lines if line.startswith("error: ")]), 1, result)
        for word in words:
            self.assertIn(word, result.err, result)

    def test_texts_of_no_use(self):
        self.model()
        cases = {"zero": (b"", ["has no rows"]), "blank": (b"\n", ["has no rows"]), "invalid": (b"words, then \xff\xfe and \xc0\xaf\n", ["UTF-8"]),
                 "cut": ("word é".encode()[:-1], ["UTF-8"]), "utf16": ("a text".encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
                 "gzip": (b"\x1f\x8b\x08\x00", ["gzip"])}
        for name, (content, words) in cases.items():
            path = self.dir / f"{name}.txt"
            path.write_bytes(content)
            with self.subTest(name):
                self.refused(self.train(path, code=1), f"{name}.txt", *words)
                self.refused(self.run_graft("eval", self.dir / "model", "--data", path, code=1), f"{name}.txt", *words)
                self.assertFalse((self.dir / "out").exists())
        # One byte is a text: one token, and the end that follows it.
        (self.dir / "one.txt").write_bytes(b"a")
        self.train(self.dir / "one.txt", "one")
        lines = [json.loads(line) for line in (self.dir / "one/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["num_tokens"] for line in lines], [2, 4])
        self.assertTrue(all(line["loss"] > 0 for line in lines))
        loss = self.run_graft("eval", self.dir / "one", "--data", self.dir / "one.txt", "--json").json()
        self.assertEqual(loss["tokens"], 1)

    def test_numbers_in_data_that_are_no_ids(self):
        self.model()
        header = {name: {"dtype": "F32", "shape": [1, 1, 4], "data_offsets": [16 * i, 16 * i + 16]} for i, name in enumerate(["input_ids", "labels"])}
        text = json.dumps(header).encode()
        content = struct.pack("<Q", len(text)) + text + struct.pack("<8f", 1, 2, float("nan"), 3, 1, 2, 3, 4)
        (self.dir / "nan.safetensors").write_bytes(content)
        self.refused(self.train(self.dir / "nan.safetensors", code=1), "input_ids is F32, expected I64")
        (self.dir / "nan.jsonl").write_text('{"text": "a row"}\n{"text": NaN}\n')
        self.refused(self.train(self.dir / "nan.jsonl", code=1), "nan.jsonl:2")
        (self.dir / "weight.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1e999}]}\n')
        self.refused(self.train(self.dir / "weight.jsonl", code=1), "weight.jsonl:1")

    def test_configurations(self):
        def refused(*words, **changes):
            config = self.dir / "bad.json"
            config.write_text(json.dumps({**CONFIG, **changes}))
            self.refused(self.run_graft("init", "--config", config, "--out", self.dir / "bad", code=1), *words)
            self.assertFalse((self.dir / "bad").exists())
        refused("num_experts_per_tok is 5", "num_local_experts = 4", num_experts_per_tok=5)
        refused("num_experts_per_tok is the number 0", num_experts_per_tok=0)
        refused("num_local_experts", "2.5", num_local_experts=2.5)
        refused("num_key_value_heads is 2", "num_attention_heads = 3", num_attention_heads=3, num_key_value_heads=2)
        # Tokens and widths that the number of experts does not divide are no fault: rows are sorted, not cut into equal parts.
        self.model("three", num_local_experts=3, intermediate_size=20)
        batches(self.dir / "seven.safetensors", count=2, batch=1, length=7)
        self.train(self.dir / "seven.safetensors", model="three")
        lines = [json.loads(line) for line in (self.dir / "out/metrics.jsonl").read_text().splitlines()]
        self.assertTrue(all(line["loss"] > 0 and line["expert_share_max"] <= 0.5 for line in lines))

    def test_a_model_of_another_configuration(self):
        model = self.model()
        def edited(**changes):
            config = json.loads((model / "config.json").read_text())
            (model / "config.json").write_text(json.dumps({**config, **changes}))
        for changes, words in (({"num_local_experts": 5}, ["mlp.experts.4.", "mlp.gate.weight"]), ({"num_local_experts": 3}, ["mlp.gate.weight", "[4, 16]", "[3, 16]"]),
                               ({"intermediate_size": 32}, ["mlp.experts.0.gate_proj.weight", "[24, 16]", "[32, 16]"]), ({"mlp_only_layers": [1]}, ["model.layers.1.mlp.gate_proj.weight"])):
            kept = (model / "config.json").read_text()
            edited(**changes)
            with self.subTest(changes):
                self.refused(self.run_graft("generate", model, "--prompt", "a", "--max-tokens", 1, code=1), *words)
            (model / "config.json").write_text(kept)

    def test_checkpoints_and_adapters_of_another_configuration(self):
        model = self.model()
        data = self.dir / "data.safetensors"
        batches(data)
        self.train(data, "full", "--save-every", 1)
        self.train(data, "adapter", "--save-every", 1, "--targets", "all-linear", "--rank", 2, method="lora")
        shutil.rmtree(self.dir / "full/checkpoint-2")
        shutil.rmtree(self.dir / "adapter/checkpoint-2")
        shutil.move(model, self.dir / "kept")
        # The same tensors, another rule; other tensors.
        for changes, words in (({"num_experts_per_tok": 1}, ["num_experts_per_tok is 2, expected 1"]),
                               ({"num_local_experts": 5}, ["the number of experts is 4, expected 5"]), ({"intermediate_size": 32}, ["intermediate_size is 24, expected 32"]),
                               ({"rope_scaling": {"rope_type": "ntk", "factor": 8}}, ["rope_scaling is \"default\", expected \"ntk\"", "rope_scaling is 1.0, expected 8.0"])):
            self.model(**changes)
            with self.subTest(changes):
                before = sorted((self.dir / "full").rglob("*"))
                self.refused(self.run_graft("train", "--resume", "--out", self.dir / "full", code=1), "checkpoint of another model", *words)
                self.assertEqual(sorted((self.dir / "full").rglob("*")), before)
            shutil.rmtree(model)
        self.model(num_local_experts=3)
        resumed = self.run_graft("train", "--resume", "--out", self.dir / "adapter", code=1)
        self.refused(resumed, "mlp.experts.3.")
        used = self.run_graft("generate", model, "--adapter", self.dir / "adapter", "--prompt", "a", "--max-tokens", 1, code=1)
        self.refused(used, "mlp.experts.3.")
        shutil.rmtree(model)
        shutil.move(self.dir / "kept", model)
        self.run_graft("train", "--resume", "--out", self.dir / "full", "--quiet")
        self.run_graft("train", "--resume", "--out", self.dir / "adapter", "--quiet")


if __name__ == "__main__":
    unittest.main()
