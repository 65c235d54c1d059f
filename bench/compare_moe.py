#!/usr/bin/env python3
"""The 22 scenarios of `graft bench moe` on this machine: graft's own figures, and NumPy, PyTorch and MLX in turns with it, as JSON and as one page.

    ./dev bench moe                                       # everything, on one core: about five minutes
    ./dev bench moe --only mem_train_step,dispatch_warm

Writes moe.json and moe.html into --out (build/bench). Beside the scenarios it measures what only a process shows: resident memory of a training
step, the time from fork to the first byte of a cold pass, and 1000 updates. Peers are those that .venv-interop (or this Python) has.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import time

from commands import ROOT, peer_python, run


def cold_start(graft):
    """Seconds from fork to the first byte, over 30 processes."""
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        with subprocess.Popen([graft, "bench", "moe", "--only", "dispatch_cold", "--json"], stdout=subprocess.PIPE) as process:
            process.stdout.read(1)
            times.append(time.perf_counter() - begin)
            process.stdout.read()
    return times


def updates(graft):
    """Seconds of 1000 updates of the tiny model on one batch (spec/moe.md, section 5)."""
    asked = json.dumps({"id": "mem_train_step", "runs": 1000}) + "\n"
    done = subprocess.run([graft, "bench", "moe", "--serve"], input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return sum(json.loads(done.stdout)["timings_ns"]) * 1e-9


def figures(graft):
    memory = run([graft, "bench", "moe", "--only", "mem_train_step", "--json"])["scenarios"][0]
    cold, convergence = cold_start(graft), min(updates(graft) for _ in range(3))
    return [{"name": "memory of a training process", "value": f"{memory['memory']['peak_rss_bytes'] / 1e6:.1f} MB", "bar": "16 MB"},
            {"name": "allocations of a step", "value": f"{memory['derived']['allocations_per_run']:g}", "bar": "0"},
            {"name": "fork to first byte", "value": f"{1e3 * statistics.median(cold):.1f} ms", "bar": "15 ms"},
            {"name": "1000 updates", "value": f"{convergence:.2f} s", "bar": "1.3 s"}]


def summary(report):
    lines, best = [], {}
    for p in report["peers"]:
        if p["engine"] != "graft":
            best[p["id"]] = min(best.get(p["id"], (1e9, "")), (p["ratio"], p["engine"]))
    for s in report["scenarios"]:
        ratio, engine = best.get(s["id"], (None, ""))
        lines.append(f"{s['id']:<20} {s['median_ns'] / 1e3:>10.2f} us  {f'{ratio:6.2f} x {engine}' if ratio else ''}")
    if best:
        lines.append(f"ahead of every peer in {sum(r > 1 for r, _ in best.values())} of {len(best)}")
    return lines + [f"{f['name']}: {f['value']} (bar {f['bar']})" for f in report["figures"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--out", default="build/bench")
    parser.add_argument("--only", default="", help="scenarios; default: all")
    parser.add_argument("--threads", type=int, default=1, help="of each model")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    only = ["--only", arguments.only] if arguments.only else []
    load = os.getloadavg()
    report = run([arguments.graft, "bench", "moe", "--json", "--threads", str(arguments.threads), "--trials", str(arguments.trials), *only])
    report.update(peers=[], notes=[], versions={}, date=datetime.date.today().isoformat(), load_before=load, figures=figures(arguments.graft))
    if not arguments.no_peers:
        found = run([peer_python(), "bench/peers/moe.py", "--graft", arguments.graft, "--threads", str(arguments.threads),
                     "--trials", str(arguments.trials), *only], must=False)
        if found is None:
            report["notes"].append("peers: not measured (are NumPy and safetensors there? ./dev interop makes .venv-interop)")
        else:
            report.update(peers=found["results"], versions=found["versions"])
            report["notes"] += found["notes"]
    report["load_after"] = os.getloadavg()
    (out / "moe.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    subprocess.run([arguments.graft, "bench", "moe", "--from", out / "moe.json", "--html", out / "moe.html"], check=True)
    print("\n".join(summary(report) + report["notes"]))
    print(f"{out / 'moe.json'}, {out / 'moe.html'}; load {load[0]:.1f} before, {report['load_after'][0]:.1f} after")


if __name__ == "__main__":
    main()
