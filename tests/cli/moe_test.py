"""A mixture of experts on the command line: made from a config, trained from nothing, looked at, resumed, adapted, merged."""

import json
import pathlib
import shutil
import unittest

from graft_cli import FolderTest, batches, write_safetensors

CONFIG = {"model_type": "graft_moe", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
          "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_interleaved": True, "mlp_only_layers": [1],
          "rope_scaling": {"rope_type": "ntk", "factor": 8}, "shared_expert_intermediate_size": 24, "router_z_loss_coef": 0.001}


class Moe(FolderTest):
    def model(self):
        (self.dir / "config.json").write_text(json.dumps(CONFIG))
        self.run_graft("init", "--config", self.dir / "config.json", "--seed", 3, "--out", self.dir / "model")
        return self.dir / "model"

    def train(self, out, *extra):
        batches(self.dir / "data.safetensors", count=4, batch=2, length=12)
        return self.run_graft("train", "--model", self.dir / "model", "--data", self.dir / "data.safetensors", "--out", self.dir / out,
                              "--method", "full", "--lr", "1e-2", "--dtype", "f32", "--accumulate", 2, *extra, "--json").json()

    def test_made_trained_and_reported(self):
        model = self.model()
        seen = self.run_graft("inspect", model, "--json").json()
        self.assertEqual((seen["family"], seen["config"]["num_experts"]), ("graft_moe", 4))
        # Attention, norms, two layers of router, experts and shared expert, one dense layer, embedding, norm and head.
        attention, expert = 32 * 8 * (2 * 4 + 2 * 2) + 64, 3 * 32 * 40
        self.assertEqual(seen["parameters"], 3 * attention + 2 * (4 * 32 + 4 * expert + 3 * 32 * 24) + expert + 2 * 64 * 32 + 32)
        self.train("out", "--steps", 12, "--save-every", 4)
        lines = [json.loads(line) for line in (self.dir / "out/metrics.jsonl").read_text().splitlines()]
        self.assertLess(lines[-1]["cross_entropy"], lines[0]["cross_entropy"] - 1)
        for line in lines:
            total = line["cross_entropy"] + 0.01 * line["aux_loss"] + 0.001 * line["z_loss"]
            self.assertAlmostEqual(line["loss"], total, places=9)
            self.assertEqual(len(line["share_max_of_layers"]), 2)  # the dense layer has no load
            self.assertAlmostEqual(line["expert_share_max"], max(line["share_max_of_layers"]))
            self.assertLessEqual(0.25, line["expert_share_max"])
        self.assertIn("\"loads\":{\"step\":[1,2,", (self.dir / "out/report.html").read_text())
        self.assertIn("aux_mode = \"layers\"", (self.dir / "out/config.toml").read_text().replace("'", "\""))

        # Resumed from a checkpoint in the middle: the same bytes.
        (self.dir / "again").mkdir()
        shutil.copytree(self.dir / "out/checkpoint-8", self.dir / "again/checkpoint-8")
        self.run_graft("train", "--resume", self.dir / "again/checkpoint-8", "--out", self.dir / "again", "--quiet")
        self.assertEqual((self.dir / "again/model.safetensors").read_bytes(), (self.dir / "out/model.safetensors").read_bytes())

    def test_adapted_and_merged(self):
        model = self.model()
        self.train("unused", "--steps", 1)
        self.run_graft("train", "--model", model, "--data", self.dir / "data.safetensors", "--out", self.dir / "adapter", "--steps", 2,
                       "--targets", "all-linear", "--rank", 4, "--dtype", "f32", "--quiet")
        seen = self.run_graft("inspect", self.dir / "adapter", "--json").json()
        # Attention of three layers, four experts and the shared one in two, one dense layer; A and B of each.
        self.assertEqual(len(seen["tensors"]), 2 * (3 * 4 + 2 * (4 * 3 + 3) + 3))
        self.run_graft("merge", model, self.dir / "adapter", "--out", self.dir / "merged")
        self.assertEqual(self.run_graft("inspect", self.dir / "merged", "--json").json()["family"], "graft_moe")
        refused = self.run_graft("train", "--model", model, "--data", self.dir / "data.safetensors", "--out", self.dir / "dora", "--dora",
                                 "--targets", "all-linear", "--rank", 4, "--steps", 1, code=1)
        self.assertIn("DoRA on experts", refused.err)

    def test_bad_configs_name_every_fault(self):
        bad = {**CONFIG, "num_experts_per_tok": 5, "num_key_value_heads": 3, "head_dim": 7, "capacity_factor": -1, "mlp_only_layers": [3]}
        (self.dir / "config.json").write_text(json.dumps(bad))
        result = self.run_graft("init", "--config", self.dir / "config.json", "--out", self.dir / "model", code=1)
        for word in ("num_experts_per_tok is 5", "num_key_value_heads is 3", "head_dim is 7", "capacity_factor", "mlp_only_layers"):
            self.assertIn(word, result.err)
        self.assertFalse((self.dir / "model").exists())

    def test_routers_are_dumped_for_layers_with_experts(self):
        model = self.model()
        write_safetensors(self.dir / "ids.safetensors", {"input_ids": ((2, 5), [*range(10)]), "labels": ((2, 5), [*range(10)])})
        self.run_graft("dump", model, "--input", self.dir / "ids.safetensors", "--output", self.dir / "out.safetensors", "--want", "router,loss")
        seen = {t["name"]: t["shape"] for t in self.run_graft("inspect", self.dir / "out.safetensors", "--json").json()["tensors"]}
        for layer in (0, 2):
            self.assertEqual((seen[f"router_logits.{layer}"], seen[f"router_topk.{layer}"], seen[f"router_weights.{layer}"]), ([10, 4], [10, 2], [10, 2]))
        self.assertNotIn("router_logits.1", seen)


if __name__ == "__main__":
    unittest.main()
