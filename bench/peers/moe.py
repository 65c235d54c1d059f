#!/usr/bin/env python3
"""Speed of NumPy, PyTorch (eager, compiled) and MLX on the 22 scenarios of `graft bench moe`, in turns with graft's.

Every engine is a process of its own that answers one line for each line asked, as `graft bench moe --serve` does; the parallel scenarios ask
several processes to begin at one moment. Before anything is timed, each engine's logits, loss and gradients on graft's own weights are
compared with `graft dump`. One JSON object on standard output.

    .venv-interop/bin/python bench/peers/moe.py --threads 1 --only mem_train_step,dispatch_warm
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from moe_engines import AUX, EXPERTS, HEADS, LAYERS, MODELS, TOP_K, VOCAB, Mlx, Numpy, Torch, example, make, random_weights, stacked

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ENGINES = ["numpy", "torch", "torch.compile", "mlx"]
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 36), "MALLOC_TOP_PAD_": str(1 << 26)}

# id: (work, model, batch, seq, workers, calls)
SCENARIOS = {"mem_train_step": ("train", "tiny", 2, 8, 1, 1)}
SCENARIOS |= {f"mem_scale_batch_{b}": ("forward", "tiny", b, 32, 1, 1) for b in (1, 2, 4, 8)}
SCENARIOS |= {f"mem_scale_seq_{s}": ("forward", "tiny", 2, s, 1, 1) for s in (8, 16, 32, 64)}
SCENARIOS |= {"kernel_matmul": ("matmul", None, 0, 0, 1, 16), "kernel_softmax": ("softmax", None, 0, 0, 1, 64), "kernel_rmsnorm": ("rmsnorm", None, 0, 0, 1, 64)}
SCENARIOS |= {"dispatch_warm": ("forward", "tiny", 2, 32, 1, 1), "dispatch_cold": ("cold", "tiny", 1, 8, 1, 1)}
SCENARIOS |= {f"parallel_T{w}": ("forward", "tiny", 2, 32, w, 1) for w in (1, 2, 4)}
SCENARIOS |= {f"parallel_train_T{w}": ("train", "tiny", 2, 8, w, 1) for w in (1, 2, 4)}
SCENARIOS |= {"scale_forward_256": ("forward", "small", 2, 32, 1, 1), "scale_train_256": ("train", "small", 2, 8, 1, 1)}


class Worker:
    """One engine in this process: answers as graft bench moe --serve."""

    def __init__(self, engine, threads, weights):
        self.engine, self.weights, self.ready, self.call = engine, weights, None, None
        if engine.startswith("torch"):
            import torch
            torch.set_num_threads(threads)

    def prepare(self, name):
        import numpy as np
        work, model, batch, seq, _, calls = SCENARIOS[name]
        ids, targets, counts = example(max(1, batch), max(1, seq))
        engine = self.engine
        if work in ("matmul", "softmax", "rmsnorm"):
            rng = np.random.default_rng(1)
            a, b = (rng.uniform(-1, 1, (64, 64)).astype(np.float32) for _ in range(2))
            kernels = Torch.kernels(a, b, engine == "torch.compile") if engine.startswith("torch") else {"numpy": Numpy, "mlx": Mlx}[engine].kernels(a, b)
            one = kernels[work]

            def many():
                for _ in range(calls):
                    one()
            self.call = many
        elif work == "cold":
            def cold():
                made = make(engine, model, random_weights(model))
                if engine == "torch":
                    made.dense = True
                made.forward(*made.inputs(ids))
            self.call = cold
        else:
            made = make(engine, model, self.weights.get(model) or random_weights(model))
            given = made.inputs(ids, targets, counts)
            self.call = (lambda: made.step(*given)) if work == "train" else lambda: made.forward(given[0])
            if engine == "torch":
                made.choose(self.call)
        self.ready = name

    def answer(self, ask):
        if ask.get("check"):
            return self.check(ask["check"])
        if self.ready != ask["id"]:
            self.prepare(ask["id"])
        calls, times, begun = SCENARIOS[ask["id"]][5], [], 0
        for _ in range(ask.get("runs", 1)):
            if "start" in ask:  # all workers at one moment
                while time.clock_gettime_ns(time.CLOCK_MONOTONIC) < ask["start"]:
                    pass
            begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.call()
            end = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            times.append((end - begin) / calls)
            begun = begun or begin
        return {"id": ask["id"], "timings_ns": times, "begin": begun, "end": end}

    def check(self, folder):
        """What differs from graft's own logits, loss and gradients on the tiny model; an empty list if nothing."""
        import numpy as np
        from safetensors.numpy import load_file
        weights, want = stacked(load_file(f"{folder}/model/model.safetensors")), load_file(f"{folder}/out.safetensors")
        self.weights["tiny"] = weights
        ids, targets, counts = example(2, 8)
        counts[:, -1] = 0  # dump's labels are shifted: the last token of a row has none
        faults = []
        made = [make(self.engine, "tiny", weights)]
        if self.engine == "torch":
            made = [Torch("tiny", weights, dense=dense) for dense in (True, False)]
        for one in made:
            logits, loss, grads = one.checked(*one.inputs(ids, targets, counts))
            gradients = stacked({k: v for k, v in want.items() if k.endswith(".weight")})
            pairs = {"logits": (logits, want["logits"]), "loss": (loss, want["loss"])} | {f"grad {k}": (v, gradients[k]) for k, v in grads.items()}
            for name, (got, right) in pairs.items():
                error = np.abs(np.asarray(got).ravel() - np.asarray(right).ravel()).max() / max(1e-6, np.abs(right).max())
                if not error < 2e-4:
                    faults.append(f"{name}: off by {error:.2g} of the largest")
        return {"faults": faults}


def work(engine, threads):
    worker = Worker(engine, threads, {})
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), flush=True)


class Process:
    def __init__(self, command, environment=None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)

    def send(self, **ask):
        print(json.dumps(ask), file=self.process.stdin, flush=True)

    def receive(self):
        answer = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, **ask):
        self.send(**ask)
        return self.receive()


def turn(processes, name, runs):
    """Times of `runs` runs, after one that is not timed."""
    if len(processes) == 1:
        return processes[0].ask(id=name, runs=runs + 1)["timings_ns"][1:]
    times = []
    for run in range(runs + 1):
        start = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 1_500_000
        for p in processes:
            p.send(id=name, start=start)
        answers = [p.receive() for p in processes]
        if run:
            times.append(max(a["end"] for a in answers) - min(a["begin"] for a in answers))
    return times


def reference(graft, folder):
    """graft's own tiny model with its logits, loss and gradients, in `folder`."""
    from safetensors.numpy import save_file
    import numpy as np
    tiny = MODELS["tiny"]
    config = {"model_type": "graft_moe", "vocab_size": VOCAB, "hidden_size": tiny["hidden"], "intermediate_size": tiny["width"], "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": 1, "head_dim": tiny["head_dim"], "num_local_experts": EXPERTS,
              "num_experts_per_tok": TOP_K, "rope_interleaved": True, "max_position_embeddings": 512, "rope_theta": 1e4, "router_aux_loss_coef": AUX}
    path = pathlib.Path(folder)
    (path / "config.json").write_text(json.dumps(config))
    ids = example(2, 8)[0].astype(np.int64)
    save_file({"input_ids": ids, "labels": ids}, str(path / "in.safetensors"))
    subprocess.run([graft, "init", "--config", path / "config.json", "--seed", "42", "--out", path / "model", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([graft, "dump", path / "model", "--input", path / "in.safetensors", "--output", path / "out.safetensors", "--want", "logits,loss,grads",
                    "--method", "full", "--aux-coef", str(AUX), "--dtype", "f32"], check=True, stdout=subprocess.DEVNULL)


def versions():
    from importlib import metadata
    return {name: metadata.version(name) for name in ("numpy", "torch", "mlx") if any(d.metadata["Name"] == name for d in metadata.distributions())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=str(ROOT / "build/release/graft"))
    parser.add_argument("--threads", type=int, default=1, help="of each model")
    parser.add_argument("--only", default="", help="scenarios; default: all")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.threads)
    names = arguments.only.split(",") if arguments.only else list(SCENARIOS)
    threads, per_turn = str(arguments.threads), 3
    environment = {**os.environ, **KEEP_MEMORY, **{k: threads for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}}
    command = [sys.executable, __file__, "--threads", threads, "--worker"]
    graft = Process([arguments.graft, "bench", "moe", "--serve", "--threads", threads])
    engines, notes, results = {}, [], []
    with tempfile.TemporaryDirectory(prefix="graft-moe-") as folder:
        reference(arguments.graft, folder)
        for engine in arguments.engines.split(","):
            process = Process([*command, engine], environment)
            try:
                if faults := process.ask(check=folder)["faults"]:
                    notes.append(f"{engine}: another result, not compared: {'; '.join(faults[:3])}")
                else:
                    engines[engine] = [process]
            except RuntimeError as error:
                notes.append(f"{engine}: {error}")
    for name in names:
        workers = SCENARIOS[name][4]
        ready = {}
        for engine, processes in engines.items():
            if SCENARIOS[name][0] == "cold" and engine == "torch.compile":
                continue  # making a model would mean compiling it
            while len(processes) < workers:
                processes.append(Process([*command, engine], environment))
            try:
                for process in processes[:workers]:
                    process.ask(id=name, runs=3)
                ready[engine] = processes[:workers]
            except RuntimeError as error:
                notes.append(f"{name} {engine}: {error}")
        graft.ask(id=name, runs=3)
        times = {"graft": [], **{engine: [] for engine in ready}}
        for i in range(max(1, arguments.trials // per_turn)):
            for engine in list(times) if i % 2 == 0 else list(reversed(times)):
                times[engine] += turn([graft] if engine == "graft" else ready[engine], name, per_turn)
                time.sleep(0.001)
        ours = statistics.median(times["graft"])
        for engine, list_of in times.items():
            q = statistics.quantiles(list_of, n=4, method="inclusive") if len(list_of) > 1 else list_of * 3
            result = {"id": name, "engine": engine, "median_ns": statistics.median(list_of), "q1_ns": q[0], "q3_ns": q[2], "timings_ns": list_of}
            if engine != "graft":
                result["ratio"] = result["median_ns"] / ours
            results.append(result)
        print(name, {r["engine"]: round(r["median_ns"] / 1e3, 2) for r in results if r["id"] == name}, file=sys.stderr)
    print(json.dumps({"results": results, "notes": notes, "versions": versions()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
