#!/usr/bin/env python3
"""compare_dump.py OURS THEIRS… : largest absolute and relative difference of every tensor that both have (numpy only)."""
import json
import struct
import sys

import numpy as np


def read(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        data = f.read()
    kinds = {"F32": np.float32, "I64": np.int64, "F64": np.float64}
    return {k: np.frombuffer(data[v["data_offsets"][0]:v["data_offsets"][1]], kinds[v["dtype"]]).reshape(v["shape"])
            for k, v in header.items() if k != "__metadata__" and v["dtype"] in kinds}


def main():
    ours = read(sys.argv[1])
    worst = []
    for path in sys.argv[2:]:
        for name, want in read(path).items():
            if name in ("input_ids", "labels", "attention_mask"):
                continue
            if name not in ours:
                print("missing", name)
                continue
            got = ours[name]
            if got.shape != want.shape:
                print("shape", name, got.shape, want.shape)
                continue
            diff = np.abs(got.astype(np.float64) - want).max() if want.size else 0.0
            worst.append((diff / max(np.abs(want).max(), 1e-30), diff, name))
    for relative, absolute, name in sorted(worst, reverse=True)[:6]:
        print(f"{name:60s} abs {absolute:.2e}  of largest {relative:.2e}")


main()
