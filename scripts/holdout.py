#!/usr/bin/env python3
"""An examiner with other fixtures: random tiny models, adapters and runs whose shapes and settings the fixtures do not have, graft against PyTorch.

Each case makes a model folder with transformers (seeded), computes with PyTorch in f32 and f64, asks `graft` for the same, and prints the worst
figure over its bar. Bars are those of fixtures/README.md; where PyTorch's own f32 is further from f64 than a quarter of the bar, four times that
distance is the bar, as the README does for weights. Exits with 1 if a case is beyond:
today a weight of "llama constant" whose gradient is near 0 (7.9e-5 of 4.6e-5), the 2-token gradients whose true value is 0 (1.2e-7 of 1e-7), and sampling 79
(1.9e-6 of 1e-6, one unit of f32 in the last place above 16). Run by `./dev interop --holdout`, which makes the environment.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from holdout_sampling import sampling_case  # noqa: E402
from holdout_text import text_cases  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
ALL7 = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Bench:
    """A folder, graft, and the figures."""

    def __init__(self, graft, folder):
        self.binary, self.folder, self.failures, self.worst = graft, pathlib.Path(folder), [], {}

    def graft(self, *command, env=None):
        done = subprocess.run([self.binary, *map(str, command)], capture_output=True, text=True, env={**os.environ, **(env or {})})
        if done.returncode != 0:
            raise RuntimeError(f"graft {' '.join(map(str, command))}\n{done.stderr.strip()[-1500:]}")
        return done.stdout

    def dump(self, model, tensors, want, adapter=None, *flags):
        save_file(tensors, self.folder / "in.safetensors")
        extra = ["--adapter", adapter] if adapter else []
        self.graft("dump", model, "--input", self.folder / "in.safetensors", "--output", self.folder / "out.safetensors", "--want", want, "--dtype", "f32",
                   *extra, *flags)
        return load_file(self.folder / "out.safetensors")

    def check(self, case, what, value, bar):
        share = value / bar if bar > 0 else (0.0 if value == 0 else float("inf"))
        if share > self.worst.get(what, (-1, "", 0, 0))[0]:
            self.worst[what] = (share, case, value, bar)
        if not share <= 1:
            self.failures.append(f"{case}: {what} {value:.3g} of {bar:.3g}")
            print(f"FAILED {self.failures[-1]}", flush=True)

    def close(self, case, what, ours, theirs, bar, exact=None):
        """Largest |ours - theirs|; the bar grows with PyTorch's own distance to f64."""
        if ours.shape != theirs.shape:
            return self.check(case, f"{what}: shape {tuple(ours.shape)} of {tuple(theirs.shape)}", float("inf"), 1)
        if exact is not None:
            bar = max(bar, 4 * (theirs.double() - exact.double()).abs().max().item())
        difference = (ours.double() - theirs.double()).abs()
        return self.check(case, what, difference.max().item() if difference.numel() else 0.0, bar)


# ---- models ------------------------------------------------------------------------------------------------------------------


def base(kind, **changes):
    config = {"hidden_size": 48, "intermediate_size": 70, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 97,
              "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": False}
    if kind == "qwen3":
        config["head_dim"] = 20
    if kind == "mistral":
        config["sliding_window"] = None
    config.update(changes)
    return {"architectures": [f"{kind.capitalize()}ForCausalLM"], "model_type": kind, **{k: v for k, v in config.items() if v != "drop"}}


def yarn(**keys):
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, **keys}


# name: family, changes of the config, what else: seq, batch, stored type, shards, generation of keys.
MODELS = {
    "head_dim of its own, llama": ("llama", {"head_dim": 24}, {}),
    "head_dim 80, mistral": ("mistral", {"head_dim": 80, "num_key_value_heads": 1}, {}),
    "head_dim 96, qwen3": ("qwen3", {"head_dim": 96, "num_key_value_heads": 4}, {"stored": "bf16"}),
    "head_dim 128, qwen2": ("qwen2", {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}, {"stored": "f16"}),
    "hidden 36, inter 33, vocab 1031": ("qwen2", {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 33, "vocab_size": 1031}, {}),
    "hidden 60, 6 layers, tied": ("qwen3", {"hidden_size": 60, "num_hidden_layers": 6, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True}, {}),
    "hidden 100, 1 layer, vocab 4097": ("llama", {"hidden_size": 100, "num_hidden_layers": 1, "num_attention_heads": 5, "num_key_value_heads": 5, "vocab_size": 4097}, {}),
    "vocab 8193, tied": ("mistral", {"vocab_size": 8193, "tie_word_embeddings": True}, {"stored": "bf16"}),
    "1 token": ("llama", {}, {"seq": 1, "batch": 3}),
    "2 tokens": ("qwen2", {}, {"seq": 2, "batch": 1}),
    "65 tokens": ("qwen3", {}, {"seq": 65}),
    "513 tokens": ("llama", {"max_position_embeddings": 1024}, {"seq": 513, "batch": 1}),
    "513 tokens, window 100": ("mistral", {"max_position_embeddings": 1024, "sliding_window": 100}, {"seq": 513, "batch": 1}),
    "window 1": ("mistral", {"sliding_window": 1}, {}),
    "window 64 at 65 tokens": ("mistral", {"sliding_window": 64}, {"seq": 65}),
    "window from layer 1, qwen2": ("qwen2", {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, {}),
    "layer_types, qwen3": ("qwen3", {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 7, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}, {}),
    "layer_types without use_sliding_window": ("qwen2", {"use_sliding_window": False, "sliding_window": 7, "layer_types": ["full_attention", "full_attention"]}, {}),
    "attention_bias, mlp_bias": ("llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "attention_bias, qwen3": ("qwen3", {"attention_bias": True}, {}),
    "rope linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 3.0}}, {}),
    "rope dynamic within": ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {"seq": 40}),
    "rope dynamic beyond": ("llama", {"max_position_embeddings": 32, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {"seq": 90}),
    "rope dynamic beyond, qwen2": ("qwen2", {"max_position_embeddings": 16, "rope_parameters": {"rope_theta": 5e4, "rope_type": "dynamic", "factor": 3.5}, "rope_theta": "drop"}, {"seq": 65}),
    "rope llama3": ("llama", {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}, {"seq": 130}),
    "rope llama3 without original": ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}, "max_position_embeddings": 64}, {"seq": 100}),
    "rope yarn": ("qwen2", {"rope_scaling": yarn()}, {"seq": 100}),
    "rope yarn without original": ("qwen2", {"max_position_embeddings": 32, "rope_scaling": {"type": "yarn", "factor": 4.0}}, {"seq": 100}),
    "rope yarn, original beside it": ("qwen3", {"original_max_position_embeddings": 16, "rope_scaling": yarn()}, {"seq": 70}),
    "rope yarn attention_factor": ("qwen3", {"rope_scaling": yarn(attention_factor=0.7)}, {"seq": 100}),
    "rope yarn betas": ("llama", {"rope_scaling": yarn(beta_fast=20.0, beta_slow=2.5)}, {"seq": 100}),
    "rope yarn mscale": ("mistral", {"rope_scaling": yarn(mscale=0.9, mscale_all_dim=0.4)}, {"seq": 100}),
    "rope yarn mscale alone": ("mistral", {"rope_scaling": yarn(mscale=0.9)}, {"seq": 100}),
    "rope yarn truncate off": ("qwen3", {"rope_parameters": yarn(truncate=False, rope_theta=20000.0), "rope_theta": "drop"}, {"seq": 100}),
    "rope yarn factor below 1": ("llama", {"rope_scaling": yarn(factor=1.0)}, {"seq": 40}),
    "rope nested by layer type": ("qwen3", {"rope_theta": "drop", "rope_parameters": {"rope_theta": 3e5, "rope_type": "default"}}, {}),
    "theta beside rope_parameters": ("qwen2", {"rope_theta": 77.0, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, {}),
    "defaults of llama": ("llama", {"rms_norm_eps": "drop", "rope_theta": "drop", "max_position_embeddings": "drop", "tie_word_embeddings": "drop", "num_key_value_heads": "drop"}, {}),
    "defaults of mistral": ("mistral", {"rms_norm_eps": "drop", "rope_theta": "drop", "max_position_embeddings": "drop", "tie_word_embeddings": "drop", "sliding_window": "drop"}, {}),
    "null keys": ("llama", {"head_dim": None, "num_key_value_heads": None, "rope_scaling": None, "pad_token_id": None, "eos_token_id": None, "bos_token_id": None}, {}),
    "rms_norm_eps 0.01": ("qwen3", {"rms_norm_eps": 1e-2}, {}),
    "pad token in the data": ("qwen2", {"pad_token_id": 9, "tie_word_embeddings": True}, {"vocab_of_data": 12}),
    "pad token in the data, untied": ("llama", {"pad_token_id": 9}, {"vocab_of_data": 12}),
    "3 shards, mixed types": ("mistral", {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 1}, {"shards": 3, "stored": "mixed"}),
    "shards of f16, tied": ("qwen2", {"tie_word_embeddings": True}, {"shards": 2, "stored": "f16"}),
    "one label": ("qwen3", {}, {"labels": "one"}),
    "head heads 1": ("qwen2", {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 20}, {}),
}


def make_model(folder, config, seed, stored="f32", shards=1):
    """A folder with random weights under the names of the hub; the config as written, so that its gaps are read by both sides."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    parsed = transformers.AutoConfig.from_pretrained(folder)
    skeleton = transformers.AutoModelForCausalLM.from_config(parsed)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, p in skeleton.named_parameters():
        values = torch.randn(p.shape, generator=generator)
        if name.endswith("norm.weight"):
            values = 1 + 0.1 * values
        elif p.ndim == 1:
            values = 0.2 * values
        else:  # outputs of about 1: then the tolerances of the README hold
            values = values * (1 / p.shape[1] ** 0.5 if "embed" not in name or config.get("tie_word_embeddings") else 0.5)
        kind = ["f32", "bf16", "f16"][len(tensors) % 3] if stored == "mixed" else stored
        tensors[name] = values.to(DTYPES[kind]).contiguous()
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        where = {}
        for s in range(shards):
            part = names[s::shards]
            file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
            save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
            where.update({n: file for n in part})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    return folder


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def rows(generator, vocab, batch, seq, labels="some"):
    ids = torch.randint(0, vocab, (batch, seq), generator=generator)
    out = ids.clone()
    if labels == "one":
        out[:] = -100
        out[-1, seq // 2] = ids[-1, seq // 2]
    else:
        out[torch.rand(out.shape, generator=generator) < 0.2] = -100
        out[:, -1] = ids[:, -1]
    return ids, out


def gradients(model, ids, labels):
    model.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    return loss.item()


def check_gradients(bench, case, ours, theirs, exact):
    bench.check(case, "gradient names differ", len(set(ours) ^ set(theirs)), 0.5)
    for name in set(ours) & set(theirs):
        bench.close(f"{case} {name}", "gradient", ours[name], theirs[name], 2e-5 * theirs[name].abs().max().item() + 1e-7, exact[name])
    norm = torch.sqrt(sum((g.double() ** 2).sum() for g in theirs.values())).item()
    mine = torch.sqrt(sum((g.double() ** 2).sum() for g in ours.values())).item()
    bench.check(case, "gradient norm", abs(mine / norm - 1) if norm else 0, 1e-5)


def forward_case(bench, case, kind, changes, how, seed):
    folder = make_model(bench.folder / f"model{seed}", base(kind, **changes), seed, how.get("stored", "f32"), how.get("shards", 1))
    generator = torch.Generator().manual_seed(seed)
    vocab, batch, seq = how.get("vocab_of_data", base(kind, **changes)["vocab_size"]), how.get("batch", 2), how.get("seq", 33)
    ids, labels = rows(generator, vocab, batch, seq, how.get("labels", "some"))
    model, exact = load(folder), load(folder, torch.float64)
    with torch.no_grad():
        theirs, best = model(input_ids=ids, output_hidden_states=True), exact(input_ids=ids, output_hidden_states=True)
    scale = max(1.0, theirs.logits.std().item())
    ours = bench.dump(folder, {"input_ids": ids}, "logits,hidden")
    bench.close(case, "logits", ours["logits"], theirs.logits, 2e-5 * scale, best.logits)
    for i, h in enumerate(theirs.hidden_states):
        bench.close(f"{case} hidden.{i}", "hidden states", ours[f"hidden.{i}"], h, 2e-5 * max(1.0, h.std().item()), best.hidden_states[i])
    if seq < 2:
        return folder
    loss, _ = gradients(model, ids, labels), gradients(exact, ids, labels)
    ours = bench.dump(folder, {"input_ids": ids, "labels": labels}, "nll,loss,grads")
    bench.check(case, "loss", abs(ours.pop("loss").item() - loss), 5e-6 + 1e-6 * loss)
    nll = torch.nn.functional.cross_entropy(theirs.logits[:, :-1].double().transpose(1, 2), labels[:, 1:], reduction="none")
    bench.close(case, "token_nll", ours.pop("token_nll"), nll, 5e-6 + 1e-6 * nll.max().item() + 2e-6 * scale)
    check_gradients(bench, case, ours, {n: p.grad for n, p in model.named_parameters()}, {n: p.grad for n, p in exact.named_parameters()})
    # Padded on the right, and on the left: the same real tokens.
    lengths = [max(1, seq - 3 * b) for b in range(batch)]
    windows = changes.get("use_sliding_window", True) and changes.get("sliding_window", 1 if kind == "mistral" else None)
    for side in ("right", "left", "right, with holes"):
        mask = torch.zeros_like(ids)
        for b, n in enumerate(lengths):
            mask[b, :n] = 1
        if "holes" in side:  # graft refuses them where a window counts
            if windows:
                continue
            mask *= torch.rand(mask.shape, generator=generator) < 0.8
            mask[:, 0] = 1
        mask = mask.flip(1) if side == "left" else mask
        with torch.no_grad():
            theirs_padded, best = (m(input_ids=ids, attention_mask=mask).logits * mask[..., None] for m in (model, exact))
        ours = bench.dump(folder, {"input_ids": ids, "attention_mask": mask}, "logits")["logits"]
        bench.close(f"{case}, padded on the {side}", "logits, padded", ours, theirs_padded, 2e-5 * scale, best)
        counted = labels.clone()
        counted[mask == 0] = -100
        counted[:, 1:][mask[:, :-1] == 0] = -100
        if (counted[:, 1:] == -100).all():
            continue
        loss = torch.nn.functional.cross_entropy(theirs_padded[:, :-1].double().transpose(1, 2), counted[:, 1:]).item()
        ours = bench.dump(folder, {"input_ids": ids, "attention_mask": mask, "labels": labels}, "loss")["loss"]
        bench.check(f"{case}, padded on the {side}", "loss, padded", abs(ours.item() - loss), 5e-6 + 1e-6 * loss)
    return folder


# ---- adapters ----------------------------------------------------------------------------------------------------------------

ADAPTERS = {
    "lora all": ("qwen2", dict(r=5, lora_alpha=9, target_modules=ALL7)),
    "all-linear": ("qwen3", dict(r=3, lora_alpha=6, target_modules="all-linear")),
    "rslora with patterns": ("llama", dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "down_proj"], rank_pattern={"^model.layers.0.mlp.down_proj": 2, "q_proj": 7}, alpha_pattern={"layers.1.*q_proj": 3.5})),
    "dora": ("mistral", dict(r=3, lora_alpha=5, use_dora=True, target_modules=ALL7)),
    "dora rslora biased": ("llama", dict(r=3, lora_alpha=5, use_dora=True, use_rslora=True, target_modules=["q_proj", "o_proj", "up_proj"]), {"attention_bias": True, "mlp_bias": True}),
    "regex": ("qwen3", dict(r=2, target_modules=r".*layers\.(0|1)\.(self_attn|mlp)\.(k|gate)_proj", exclude_modules=["model.layers.1.mlp.gate_proj"])),
    "layers_to_transform, pattern": ("qwen2", dict(r=2, target_modules=["v_proj", "up_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "a layer and a target not there": ("qwen2", dict(r=2, target_modules=["v_proj", "c_attn"], layers_to_transform=[1, 7])),
    "whole path beside layers": ("llama", dict(r=2, target_modules=["v_proj", "model.layers.0.mlp.up_proj"], layers_to_transform=1)),
    "modules_to_save head": ("llama", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "modules_to_save head, tied": ("qwen2", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]), {"tie_word_embeddings": True}),
    "modules_to_save embedding": ("mistral", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), {"pad_token_id": 9}),
    "modules_to_save embedding, tied": ("qwen3", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]), {"tie_word_embeddings": True}),
    "modules_to_save all norms": ("qwen3", dict(r=2, target_modules=["q_proj"], modules_to_save=["norm"])),
    "modules_to_save last norm": ("qwen3", dict(r=2, target_modules=["q_proj"], modules_to_save=["model.norm", "lm_head"])),
    "embedding": ("llama", dict(r=3, target_modules=["embed_tokens", "v_proj"]), {"pad_token_id": 9}),
    "embedding, tied": ("qwen2", dict(r=3, target_modules=["embed_tokens", "v_proj"]), {"tie_word_embeddings": True}),
    "head": ("llama", dict(r=3, target_modules=["lm_head", "v_proj"])),
    "head, tied": ("qwen2", dict(r=3, target_modules=["lm_head", "v_proj"]), {"tie_word_embeddings": True}),
    "base in bf16": ("mistral", dict(r=4, target_modules=ALL7), {}, {"stored": "bf16"}),
    "gaussian": ("qwen2", dict(r=4, target_modules=["k_proj"], init_lora_weights="gaussian")),
    "orthogonal": ("qwen2", dict(r=4, target_modules=["k_proj"], init_lora_weights="orthogonal")),
}
REFUSED = {  # what would change the result and is not supported: by name
    "bias": ("qwen2", dict(r=2, target_modules=["q_proj"], bias="all"), "bias"),
    "trainable tokens": ("qwen2", dict(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 2]), "trainable_token_indices"),
    "lora_bias": ("qwen2", dict(r=2, target_modules=["q_proj"], lora_bias=True), "lora_bias"),
}


def randomise(model, generator):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
            elif "lora_magnitude" in name or "modules_to_save" in name:
                p.mul_(1 + 0.1 * torch.randn(p.shape, generator=generator))


def peft_state(model, tensors=None):
    full = None if tensors is None else {n: tensors.get(n, torch.zeros_like(p)) for n, p in model.named_parameters()}
    state = get_peft_model_state_dict(model, state_dict=full, save_embedding_layers=False)
    return {k: v for k, v in state.items()}


def make_peft(folder, settings, generator, seed):
    torch.manual_seed(seed)
    model = get_peft_model(load(folder), LoraConfig(task_type="CAUSAL_LM", **settings))
    randomise(model, generator)
    return model.eval()


def adapter_case(bench, case, kind, settings, seed, changes=None, how=None):
    folder = make_model(bench.folder / f"adapted{seed}", base(kind, **(changes or {})), seed, **(how or {}))
    generator = torch.Generator().manual_seed(seed)
    model = make_peft(folder, settings, generator, seed)
    adapter = bench.folder / f"adapter{seed}"
    model.save_pretrained(adapter)
    ids, labels = rows(generator, 12 if changes and "pad_token_id" in changes else 97, 2, 29)
    exact = PeftModel.from_pretrained(load(folder, torch.float64), adapter, is_trainable=True, autocast_adapter_dtype=False).double().eval()
    loss = gradients(model, ids, labels)
    gradients(exact, ids, labels)
    with torch.no_grad():
        theirs, best = model(input_ids=ids).logits, exact(input_ids=ids).logits
    scale = max(1.0, theirs.std().item())
    ours = bench.dump(folder, {"input_ids": ids, "labels": labels}, "logits,loss,grads", adapter)
    bench.close(case, "adapter: logits", ours.pop("logits"), theirs, 2e-5 * scale, best)
    bench.check(case, "adapter: loss", abs(ours.pop("loss").item() - loss), 5e-6 + 1e-6 * loss)
    wanted = [{n: p.grad for n, p in m.named_parameters() if p.grad is not None} for m in (model, exact)]
    check_gradients(bench, case, ours, peft_state(model, wanted[0]), peft_state(exact, wanted[1]))
    bench.graft("merge", folder, adapter, "--out", bench.folder / f"merged{seed}", "--dtype", "f32", "--quiet")
    merged = bench.dump(bench.folder / f"merged{seed}", {"input_ids": ids}, "logits")["logits"]
    bench.close(case, "merged against unmerged", merged, theirs, 3e-5 * scale, best)
    with torch.no_grad():
        read = load(bench.folder / f"merged{seed}")(input_ids=ids).logits
    bench.close(case, "merged, in transformers", read, theirs, 3e-5 * scale, best)
    train_adapter(bench, case, folder, adapter, model, exact, generator)


# ---- training ----------------------------------------------------------------------------------------------------------------


def train_torch(model, ids, labels, run):
    """The same updates in PyTorch, with transformers' schedulers. ids: [micro-batches, batch, seq]."""
    parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in parameters if "lora_" not in n and (n.endswith(".bias") or "norm" in n)]
    decayed = [p for n, p in parameters if not any(p is q for q in plain)]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": run["weight_decay"]}, {"params": plain, "weight_decay": 0.0}], lr=run["lr"],
                                  betas=(0.9, run.get("beta2", 0.999)), eps=1e-8)
    schedule = transformers.get_scheduler(run["schedule"], optimizer, run["warmup"], run["steps"])
    model.zero_grad(set_to_none=True)
    log, micro = [], 0
    for _ in range(run["steps"]):
        part = [(micro + i) % ids.shape[0] for i in range(run["accumulate"])]
        micro += run["accumulate"]
        tokens, total = sum((labels[i][:, 1:] != -100).sum().item() for i in part), 0.0
        for i in part:
            logits = model(input_ids=ids[i]).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[i][:, 1:].reshape(-1), reduction="sum") / tokens
            loss.backward()
            total += loss.item()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for _, p in parameters if p.grad is not None)).item()
        if run["clip"]:
            torch.nn.utils.clip_grad_norm_([p for _, p in parameters], run["clip"])
        log.append({"loss": total, "learning_rate": schedule.get_last_lr()[0], "grad_norm": norm})
        optimizer.step(), schedule.step(), optimizer.zero_grad(set_to_none=True)
    return log


RUNS = [
    {"schedule": "constant", "warmup": 0, "steps": 6, "lr": 1e-3, "weight_decay": 0.1, "clip": None, "accumulate": 1},
    {"schedule": "linear", "warmup": 2, "steps": 7, "lr": 2e-3, "weight_decay": 0.0, "clip": 0.5, "accumulate": 3},
    {"schedule": "cosine", "warmup": 1, "steps": 6, "lr": 1e-3, "weight_decay": 0.05, "clip": 1.0, "accumulate": 2, "beta2": 0.95},
]


def graft_train(bench, folder, out, data, run, *flags, env=None):
    bench.graft("train", "--model", folder, "--data", data, "--out", out, "--no-shuffle", "--dtype", "f32", "--quiet", "--steps", run["steps"], "--lr", run["lr"],
                "--schedule", run["schedule"], "--warmup", run["warmup"], "--weight-decay", run["weight_decay"], "--clip", run["clip"] or "off",
                "--accumulate", run["accumulate"], "--beta2", run.get("beta2", 0.999), *flags, env=env)
    return [line for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


def check_training(bench, case, ours, log, weights, theirs, exact, before):
    bench.check(case, "updates differ", abs(len(ours) - len(log)), 0.5)
    for mine, want in zip(ours, log):
        bench.check(case, "training: loss", abs(mine["loss"] - want["loss"]), 2e-5)
        bench.check(case, "training: learning rate", abs(mine["learning_rate"] - want["learning_rate"]), 1e-12)
        bench.check(case, "training: gradient norm", abs(mine["grad_norm"] / want["grad_norm"] - 1) if want["grad_norm"] else 0, 1e-4)
    bench.check(case, "weight names differ", len(set(weights) ^ set(theirs)), 0.5)
    # The README's bar, with the scatter of PyTorch itself over all tensors.
    scatter = 4 * max((theirs[n].double() - exact[n]).abs().max().item() for n in theirs)
    for name in set(weights) & set(theirs):
        change = (theirs[name] - before[name]).abs().max().item()
        bench.close(f"{case} {name}", "training: weights", weights[name].float(), theirs[name], max(1e-4 * change, scatter, 1e-9))


def train_adapter(bench, case, folder, adapter, model, exact, generator):
    run = RUNS[sum(map(ord, case)) % len(RUNS)]
    ids = torch.randint(0, 97, (6, 2, 21), generator=generator)
    labels = ids.clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = -100
    data, out = bench.folder / "batches.safetensors", bench.folder / f"{adapter.name}_after"
    save_file({"input_ids": ids, "labels": labels}, data)
    before = {k: v.clone() for k, v in peft_state(model).items()}
    log = train_torch(model, ids, labels, run)
    train_torch(exact, ids, labels, run)
    ours = graft_train(bench, folder, out, data, run, "--adapter", adapter)
    check_training(bench, case, ours, log, load_file(out / "adapter_model.safetensors"), peft_state(model), peft_state(exact), before)
    with torch.no_grad():  # PEFT reads what was trained here
        again = PeftModel.from_pretrained(load(folder), out).eval()(input_ids=ids[0]).logits
    mine = bench.dump(folder, {"input_ids": ids[0]}, "logits", out)["logits"]
    bench.close(case, "trained adapter in PEFT", mine, again, 2e-5 * max(1.0, again.std().item()) + 1e-5)


def full_case(bench, kind, changes, run, seed):
    case = f"full {kind} {run['schedule']}"
    folder = make_model(bench.folder / f"full{seed}", base(kind, **changes), seed)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 97, (6, 2, 21), generator=generator)
    labels = ids.clone()
    labels[:, :, :3] = -100
    data, out = bench.folder / "full.safetensors", bench.folder / f"full{seed}_after"
    save_file({"input_ids": ids, "labels": labels}, data)
    model, exact = load(folder), load(folder, torch.float64)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    log = train_torch(model, ids, labels, run)
    train_torch(exact, ids, labels, run)
    ours = graft_train(bench, folder, out, data, run, "--method", "full")
    check_training(bench, case, ours, log, load_file(out / "model.safetensors"), {n: p.detach() for n, p in model.named_parameters()},
                   {n: p.detach() for n, p in exact.named_parameters()}, before)


def schedule_case(bench, kind, warmup, steps, extra, seed):
    """The rate of every update, past the schedule's end too."""
    case = f"{kind}, warm-up {warmup}, {steps} steps, {extra}"
    folder = bench.folder / "schedules"
    if not folder.exists():
        make_model(folder, base("qwen2", num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8), seed)
        save_file({"input_ids": torch.ones(1, 1, 4, dtype=torch.long)}, folder / "data.safetensors")
    lr, least = 3e-3, extra.get("min", 0.0)
    options = {"cosine_with_min_lr": {"min_lr": least}, "polynomial": {"power": extra.get("power", 1.0), "lr_end": least},
               "warmup_stable_decay": {"num_decay_steps": extra.get("decay", 0), "min_lr_ratio": least / lr, "decay_type": "linear"}}.get(kind, {})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    theirs = transformers.get_scheduler(kind, optimizer, warmup, steps, options)
    name = {"cosine_with_min_lr": "cosine", "warmup_stable_decay": "wsd", "constant_with_warmup": "constant"}.get(kind, kind)
    out = bench.folder / f"schedule{seed}"
    flags = ["--power", extra["power"]] if "power" in extra else []
    flags += ["--decay-steps", extra["decay"]] if "decay" in extra else []
    bench.graft("train", "--model", folder, "--data", folder / "data.safetensors", "--out", out, "--method", "full", "--quiet", "--steps", steps + 3, "--schedule-steps", steps,
                "--lr", lr, "--schedule", name, "--warmup", warmup, "--min-lr", least, *flags)
    for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()):
        if "learning_rate" not in line:
            continue
        if kind.startswith("cosine") and line["step"] > steps:  # theirs rises again after the end
            break
        want = theirs.get_last_lr()[0]
        if kind == "warmup_stable_decay" and line["step"] <= warmup:  # transformers starts from the least rate, lora.md from 0
            want = lr * (line["step"] - 1) / warmup
        bench.check(case, "learning rate", abs(line["learning_rate"] - want), 1e-15)
        optimizer.step(), theirs.step()


SCHEDULES = [("constant_with_warmup", 4, 9, {}), ("linear", 0, 7, {}), ("linear", 3, 11, {}), ("cosine", 0, 6, {}), ("cosine", 5, 13, {}), ("cosine_with_min_lr", 2, 9, {"min": 4e-4}),
             ("polynomial", 0, 8, {"power": 2.5}), ("polynomial", 3, 10, {"power": 0.5, "min": 1e-4}), ("polynomial", 1, 7, {"min": 2.9e-3}), ("inverse_sqrt", 0, 9, {}), ("inverse_sqrt", 1, 9, {}),
             ("inverse_sqrt", 6, 20, {}), ("warmup_stable_decay", 0, 9, {"decay": 4}), ("warmup_stable_decay", 3, 12, {"decay": 5, "min": 3e-4}), ("warmup_stable_decay", 2, 5, {"decay": 3})]


def same_bytes_case(bench, kind, changes, seed):
    """Threads and instruction sets do not show in a fine-tune."""
    folder = make_model(bench.folder / f"bytes{seed}", base(kind, **changes), seed)
    ids = torch.randint(0, 97, (3, 3, 67), generator=torch.Generator().manual_seed(seed))
    save_file({"input_ids": ids, "labels": ids.clone()}, bench.folder / "bytes.safetensors")
    run, seen = {**RUNS[2], "steps": 5}, {}
    for threads, cpu in [(1, ""), (2, ""), (3, ""), (7, ""), (2, "scalar"), (2, "avx2"), (3, "avx512")]:
        out = bench.folder / f"bytes{seed}_{threads}_{cpu}"
        graft_train(bench, folder, out, bench.folder / "bytes.safetensors", run, "--targets", "all-linear", "--rank", 3, "--threads", threads,
                    env={"GRAFT_CPU": cpu} if cpu else {})
        seen[(threads, cpu)] = (out / "adapter_model.safetensors").read_bytes()
    bench.check(f"{kind} {changes}", "different adapter bytes", len(set(seen.values())) - 1, 0.5)


# ---- generation --------------------------------------------------------------------------------------------------------------


def generation_case(bench, kind, changes, seed):
    folder = make_model(bench.folder / f"generate{seed}", base(kind, **changes), seed)
    letters = {chr(33 + i): i for i in range(90)}  # ids are given, so any tokenizer does that has no more tokens than the embedding
    tokenizers.Tokenizer(tokenizers.models.BPE(letters, [])).save(str(folder / "tokenizer.json"))
    generator = torch.Generator().manual_seed(seed)
    model = load(folder)
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)
    prompts = [torch.randint(0, base(kind, **changes)["vocab_size"], (1, n), generator=generator) for n in (1, 7, 40, 66)]
    with open(bench.folder / "prompts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"ids": p[0].tolist()}) + "\n" for p in prompts)
    for penalty in (1.0, 1.4):
        flags = ("--file", bench.folder / "prompts.jsonl", "--greedy", "--ignore-eos", "--max-tokens", 24, "--repetition-penalty", penalty, "--logprobs", 3, "--dtype", "f32", "--json")
        batched, uncached = ([json.loads(line) for line in bench.graft("generate", folder, *flags, *more).splitlines()] for more in ((), ("--no-cache",)))
        case = f"{kind} {changes} penalty {penalty}"
        for i, prompt in enumerate(prompts):
            (bench.folder / "one.jsonl").write_text(json.dumps({"ids": prompt[0].tolist()}) + "\n")
            alone = json.loads(bench.graft("generate", folder, "--file", bench.folder / "one.jsonl", *flags[2:]))
            same = batched[i]["ids"] == uncached[i]["ids"] == alone["ids"] and batched[i]["logprobs"] == uncached[i]["logprobs"] == alone["logprobs"]
            bench.check(case, "cached, uncached, alone and batched differ", not same, 0.5)
            done = model.generate(prompt, max_new_tokens=24, min_new_tokens=24, do_sample=False, repetition_penalty=penalty, output_scores=True, output_logits=True, return_dict_in_generate=True, attention_mask=torch.ones_like(prompt))
            theirs = done.sequences[0, prompt.shape[1]:].tolist()
            margin = min((t[0] - t[1]).item() for t in (s[0].topk(2).values for s in done.scores))
            if margin > 1e-4:  # else either answer is right
                bench.check(case, "greedy ids differ", theirs != batched[i]["ids"], 0.5)
                for t, z in enumerate(done.logits):
                    bench.check(case, "log-probability", abs(torch.log_softmax(z[0].double(), -1)[theirs[t]].item() - batched[i]["logprobs"][t]["logprob"]), 1e-4)


# ---- the rest ----------------------------------------------------------------------------------------------------------------


def refused_case(bench, case, kind, settings, word, seed):
    folder = make_model(bench.folder / f"refused{seed}", base(kind), seed)
    try:
        make_peft(folder, settings, torch.Generator().manual_seed(seed), seed).save_pretrained(bench.folder / f"refused{seed}_adapter")
        bench.dump(folder, {"input_ids": torch.zeros(1, 3, dtype=torch.long)}, "logits", bench.folder / f"refused{seed}_adapter")
        bench.check(case, "not refused", 1, 0.5)
    except RuntimeError as error:
        bench.check(case, "refused without the name", word not in str(error), 0.5)


def sections(bench):
    """name: [(case, function)]"""
    seed = iter(range(1000, 10000))
    yield "models", [(n, lambda n=n, m=m, s=next(seed): forward_case(bench, n, *m, s)) for n, m in MODELS.items()]
    yield "adapters", [(n, lambda n=n, a=a, s=next(seed): adapter_case(bench, n, a[0], a[1], s, *a[2:])) for n, a in ADAPTERS.items()]
    yield "refused", [(n, lambda n=n, a=a, s=next(seed): refused_case(bench, n, *a, s)) for n, a in REFUSED.items()]
    shapes = [("qwen2", {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 3}), ("qwen3", {"tie_word_embeddings": True, "pad_token_id": 5}), ("llama", {"attention_bias": True, "mlp_bias": True}), ("mistral", {"head_dim": 40, "sliding_window": 5})]
    yield "full", [(f"{k} {r['schedule']}", lambda k=k, c=c, r=r, s=next(seed): full_case(bench, k, c, r, s)) for k, c in shapes for r in RUNS]
    yield "schedules", [(f"{c[0]} {c[1]} {c[2]}", lambda c=c, s=next(seed): schedule_case(bench, *c, s)) for c in SCHEDULES]
    yield "bytes", [(k, lambda k=k, c=c, s=next(seed): same_bytes_case(bench, k, c, s)) for k, c in shapes]
    yield "generation", [(k, lambda k=k, c=c, s=next(seed): generation_case(bench, k, c, s)) for k, c in shapes + [("mistral", {"sliding_window": 64, "vocab_size": 1031}), ("llama", {"rope_scaling": yarn()})]]
    sampler = make_model(bench.folder / "sampler", base("qwen2"), 1)
    yield "sampling", [(f"sampling {s}", lambda s=s: sampling_case(bench, sampler, s)) for s in range(120)]
    yield "text", text_cases(bench, seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--section", action="append", help="models, adapters, refused, full, schedules, bytes, generation, sampling, text (default: all)")
    parser.add_argument("--case", help="only cases whose name holds this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of tied modules and the like: meant here
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="graft-holdout-") as folder:
        bench = Bench(arguments.graft, folder)
        for section, cases in sections(bench):
            if arguments.section and section not in arguments.section:
                continue
            tried, bench.worst = 0, {}
            for name, run in cases:
                if arguments.case and arguments.case not in name:
                    continue
                tried += 1
                try:
                    run()
                except Exception as error:  # one case that breaks must not hide the others
                    bench.failures.append(name)
                    print(f"FAILED {section} {name}: {str(error)[-700:]}", flush=True)
            print(f"{section}: {tried} cases")
            for what, (_, case, value, bar) in sorted(bench.worst.items()):
                print(f"  {what:<44} {value:.2e} of {bar:.2e}  ({case})", flush=True)
    print(f"{len(bench.failures)} failed")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
