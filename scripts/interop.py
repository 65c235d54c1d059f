#!/usr/bin/env python3
"""Do others read what graft writes? PEFT loads adapters that graft trained, transformers loads folders that graft merged.

For each family of the fixtures and each kind of adapter: a few steps of `graft train`, then the logits of PEFT (base + our adapter)
against `graft dump --adapter`, the logits of transformers on the merged folder against `graft dump` of it, and our adapter saved
again by PEFT and read back by graft. Bound: 2e-5 of the largest logit, f32 on both sides. Exits with 1 if a case is beyond.

Run by `./dev interop`, which makes the environment (torch, transformers, peft).
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
FAMILIES = ["qwen2", "qwen3", "llama", "mistral"]
KINDS = {
    "lora": ["--targets", "all-linear"],
    "rslora": ["--targets", "q_proj,v_proj", "--rslora", "--rank", "4"],
    "dora": ["--targets", "q_proj,down_proj", "--dora"],
    "patterns": ["--targets", "q_proj,k_proj,up_proj", "--rank-pattern", "q_proj=4", "--alpha-pattern", "up_proj=32"],
}
BOUND = 2e-5  # of the largest logit: both sides sum in f32, in other orders


def graft(arguments, *command):
    done = subprocess.run([arguments.graft, *map(str, command)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"graft {' '.join(map(str, command))}\n{done.stderr.strip()[-2000:]}")


def graft_logits(arguments, folder, model, ids, adapter=None):
    save_file({"input_ids": ids}, folder / "in.safetensors")
    extra = ["--adapter", adapter] if adapter else []
    graft(arguments, "dump", model, "--input", folder / "in.safetensors", "--output", folder / "out.safetensors",
          "--want", "logits", "--dtype", "f32", *extra)
    return load_file(folder / "out.safetensors")["logits"]


def load(model):
    return transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()


def case(arguments, model, flags, folder, report):
    """Adapter from graft to PEFT and back, merged folder from graft to transformers."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = transformers.AutoConfig.from_pretrained(model).vocab_size
    ids = torch.randint(0, vocabulary, (4, 2, 24), generator=generator)
    save_file({"input_ids": ids, "labels": ids.clone()}, folder / "batches.safetensors")
    graft(arguments, "train", "--model", model, "--data", folder / "batches.safetensors", "--out", folder / "adapter", "--steps", 8,
          "--lr", "1e-2", "--no-shuffle", "--dtype", "f32", "--quiet", *flags)
    ids = ids[0]
    with torch.no_grad():
        base = load(model)
        plain = base(ids).logits
        peft = PeftModel.from_pretrained(base, folder / "adapter").eval()
        theirs = peft(ids).logits
        ours = graft_logits(arguments, folder, model, ids, folder / "adapter")
        report("adapter in PEFT", ours, theirs, plain)
        peft.save_pretrained(folder / "again")
        report("saved again by PEFT", graft_logits(arguments, folder, model, ids, folder / "again"), theirs, plain)
        graft(arguments, "merge", model, folder / "adapter", "--out", folder / "merged", "--dtype", "f32", "--quiet")
        merged = load(folder / "merged")(ids).logits
        report("merged in transformers", graft_logits(arguments, folder, folder / "merged", ids), merged, plain)
        report("merged against unmerged", ours, merged, plain)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--models", default=os.path.join(os.environ.get("GRAFT_SHARED", "../shared"), "fixtures/models"))
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    arguments = parser.parse_args()
    failures = []
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; bound {BOUND:g} of the largest logit")
    print(f"{'case':<18} {'what':<26} {'difference / largest':>21} {'change by adapter':>18}")
    for family in arguments.family or FAMILIES:
        for kind in arguments.kind or KINDS:
            name = f"{family} {kind}"

            def report(what, ours, theirs, plain, name=name):
                largest = theirs.abs().max().item()
                difference = (ours - theirs).abs().max().item() / largest
                change = (theirs - plain).abs().max().item() / largest
                # An adapter that changes nothing would pass any bound.
                good = difference <= BOUND and change > 100 * BOUND
                print(f"{name:<18} {what:<26} {difference:>21.2e} {change:>18.2e}{'' if good else '  FAILED'}", flush=True)
                if not good:
                    failures.append(f"{name}: {what}")

            try:
                with tempfile.TemporaryDirectory(prefix="graft-interop-") as folder:
                    case(arguments, pathlib.Path(arguments.models) / family, KINDS[kind], pathlib.Path(folder), report)
            except Exception as error:  # one case that breaks must not hide the others
                print(f"{name:<18} FAILED: {error}", flush=True)
                failures.append(name)
    print(f"{len(failures)} failed" + (": " + "; ".join(failures) if failures else ""))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
