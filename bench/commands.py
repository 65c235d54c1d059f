"""Shared by compare_kernels.py and compare_moe.py: commands that answer with JSON, and the Python that has the peers."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(command, must=True):
    """The JSON of the command's last line; without one None, or where it must the end."""
    print("$", " ".join(map(str, command)), file=sys.stderr)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        if must:
            sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode} and gave no JSON")
        return None


def peer_python():
    """.venv-interop's where ./dev interop has made it, else this one."""
    python = ROOT / ".venv-interop/bin/python"
    return str(python) if python.exists() else sys.executable
