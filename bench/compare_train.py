#!/usr/bin/env python3
"""LoRA training speed of graft and of PEFT on the same shapes, same threads, in turns on the same machine.

Each round runs `graft bench train --json` and bench/peers/finetune.py once, in an order that alternates (ABBA), so that a machine
that slows down slows both. Prints per shape and engine the median tokens/s over the rounds, the spread (least to most), peak memory,
and the ratio graft / PEFT of each round. `--json` prints one object with every sample.

    .venv-interop/bin/python bench/compare_train.py --shape pystd-5m --rounds 3
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Name: config, rows, tokens per row, timed steps of one run.
SHAPES = {
    "pystd-5m": ("bench/shapes/pystd-5m.json", 8, 128, 20),
    "qwen2.5-0.5b": ("bench/shapes/qwen2.5-0.5b.json", 4, 256, 3),
}


def run(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def cpu_name():
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def compare(shape, dtypes, arguments, folder):
    config, rows, length, steps = SHAPES[shape]
    common = ["--batch-size", str(rows), "--max-length", str(length), "--rank", "8", "--targets", "all-linear",
              "--trained", "all", "--steps", str(arguments.steps or steps), "--threads", str(arguments.threads)]
    model = folder / shape
    if not model.exists():
        run([arguments.graft, "init", "--config", config, "--out", str(model), "--seed", "0", "--init", "range", "--json"])
    engines = {}
    for dtype in dtypes:
        engines[f"graft {dtype}"] = [arguments.graft, "bench", "train", "--model", str(model), "--dtype", dtype, "--json", *common]
        engines[f"PEFT {dtype}"] = [sys.executable, "bench/peers/finetune.py", "--config", config, "--dtype", dtype, *common]
    samples = {name: [] for name in engines}
    for i in range(arguments.rounds):
        names = list(engines)
        for name in names if i % 2 == 0 else reversed(names):
            samples[name].append(run(engines[name]))
            print(f"{shape} round {i + 1}: {name}: {samples[name][-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: all")
    parser.add_argument("--dtype", default="f32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed steps of one run")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    dtypes = arguments.dtype.split(",")
    report = {"cpu": cpu_name(), "threads": arguments.threads, "load_before": os.getloadavg(), "shapes": {}}
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        for shape in arguments.shape or SHAPES:
            report["shapes"][shape] = compare(shape, dtypes, arguments, pathlib.Path(folder))
    report["load_after"] = os.getloadavg()
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"{report['cpu']}, {arguments.threads} threads, load {report['load_before'][0]:.1f} before, {report['load_after'][0]:.1f} after")
    for shape, samples in report["shapes"].items():
        _, rows, length, _ = SHAPES[shape]
        print(f"\n{shape}, LoRA r 8 on all linear, {rows} x {length} tokens, every token trained")
        print(f"{'engine':<12} {'tokens/s':>10} {'least':>8} {'most':>8} {'peak MiB':>9}")
        for name, runs in samples.items():
            speeds = [r["tokens_per_second"] for r in runs]
            memory = statistics.median(r["peak_memory_bytes"] for r in runs) / 2**20
            print(f"{name:<12} {statistics.median(speeds):>10.0f} {min(speeds):>8.0f} {max(speeds):>8.0f} {memory:>9.0f}")
        for dtype in dtypes:
            pairs = zip(samples[f"graft {dtype}"], samples[f"PEFT {dtype}"])
            ratios = [ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in pairs]
            print(f"graft / PEFT in {dtype}: {statistics.median(ratios):.2f} (each round: {', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
