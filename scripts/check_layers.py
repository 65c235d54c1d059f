#!/usr/bin/env python3
"""Checks the structure of the source tree: includes follow the layers, no machine paths, no giant files.

Errors (exit 1): an include that goes against the arrows of docs/architecture.md, given as file:line; a path of one
machine in a tracked file; more than 5 MB under tests/data. Warning: a source file of more than 600 lines. Tests may include what they like.
`--self-test` checks the checker.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

# Each layer and what it may include beside itself.
STACK = ["base", "kernels", "graph", "nn", "models", "infer", "train", "bench", "cli"]
ALLOWED = {layer: set(STACK[:i]) for i, layer in enumerate(STACK)}
ALLOWED["formats"] = {"base"}
ALLOWED["text"] = {"base"}
for layer in ("models", "infer", "train", "bench", "cli"):
    ALLOWED[layer].add("formats")
for layer in ("infer", "train", "bench", "cli"):
    ALLOWED[layer].add("text")
for layer in ("server", "python"):  # siblings of cli
    ALLOWED[layer] = set(STACK[:-1]) | {"formats", "text"}
ALLOWED["recipes"] = {"base", "kernels"}  # beside graph
ALLOWED["cli"] |= {"server", "recipes"}

INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')
# Spelt with a group so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|farm|root|home/\w+)/|/tmp/(?:bash_jobs|wt-)")
MAX_LINES = 600
MAX_TEST_DATA_BYTES = 5_000_000


def layer_of(path):
    parts = pathlib.PurePosixPath(path).parts
    return parts[1] if len(parts) > 2 and parts[0] == "graft" else None


def check_includes(path, text):
    """Faults of one file's includes, as 'file:line: words'."""
    layer = layer_of(path)
    if layer is None or path.endswith(("_test.cc", "test_support.h")):
        return []
    if layer not in ALLOWED:
        return [f"{path}:1: folder graft/{layer} is no known layer; add it to scripts/check_layers.py"]
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = layer_of(match[1])
        if target is None:
            if match[1].startswith("tests/"):
                faults.append(f"{path}:{number}: includes {match[1]}; only tests may")
            continue  # a library's header
        if target != layer and target not in ALLOWED[layer]:
            may = ", ".join(sorted(ALLOWED[layer])) or "nothing else"
            faults.append(f"{path}:{number}: {layer} includes {match[1]}; {layer} may use {may}")
    return faults


def check_paths(path, text):
    return [
        f"{path}:{number}: path of one machine: {match[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in MACHINE_PATH.finditer(line)
    ]


def check_tree(root, files):
    faults, warnings = [], []
    data = sum((root / path).stat().st_size for path in files if path.startswith("tests/data/") and (root / path).is_file())
    if data > MAX_TEST_DATA_BYTES:
        faults.append(f"tests/data: {data} bytes, at most {MAX_TEST_DATA_BYTES}; larger data stands in the shared fixtures")
    for path in files:
        try:
            text = (root / path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # binary, or deleted and not yet committed
        faults += check_paths(path, text)
        if path.endswith((".cc", ".h")):
            faults += check_includes(path, text)
        if path.endswith((".cc", ".h", ".py")) and text.count("\n") > MAX_LINES:
            warnings.append(f"{path}: {text.count(chr(10))} lines, more than {MAX_LINES}; does it still have one job?")
    return faults, warnings


def self_test():
    good = {
        "graft/base/a.h": "#include <vector>\n",
        "graft/kernels/a.cc": '#include "graft/base/a.h"\n#include "hwy/highway.h"\n',
        "graft/formats/a.cc": '#include "graft/formats/a.h"\n#include "graft/base/a.h"\n',
        "graft/train/a.cc": '#include "graft/text/a.h"\n#include "graft/formats/a.h"\n',
        "graft/base/a_test.cc": '#include "graft/cli/a.h"\n#include "tests/support/fixtures.h"\n',
        "README.md": "see ../wo" + "rk/notes and https://host/wo" + "rk/\n",
    }
    bad = {
        "graft/base/a.h": ('\n#include "graft/kernels/a.h"\n', "graft/base/a.h:2:"),
        "graft/graph/a.cc": ('#include "graft/formats/a.h"\n', "graft/graph/a.cc:1:"),
        "graft/text/a.cc": ('  #  include "graft/formats/a.h"\n', "graft/text/a.cc:1:"),
        "graft/models/a.cc": ('#include "graft/text/a.h"\n', "graft/models/a.cc:1:"),
        "graft/unknown/a.cc": ("", "graft/unknown/a.cc:1:"),
        "graft/nn/a.cc": ('#include "tests/support/fixtures.h"\n', "graft/nn/a.cc:1:"),
        "docs/a.md": ("one\ntwo\nsee " + "/wo" + "rk/notes\n", "docs/a.md:3:"),
        "scripts/a.py": ("x = '/ro" + "ot/x'\n", "scripts/a.py:1:"),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)

        def run(files):
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            return check_tree(root, list(files))

        faults, _ = run(good)
        assert not faults, faults
        for path, (text, expected) in bad.items():
            faults, _ = run({path: text})
            assert len(faults) == 1 and faults[0].startswith(expected), (path, faults)
        faults, _ = run({"tests/data/big": "x" * (MAX_TEST_DATA_BYTES + 1)})
        assert len(faults) == 1 and faults[0].startswith("tests/data:"), faults
        _, warnings = run({"graft/base/long.cc": "\n" * (MAX_LINES + 1), "graft/base/short.cc": "\n" * MAX_LINES})
        assert len(warnings) == 1 and warnings[0].startswith("graft/base/long.cc"), warnings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true", help="check the checker, then the tree")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
    root = pathlib.Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if listed.returncode == 0:
        files = listed.stdout.splitlines()
    else:  # an unpacked archive
        files = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "build" not in p.parts]
    faults, warnings = check_tree(root, files)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in faults:
        print(f"error: {line}", file=sys.stderr)
    print(f"check_layers: {len(files)} files, {len(faults)} faults, {len(warnings)} warnings")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
