"""graft kernel list and check."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from graft_cli import BINARY, fixtures, graft

FIXTURES = fixtures()


class Kernel(unittest.TestCase):
    def test_list(self):
        kernels = graft("kernel", "list", "--json").json()["kernels"]
        self.assertEqual(len({k["name"] for k in kernels}), len(kernels))
        fma = next(k for k in kernels if k["name"] == "map_fma")
        self.assertEqual((fma["domain"], fma["bytes"], fma["flops"]), ("elementwise_binary", 16, 2))
        self.assertIn("scalar", fma["variants"])
        self.assertEqual(fma["in_place"], "y=a y=b y=c")
        text = graft("kernel", "list").out
        self.assertIn(f"{len(kernels)} kernels in ", text)

    def test_bench(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as folder:
            page = pathlib.Path(folder) / "k.html"
            run = graft("kernel", "bench", "map_abs", "reduce_sum", "--sizes", "1000,64K", "--threads", "1", "--seconds", "0.005", "--json", "--html", page)
            self.assertIn(run.code, (0, 1), run)  # 1: a busy machine's roof may be beyond its limit
            report = run.json()
            self.assertEqual([(r["kernel"], r["size"]) for r in report["results"]], [(k, s) for k in ("reduce_sum", "map_abs") for s in ("1000", "64K")])
            for r in report["results"]:
                self.assertLessEqual({"variant", "threads", "median_ns", "q1_ns", "q3_ns", "bytes", "flops", "limit_share"}, r.keys())
                self.assertGreater(r["median_ns"], 0)
            self.assertEqual({r["level"] for r in report["machine"]["roofs"]} - {"L1", "L2", "L3", "memory"}, {"FMA"})
            text = page.read_text(encoding="utf-8")
            self.assertIn('"map_abs"', text)
            self.assertNotRegex(text, r"""(src|href)=["']http""")  # nothing from elsewhere
            (pathlib.Path(folder) / "not.json").write_text("[1]")
            run = graft("kernel", "page", folder + "/not.json", "--html", folder + "/x.html")
            self.assertEqual((run.code, (pathlib.Path(folder) / "x.html").exists()), (1, False), run)
        fused = graft("kernel", "bench", "fused_layernorm_dropout_residual", "map_abs", "--sizes", "4K", "--threads", "1", "--seconds", "0.005", "--json").json()["fused"]
        self.assertEqual([(r["kernel"], r["unfused"], r["bytes"], r["unfused_bytes"]) for r in fused],
                         [("fused_layernorm_dropout_residual", "layer_norm, map_fma", 13 * 4096, 24 * 4096)])
        self.assertGreater(fused[0]["speed"], 0)
        run = graft("kernel", "bench", "nothing", "map_abs", "--sizes", "0,-1,1e15,64K", "--json")
        self.assertEqual((run.code, run.out), (2, ""), run)
        for word in ("'nothing'", "'0'", "'-1'", "'1e15'"):
            self.assertIn(word, run.err)
        self.assertEqual(graft("kernel", "bench", "map_abs", "--threads", "0,1").code, 2)
        run = graft("kernel", "bench", "map_abs", "--variant", "sse9", "--sizes", "1000")
        self.assertEqual((run.code, run.err.count("error: "), "no variant 'sse9'" in run.err), (1, 1, True), run)
        big = graft("kernel", "bench", "map_abs", "map_fma", "--sizes", "1G,1000", "--threads", "1", "--seconds", "0.001", "--json")
        self.assertEqual(big.code, 1)  # says what does not fit, and goes on
        self.assertEqual([(r["kernel"], r["size"]) for r in big.json()["results"]], [("map_abs", "1000"), ("map_fma", "1000")])
        self.assertEqual(big.err.count("GiB, at most 1"), 2)

    def test_serve(self):
        asked = ['{"kernel": "map_exp", "size": "1000", "seconds": 0.001}', "nonsense", '{"kernel": "map_none", "size": "1"}', '{"kernel": "map_exp", "size": "-1"}', "[]"]
        done = subprocess.run([BINARY, "kernel", "bench", "--serve"], input="\n".join(asked) + "\n", capture_output=True, text=True, timeout=60)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([("error" in a) for a in answers], [False, True, True, True, True], done)
        self.assertEqual(done.returncode, 0)

    def test_tune_and_route(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as folder:
            env = {"XDG_CACHE_HOME": folder}
            estimated = graft("kernel", "route", "map_exp", "1M", "--json", env=env).json()
            self.assertFalse(estimated["measured"])
            self.assertEqual(estimated["choice"], estimated["considered"][0])
            tuned = graft("kernel", "tune", "map_exp", "--quick", "--json", env=env, timeout=300).json()
            self.assertTrue(tuned["saved"])
            table = pathlib.Path(tuned["path"])
            self.assertEqual(table.parent, pathlib.Path(folder) / "graft")
            self.assertEqual([p.name for p in table.parent.iterdir()], [table.name])
            self.assertEqual(list(json.loads(table.read_text())["kernels"]), ["map_exp"])
            self.assertTrue(graft("kernel", "route", "map_exp", "1M", "--json", env=env).json()["measured"])
            text = graft("kernel", "route", "map_exp", "1M", env=env).out
            self.assertIn("measured", text)
            self.assertIn("GB/s", text)
            graft("kernel", "tune", "map_abs", "--quick", env=env, timeout=300)  # the others keep what they have
            self.assertEqual(set(json.loads(table.read_text())["kernels"]), {"map_exp", "map_abs"})
            routed = graft("kernel", "bench", "map_exp", "--routed", "--sizes", "1000,64K", "--seconds", "0.005", "--json", env=env).json()
            self.assertEqual([(r["size"], r["measured"]) for r in routed["results"]], [(1000, True), (65536, True)])
            self.assertGreaterEqual(min(r["distance"] for r in routed["results"]), 0)
            # broken, foreign: one line, and the estimator
            whole = table.read_text()
            for broken, what in ((whole[:-20], table.name), (whole.replace('"cpu":"', '"cpu":"Another '), "Another"), ("", table.name)):
                table.write_text(broken)
                run = graft("kernel", "route", "map_exp", "1M", "--json", env=env)
                self.assertEqual((run.code, run.json()["measured"], run.err.count("\n")), (0, False, 1), run)
                self.assertIn("warning: ", run.err)
                self.assertIn(what, run.err)
                run = graft("kernel", "bench", "map_exp", "--routed", "--sizes", "1000", "--seconds", "0.005", "--json", env=env)
                self.assertEqual((run.code, run.json()["estimated"], run.err.count("\n")), (0, 1, 1), run)
            # tuning one kernel begins a new table where the old one is broken
            table.write_text(whole[:-20])
            run = graft("kernel", "tune", "map_abs", "--quick", "--json", env=env, timeout=300)
            self.assertEqual((run.code, run.json()["saved"], run.err.count("\n")), (0, True, 1), run)
            self.assertIn("a new table is begun", run.err)
            self.assertEqual(list(json.loads(table.read_text())["kernels"]), ["map_abs"])
            # unwritable: one line and a hint after the measuring
            (pathlib.Path(folder) / "file").write_text("")
            run = graft("kernel", "tune", "map_abs", "--quick", env={"XDG_CACHE_HOME": folder + "/file"}, timeout=300)
            self.assertEqual((run.code, run.err.count("error: ")), (1, 1), run)
        for command in (("route", "map_none", "1M"), ("tune", "map_none", "map_abs")):
            run = graft("kernel", *command)
            self.assertEqual((run.code, run.err.count("error: "), "'map_none'" in run.err), (2, 1, True), run)
        for size in ("0", "-1", "1e15", "4xLLC"):
            run = graft("kernel", "route", "map_exp", size) if not size.startswith("-") else graft("kernel", "route", "map_exp", "--", size)
            self.assertEqual(run.code, 2, run)

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
