#!/usr/bin/env python3
"""How far two right trainers may lie apart on the reference fine-tune: rounding, or a fault?

The reference run (fixtures/golden/pystd-5m/reference_run.json) has a learning rate so high that rounding grows. This runs the same
600 updates with PEFT on PyTorch in f64 (as near to exact as can be had) and in f32, and with graft in f32, each from the reference's
start adapter and from starts whose A matrices are changed by a relative 1e-7, about one rounding of f32. Every run is then judged by
graft's `eval` on the test rows. Printed: per run the largest difference of a 30-update mean from the reference and from the f64 run,
the last mean and the test loss; per engine the mean and the standard error; and a rank test of graft against PEFT.

    .venv-interop/bin/python scripts/reference_spread.py --runs 6     # half an hour on two cores; writes docs/reference_spread.md
"""

import argparse
import concurrent.futures
import datetime
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def fixtures():
    return pathlib.Path(os.environ.get("GRAFT_SHARED", "../shared")) / "fixtures"


def start_adapter(folder, noise):
    """A copy of the reference's start in `folder`, its lora_A times 1 + noise · 1e-7 · normal."""
    import safetensors.torch
    import torch

    shutil.copytree(fixtures() / "golden/pystd-5m/start_adapter", folder)
    if noise == 0:
        return folder
    path = folder / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    generator = torch.Generator().manual_seed(noise)
    for name in sorted(tensors):
        if "lora_A" in name:
            tensors[name] = tensors[name] * (1 + 1e-7 * torch.randn(tensors[name].shape, generator=generator))
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    return folder


def run_torch(start, out, dtype, threads):
    """The reference's 600 updates as its README states them; saves the adapter and losses.json in `out`."""
    import torch
    import transformers
    from peft import PeftModel

    torch.set_num_threads(threads)
    reference = json.loads((fixtures() / "golden/pystd-5m/reference_run.json").read_text())
    hyper, first = reference["hyper_parameters"], reference["runs"][0]
    type_of = {"f32": torch.float32, "f64": torch.float64}[dtype]
    folder = fixtures() / "models/pystd-5m"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=type_of)
    model = PeftModel.from_pretrained(model, start, is_trainable=True, autocast_adapter_dtype=False).to(type_of)
    model.train()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = []
    for line in (fixtures() / "data/shelfql/train.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [end]
        rows.append((prompt + completion, [-100] * len(prompt) + completion))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=hyper["lr"], betas=tuple(hyper["betas"]), eps=hyper["eps"], weight_decay=hyper["weight_decay"])
    size, losses = hyper["batch_size"], []
    for step in range(hyper["steps"]):
        at = size * (step % (len(rows) // size))
        batch = rows[at:at + size]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([r + [0] * (width - len(r)) for r, _ in batch])
        labels = torch.tensor([r + [-100] * (width - len(r)) for _, r in batch])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r, _ in batch])
        for group in optimizer.param_groups:
            group["lr"] = first["steps"][step][2]
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, hyper["clip_grad_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.to(torch.float32).save_pretrained(out)
    (out / "losses.json").write_text(json.dumps(losses))


def run_graft(graft, start, out, threads):
    hyper = json.loads((fixtures() / "golden/pystd-5m/reference_run.json").read_text())["hyper_parameters"]
    command = [graft, "train", "--model", fixtures() / "models/pystd-5m", "--data", fixtures() / "data/shelfql/train.jsonl", "--out", out,
               "--adapter", start, "--no-shuffle", "--steps", hyper["steps"], "--batch-size", hyper["batch_size"], "--lr", hyper["lr"],
               "--schedule", "cosine", "--warmup", hyper["warmup_steps"], "--weight-decay", hyper["weight_decay"],
               "--clip", hyper["clip_grad_norm"], "--dtype", "f32", "--threads", threads, "--json"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (out / "losses.json").write_text(json.dumps([line["loss"] for line in lines if "loss" in line]))


def one(job):
    """(engine, noise) run in a process of its own."""
    arguments, engine, noise, folder = job
    out = folder / f"{engine}-{noise}"
    out.mkdir(parents=True)
    start = start_adapter(folder / f"start-{engine}-{noise}", noise)
    if engine == "graft f32":
        run_graft(arguments.graft, start, out / "run", arguments.threads)
    else:
        run_torch(start, out / "run", engine.split()[1], arguments.threads)
    losses = json.loads((out / "run/losses.json").read_text())
    done = subprocess.run([arguments.graft, "eval", str(fixtures() / "models/pystd-5m"), "--adapter", str(out / "run"), "--data",
                           str(fixtures() / "data/shelfql/test.jsonl"), "--dtype", "f32", "--json"], check=True, capture_output=True, text=True)
    return {"engine": engine, "noise": noise, "losses": losses, "test_loss": json.loads(done.stdout)["loss"]}


def means(losses):
    return [statistics.mean(losses[i:i + 30]) for i in range(0, len(losses), 30)]


def apart(a, b):
    """Largest relative difference of two lists of means, and the first block that differs by more than 2 %."""
    differences = [abs(x / y - 1) for x, y in zip(a, b)]
    beyond = next((i for i, d in enumerate(differences) if d > 0.02), None)
    return max(differences), beyond


def rank_sum(a, b):
    """Probability, two-sided, that the ranks of a among a + b lie so far off by chance (exact, by counting)."""
    ordered = sorted(a + b)
    ranks = [ordered.index(x) + 1 for x in a]
    n, m, seen = len(a), len(a) + len(b), sum(ranks)
    ways = {(0, 0): 1}
    for r in range(1, m + 1):
        for (k, s), w in list(ways.items()):
            if k < n:
                ways[(k + 1, s + r)] = ways.get((k + 1, s + r), 0) + w
    counts = {s: w for (k, s), w in ways.items() if k == n}
    middle = n * (m + 1) / 2
    extreme = sum(w for s, w in counts.items() if abs(s - middle) >= abs(seen - middle) - 1e-9)
    return extreme / sum(counts.values())


def run_all(arguments):
    runs = []
    with tempfile.TemporaryDirectory(prefix="graft-spread-") as folder:
        jobs = [(arguments, "PEFT f64", noise, pathlib.Path(folder)) for noise in range(2)]
        jobs += [(arguments, e, noise, pathlib.Path(folder)) for noise in range(arguments.runs) for e in ("PEFT f32", "graft f32")]
        workers = max(1, len(os.sched_getaffinity(0)) // arguments.threads)
        with concurrent.futures.ProcessPoolExecutor(workers) as pool:
            for run in pool.map(one, jobs):
                runs.append(run)
                print(f"{run['engine']} start {run['noise']}: test loss {run['test_loss']:.4f}", file=sys.stderr, flush=True)
    return runs


def page(runs, reference, wanted):
    exact, spans, lines, stay = means(runs[0]["losses"]), list(reference["mean_loss_of_steps"]), [], []
    rows = [("the reference, PEFT f32", 0, wanted, reference["after"]["test"]["loss"])]
    rows += [(r["engine"], r["noise"], means(r["losses"]), r["test_loss"]) for r in runs]
    for engine, noise, m, test in rows:
        (far, at), (far64, at64) = apart(m, wanted), apart(m, exact)
        stay.append(len(spans) if at is None else at)
        first, first64 = ("never" if i is None else spans[i] for i in (at, at64))
        lines.append(f"| {engine} | {noise} | {100 * far:.1f} % | {first} | {100 * far64:.1f} % | {first64} | {m[-1]:.4f} | {test:.4f} |\n")
    of = {e: [r["test_loss"] for r in runs if r["engine"] == e] for e in ("PEFT f32", "graft f32")}
    for engine, values in of.items():
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
        of[engine] = (values, f"{statistics.mean(values):.4f} ± {error:.4f} ({len(values)} runs, {min(values):.4f} to {max(values):.4f})")
    chance = rank_sum(of["graft f32"][0], of["PEFT f32"][0])
    return f"""# The spread of the reference run

Written by `scripts/reference_spread.py` on {datetime.date.today().isoformat()}. The reference fine-tune (600 updates, learning rate 4e-3) is repeated from its own start adapter (start 0) and from
starts whose lora_A is changed by a relative 1e-7, about one rounding of f32. A right trainer should stay near the exact course, so
"from f64" compares with PEFT on PyTorch in f64 from start 0.

| run | start | means of 30 updates, from the reference | beyond 2 % at updates | from f64 | beyond 2 % at | last mean | test loss |
| --- | --- | --- | --- | --- | --- | --- | --- |
{''.join(lines)}
- Test loss, mean and standard error: PEFT in f32 {of["PEFT f32"][1]}, graft in f32 {of["graft f32"][1]}. Rank-sum test of the two: p = {chance:.2f}.
- {sum(n == len(spans) for n in stay[1:])} of {len(runs)} runs stay within 2 % of the reference for all updates, PEFT's in f64 {"does" if stay[1] == len(spans) else "does not"}; all do for the first
  {30 * min(stay[1:])}. One rounding at the start decides the later course.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--runs", type=int, default=6, help="runs of each f32 engine: the start itself and changed ones")
    parser.add_argument("--threads", type=int, default=1, help="of one run; as many runs at a time as cores allow")
    parser.add_argument("--json", help="file for every loss of every run")
    parser.add_argument("--read", help="such a file instead of new runs")
    parser.add_argument("--out", default=str(ROOT / "docs/reference_spread.md"))
    arguments = parser.parse_args()
    if not fixtures().is_dir():
        sys.exit(f"error: no fixtures in {fixtures().parent}\nhint: set GRAFT_SHARED")
    reference = json.loads((fixtures() / "golden/pystd-5m/reference_run.json").read_text())["runs"][0]
    wanted = list(reference["mean_loss_of_steps"].values())
    runs = json.loads(pathlib.Path(arguments.read).read_text()) if arguments.read else run_all(arguments)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(runs))
    text = page(runs, reference, wanted)
    pathlib.Path(arguments.out).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
