"""docs/kernels says what the registry says."""

import subprocess
import sys
import unittest

from graft_cli import BINARY, ROOT


class Docs(unittest.TestCase):
    def test_pages_are_those_of_the_registry(self):
        done = subprocess.run([sys.executable, "-B", ROOT / "scripts/kernel_docs.py", "--check", "--graft", BINARY], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
