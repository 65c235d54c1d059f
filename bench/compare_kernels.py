#!/usr/bin/env python3
"""The kernel suite on this machine: graft's limits and times, the router's table, and the peers in turns, as JSON and as one page.

    ./dev bench kernels                                  # everything: about half an hour on two cores
    ./dev bench kernels --quick softmax sorting          # a few minutes, or less

Writes kernels.json and kernels.html into --out (build/bench). Peers are those that .venv-interop (or this Python) has; without
NumPy the page stands on graft's own figures.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess

from commands import ROOT, peer_python, run


def summary(report):
    """Lines for the terminal: ahead, tied and behind at each size and number of threads, and the furthest from the limit."""
    best = {}
    for p in report["peers"]:
        if "ratio" in p:
            key = (p["size"], p["threads"], p["kernel"])
            best[key] = min(best.get(key, (1e9, "")), (p["ratio"], p["engine"]))
    lines = []
    for size, threads in sorted({k[:2] for k in best}, key=str):
        some = {k[2]: v for k, v in best.items() if k[:2] == (size, threads)}
        ratios = [v[0] for v in some.values()]
        behind = sorted((v[0], k, v[1]) for k, v in some.items() if v[0] < 1)
        lines.append(f"{size}, {threads} threads: ahead in {sum(r > 1 for r in ratios)} of {len(ratios)}, median ratio {statistics.median(ratios):.2f}")
        lines += [f"    behind: {k} {r:.2f} x ({engine})" for r, k, engine in behind]
    far = sorted((r["limit_share"], r["kernel"], r["size"], r["threads"], r["limit"]) for r in report["results"])[:10]
    lines += [f"far from its limit: {k} {size}, {threads} threads: {100 * share:.0f} % of {limit}" for share, k, size, threads, limit in far]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="kernels or domains; default: all")
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--out", default="build/bench")
    parser.add_argument("--sizes", default="64K,1M,10M,4xLLC", help="of graft's own figures")
    parser.add_argument("--peer-sizes", default="1M,10M")
    parser.add_argument("--threads", default="", help="default: 1 and all cores")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="PyTorch in eager mode only: torch.compile takes seconds for each kernel and size")
    parser.add_argument("--quick", action="store_true", help="short times, no torch.compile: to see that it works, not to quote")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    threads = [int(t) for t in arguments.threads.split(",")] if arguments.threads else sorted({1, cores})
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    graft = [arguments.graft, "kernel"]
    load = os.getloadavg()

    tuned = run([*graft, "tune", "--json", *(["--quick"] if arguments.quick else []), *arguments.name])
    report = run([*graft, "bench", "--json", "--sizes", arguments.sizes, "--threads", ",".join(map(str, threads)),
                  "--seconds", "0.02" if arguments.quick else "0.1", *arguments.name])
    report.update(sweep=tuned["table"], peers=[], notes=[], versions={}, date=datetime.date.today().isoformat(),
                  load_before=load)
    if not arguments.no_peers:
        for count in threads:
            more = ["--seconds", "0.02", "--rounds", "2"] if arguments.quick else []
            if not (arguments.quick or arguments.no_compile):
                more.append("--compile")
            found = run([peer_python(), "bench/peers/kernels.py", "--graft", arguments.graft, "--threads", str(count), "--sizes", arguments.peer_sizes,
                         *more, *arguments.name], must=False)
            if found is None:
                report["notes"].append(f"peers with {count} threads: not measured (is NumPy there? ./dev interop makes .venv-interop)")
                continue
            report["peers"] += found["results"]
            report["notes"] += [note for note in found["notes"] if note not in report["notes"]]
            report["versions"] = found["versions"]
    report["load_after"] = os.getloadavg()
    (out / "kernels.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    subprocess.run([*graft, "page", out / "kernels.json", "--html", out / "kernels.html"], check=True)
    print("\n".join(summary(report)))
    print(f"{out / 'kernels.json'}, {out / 'kernels.html'}; load {load[0]:.1f} before, {report['load_after'][0]:.1f} after")


if __name__ == "__main__":
    main()
