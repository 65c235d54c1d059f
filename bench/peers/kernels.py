#!/usr/bin/env python3
"""Speed of NumPy, SciPy, PyTorch and MLX for each kernel of the suite, in turns with graft's.

For every kernel and size graft makes the inputs and its own result (`graft kernel bench --serve`), a peer is asked for the same
materialised result, which must agree, and both are timed in rounds, one after the other in an order that alternates. The peers' memory
is kept by the allocator between calls, as graft's outputs are: pages that are touched for the first time count for nobody.
One number of threads for the whole process; one JSON object on standard output.

    .venv-interop/bin/python bench/peers/kernels.py --threads 1 --sizes 1M,10M reductions map_exp
    .venv-interop/bin/python bench/peers/kernels.py --self-test ../shared/oracle/golden     # the calls against golden vectors
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Freed memory stays in the process.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_TOP_PAD_": str(1 << 28)}
SLOW_SECONDS = 5  # a peer that takes longer for its checked run is not run again


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="kernels or domains; default: all")
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", default="1M,10M")
    parser.add_argument("--seconds", type=float, default=0.06, help="for each engine in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile beside eager (takes seconds a kernel)")
    parser.add_argument("--self-test", metavar="GOLDEN", help="run the peers on golden files and compare")
    return parser.parse_args()


def numpy_of(value):
    """A peer's result as an array; complex numbers as pairs."""
    import numpy as np
    if hasattr(value, "detach"):
        value = value.detach().resolve_conj().numpy()
    value = np.atleast_1d(np.asarray(value))
    return np.stack([value.real, value.imag], -1) if np.iscomplexobj(value) else value


def difference(got, want, half=False):
    """None where they agree as two f32 (or f16) computations of one thing do, else what is wrong."""
    import numpy as np
    got = numpy_of(got)
    if got.size != want.size:
        return f"{got.size} values, expected {want.size}"
    got = got.reshape(want.shape)
    if want.dtype == np.uint32:  # also i32 of the same bits
        bad = np.flatnonzero(np.asarray(got, np.int64).ravel() % (1 << 32) != want.ravel())
        return f"{len(bad)} of {want.size} differ" if len(bad) else None
    if want.dtype == np.int8:  # a half may round either way
        bad = np.abs(got.astype(int) - want.astype(int)) > 1
        return f"{int(bad.sum())} of {want.size} differ by more than one" if bad.any() else None
    got, want = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(want)
    scale = float(np.abs(want[finite]).max()) if finite.any() else 0.0
    relative, absolute = (1e-2, 2e-3) if half else (2e-3, 2e-4)
    with np.errstate(invalid="ignore"):
        bad = ~((np.isnan(got) & np.isnan(want)) | (got == want) | (np.abs(got - want) <= relative * np.abs(want) + absolute * scale))
    return f"{int(bad.sum())} of {want.size} differ, the first {got[bad][0]:.6g}, expected {want[bad][0]:.6g}" if bad.any() else None


def check(call, names, outputs, half=False):
    """Runs a peer once; what is wrong with its result, or None."""
    result = call()
    values = result if isinstance(result, (tuple, list)) else (result,)
    for name, value in zip(names.split(), values):
        if name in outputs and (wrong := difference(value, outputs[name], half)):
            return f"{name}: {wrong}"
    return None


def is_half(inputs):
    return any(str(v.dtype) == "float16" for v in inputs.values())


def load(path, prefix=""):
    from safetensors import safe_open
    with safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        tensors = {k[len(prefix):]: file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}
    inputs = {k[3:]: v for k, v in tensors.items() if k.startswith("in.")}
    outputs = {k[4:]: v for k, v in tensors.items() if k.startswith("out.")}
    cut = len(prefix) + len("param.")
    return inputs, outputs, {k[cut:]: v for k, v in metadata.items() if k.startswith(prefix + "param.")}, metadata


def self_test(folder, names):
    """Every peer on golden cases with finite inputs of some size; exit 1 where one gives another result."""
    import numpy as np
    from peer_case import PEERS, Case
    faults, checked = [], 0
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        if names and path.stem not in names:
            continue
        if path.stem not in PEERS:
            faults.append(f"{path.stem}: no peer is known")
            continue
        metadata = load(path)[3]
        for i in range(int(metadata["cases"])):
            inputs, outputs, parameters, _ = load(path, f"case{i}.")
            if any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in inputs.values()) or not any(v.size > 2 for v in outputs.values()) and \
                    not any(v.size > 100 for v in inputs.values()):
                continue
            try:
                for peer, call, wanted in PEERS[path.stem](Case(path.stem, inputs, parameters, outputs)):
                    checked += 1
                    if wrong := check(call, wanted, outputs, is_half(inputs)):
                        faults.append(f"{path.stem} case {i} {peer}: {wrong}")
            except Exception as error:  # pylint: disable=broad-except
                faults.append(f"{path.stem} case {i}: {type(error).__name__}: {error}")
    print("\n".join(faults + [f"{checked} results of peers, {len(faults)} faults"]))
    return 1 if faults else 0


class Graft:
    """graft kernel bench --serve: a line asked, a line answered."""

    def __init__(self, binary, threads):
        self.threads = threads
        self.process = subprocess.Popen([binary, "kernel", "bench", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def time(self, kernel, size, seconds, **more):
        print(json.dumps({"kernel": kernel, "size": size, "threads": self.threads, "seconds": seconds, **more}), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def time_peer(call, seconds):
    """Seconds of a call: samples of at least 30 us each, or of one call where something must be put back before each (`call.before`)."""
    before = getattr(call, "before", None)
    if before:
        before()
    begin = time.perf_counter()
    call()
    once = time.perf_counter() - begin
    calls = 1 if before else max(1, round(30e-6 / max(once, 1e-9)))
    samples, spent = [], 0.0
    while len(samples) < 3 or (spent < seconds and len(samples) < 1000):
        if before:
            before()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        took = time.perf_counter() - begin
        samples.append(took / calls)
        spent += took
    return samples


def compare(graft, kernel, size, arguments, folder):
    """graft's and every peer's times for one kernel and size; the results, and notes on what could not be compared."""
    from peer_case import PEERS, Case
    path = os.path.join(folder, "call.safetensors")
    first = graft.time(kernel, size, 0, dump=path, limit=False)
    if "error" in first:
        return [], [first["error"]]
    inputs, outputs, parameters, _ = load(path)
    os.unlink(path)
    engines, slow, notes = {}, {}, []
    if kernel not in PEERS:
        notes.append(f"{kernel}: no peer is known")
    else:
        try:
            for peer, call, names in PEERS[kernel](Case(kernel, inputs, parameters, outputs, arguments.compile)):
                try:
                    begin = time.perf_counter()
                    wrong = check(call, names, outputs, is_half(inputs))
                    took = time.perf_counter() - begin
                    if wrong:
                        notes.append(f"{kernel} {size} {peer}: another result: {wrong}")
                    else:
                        engines[peer] = call
                    if took > SLOW_SECONDS and not wrong:
                        slow[peer] = took
                        notes.append(f"{kernel} {size} {peer}: one run, the checked one, took {took:.0f} s; not repeated")
                except Exception as error:  # pylint: disable=broad-except
                    notes.append(f"{kernel} {size} {peer}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        except Exception as error:  # pylint: disable=broad-except
            notes.append(f"{kernel} {size}: {type(error).__name__}: {error}")
    ours, theirs = [], {peer: [] for peer in engines}
    for i in range(arguments.rounds):
        order = ["graft", *engines] if i % 2 == 0 else [*reversed(engines), "graft"]
        for engine in order:
            if engine == "graft":
                ours.append(graft.time(kernel, size, arguments.seconds, limit=True))
            elif engine in slow:
                theirs[engine].append([slow[engine]])
            else:
                theirs[engine].append(time_peer(engines[engine], arguments.seconds))
                time.sleep(0.002)  # its threads stop spinning
    if bad := [o["error"] for o in ours if "error" in o]:
        return [], notes + bad[:1]
    middle = statistics.median(o["median_ns"] for o in ours)
    best = min(ours, key=lambda o: abs(o["median_ns"] - middle))
    results = [{**{k: best[k] for k in ("kernel", "domain", "size", "elements", "shape", "threads", "bytes", "flops", "limit", "limit_share", "variant")},
                "engine": "graft", "median_ns": middle, "rounds_ns": [o["median_ns"] for o in ours]}]
    for peer, rounds in theirs.items():
        medians = [1e9 * statistics.median(r) for r in rounds]
        samples = [s for r in rounds for s in r]
        results.append({"kernel": kernel, "domain": best["domain"], "size": size, "threads": arguments.threads, "engine": peer,
                        "median_ns": 1e9 * statistics.median(samples), "rounds_ns": medians,
                        "ratio": statistics.median(m / o["median_ns"] for m, o in zip(medians, ours))})
    return results, notes


def versions():
    import importlib.metadata
    found = {}
    for name in ("numpy", "scipy", "torch", "mlx"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def main():
    arguments = parse()
    if "GRAFT_PEERS" not in os.environ:  # again, with the threads and the allocator's settings in force before anything is loaded
        count = str(arguments.threads)
        threads = {name: count for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads, **KEEP_MEMORY, "GRAFT_PEERS": "1"})
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    import kernel_peers  # noqa: F401: the two fill the table
    import kernel_peers_more  # noqa: F401
    from peer_case import torch
    if arguments.self_test:
        sys.exit(self_test(arguments.self_test, arguments.name))
    if torch is not None:
        torch.set_num_threads(arguments.threads)
    listed = json.loads(subprocess.run([arguments.graft, "kernel", "list", "--json"], capture_output=True, text=True, check=True).stdout)["kernels"]
    known = {k["name"] for k in listed} | {k["domain"] for k in listed}
    if unknown := [n for n in arguments.name if n not in known]:
        sys.exit(f"error: no kernel or domain is called {', '.join(unknown)}")
    kernels = [k["name"] for k in listed if not arguments.name or k["name"] in arguments.name or k["domain"] in arguments.name]
    graft = Graft(arguments.graft, arguments.threads)
    results, notes = [], []
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="graft-peers-", dir=shared) as folder:
        for number, kernel in enumerate(kernels, 1):
            done = set()
            for size in arguments.sizes.split(","):
                some, more = compare(graft, kernel, size, arguments, folder)
                if some and some[0]["shape"] in done:  # the same bench shape at both scales
                    continue
                done.update(r["shape"] for r in some[:1])
                results += some
                notes += more
                ratios = ", ".join(f"{r['engine']} {r['ratio']:.2f}" for r in some if "ratio" in r)
                print(f"{number}/{len(kernels)} {kernel} {size}, {arguments.threads} threads: {ratios or 'no peer'}", file=sys.stderr)
    graft.process.stdin.close()
    print(json.dumps({"threads": arguments.threads, "versions": versions(), "results": results, "notes": notes}))


if __name__ == "__main__":
    main()
