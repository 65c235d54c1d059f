"""docs/add_a_kernel.md, followed to the letter in a copy of the tree: its blocks are put where they say, its commands run."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GUIDE = ROOT / "docs/add_a_kernel.md"
BLOCK = re.compile(r"^```(cpp|sh)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    """Of each block: its language, {"file", "below" | "above" | "replaces" | "new"}, its text."""
    for language, attributes, text in BLOCK.findall(GUIDE.read_text(encoding="utf-8")):
        yield language, dict(a.split("=", 1) if "=" in a else (a, "") for a in shlex.split(attributes)), text


def apply(root, where, text):
    """Puts a block where its first line says; the place must be there, once."""
    path = root / where["file"]
    if "new" in where:
        assert not path.exists(), f"{path} exists"
        path.write_text(text, encoding="utf-8")
        return
    kind = next(k for k in ("below", "above", "replaces") if k in where)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    exact = [i for i, line in enumerate(lines) if (line.rstrip("\n") == where[kind] if kind == "replaces" else where[kind] in line)]
    assert len(exact) == 1, f"{where['file']}: {len(exact)} lines hold {where[kind]!r}, expected one"
    at = exact[0]
    lines[at + (kind == "below"):at + (kind != "above")] = [text]
    path.write_text("".join(lines), encoding="utf-8")


class Guide(unittest.TestCase):
    def test_every_block_has_its_place(self):
        with tempfile.TemporaryDirectory(prefix="graft-guide-") as folder:
            root, count = pathlib.Path(folder), 0
            for language, where, text in blocks():
                if language != "cpp":
                    continue
                path = root / where["file"]
                if not path.exists() and "new" not in where:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / where["file"], path)
                path.parent.mkdir(parents=True, exist_ok=True)
                apply(root, where, text)
                self.assertIn(text, path.read_text(encoding="utf-8"))
                count += 1
            self.assertGreaterEqual(count, 6)

    @unittest.skipUnless(os.environ.get("GRAFT_SLOW"), "builds a copy of the tree: GRAFT_SLOW=1")
    def test_followed_literally(self):
        with tempfile.TemporaryDirectory(prefix="graft-guide-") as folder:
            root = pathlib.Path(folder) / "graft"
            listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for name in listed.splitlines():
                if (ROOT / name).is_file():
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, root / name)
            commands = ""
            for language, where, text in blocks():
                if language == "cpp":
                    apply(root, where, text)
                else:
                    commands += text
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=root, capture_output=True, text=True,
                                  env={**os.environ, "XDG_CACHE_HOME": str(root / "cache"), "CCACHE_DIR": ccache_folder()})
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
            self.assertIn("[  PASSED  ]", done.stdout)
            self.assertIn("x clamp(x / 6 + 1/2, 0, 1)", done.stdout)
            self.assertIn("map_hard_swish of 65536 elements", done.stdout)
        self.assertNotIn("map_hard_swish", (ROOT / "graft/kernels/map.h").read_text(encoding="utf-8"))


def ccache_folder():
    """Where ccache keeps what this tree compiled, whatever XDG_CACHE_HOME says."""
    if "CCACHE_DIR" in os.environ:
        return os.environ["CCACHE_DIR"]
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ccache"
    legacy = pathlib.Path.home() / ".ccache"
    return str(legacy if legacy.is_dir() else home)


if __name__ == "__main__":
    if "GRAFT_SANITIZED" in os.environ:
        sys.exit(77)
    unittest.main()
