"""graft kernel list and check."""

import pathlib
import sys
import tempfile
import unittest

from graft_cli import fixtures, graft

FIXTURES = fixtures()


class Kernel(unittest.TestCase):
    def test_list(self):
        kernels = graft("kernel", "list", "--json").json()["kernels"]
        self.assertEqual(len({k["name"] for k in kernels}), len(kernels))
        fma = next(k for k in kernels if k["name"] == "map_fma")
        self.assertEqual((fma["domain"], fma["bytes"], fma["flops"]), ("elementwise_binary", 16, 2))
        self.assertIn("scalar", fma["variants"])
        text = graft("kernel", "list").out
        self.assertIn(f"{len(kernels)} kernels in ", text)

    def test_faults(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as folder:
            foreign = pathlib.Path(folder) / "x.safetensors"
            foreign.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
            for path, what in ((foreign, "no 'kernel'"), (folder + "/none", "none"), (__file__, "kernel_test.py")):
                run = graft("kernel", "check", path)
                self.assertEqual(run.code, 1, run)
                self.assertIn(what, run.err)
                self.assertIn("hint: ", run.err)
            run = graft("kernel", "check", foreign, folder + "/none", "--json")  # one line each
            self.assertEqual((run.code, len(run.json()["errors"]), run.err.count("error: ")), (1, 2, 2), run)
        self.assertEqual(graft("kernel").code, 2)

    @unittest.skipUnless(FIXTURES, "no fixtures")
    def test_check(self):
        golden = FIXTURES.parent / "oracle/golden"
        run = graft("kernel", "check", golden / "map_exp.safetensors", golden / "reduce_var.safetensors", "--variant", "scalar", "--json")
        self.assertEqual(run.code, 0, run)
        results = run.json()["results"]
        self.assertEqual([(r["kernel"], r["variant"], r["ok"]) for r in results], [("map_exp", "scalar", True), ("reduce_var", "scalar", True)])
        self.assertLess(results[0]["error_over_tolerance"], 1)
        self.assertIn("agree", graft("kernel", "check", golden / "map_exp.safetensors").out)
        unknown = graft("kernel", "check", golden / "map_exp.safetensors", "--variant", "sse9")
        self.assertEqual(unknown.code, 1)
        self.assertIn("all or one of scalar", unknown.err)


if __name__ == "__main__":
    if not FIXTURES:
        sys.exit(77)
    unittest.main()
