"""graft recipe list and run."""

import unittest

from graft_cli import graft

JOINED = {"describe_stats", "data_analysis", "etl", "training_step", "pde_solver"}


class Recipe(unittest.TestCase):
    def test_every_recipe_runs(self):
        recipes = graft("recipe", "list", "--json").json()["recipes"]
        self.assertEqual(len(recipes), 16)
        self.assertLessEqual(JOINED, {r["name"] for r in recipes})
        for name in (r["name"] for r in recipes):
            run = graft("recipe", "run", name, "--size", "300", "--json")
            self.assertEqual((run.code, run.err), (0, ""), run)
            report = run.json()
            self.assertEqual((report["recipe"], report["size"]), (name, 300))
            self.assertTrue(report["result"])
            self.assertEqual(report["joined"] is not None, name in JOINED)
            if report["joined"]:
                self.assertLess(report["joined"]["bytes"], report["joined"]["bytes_apart"])
                self.assertGreater(min(report["joined"]["ns"], report["joined"]["ns_apart"]), 0)
        text = graft("recipe", "run", "describe_stats").out
        self.assertIn("mean", text)
        self.assertIn("in one pass: 25 % of the bytes", text)

    def test_faults(self):
        for arguments in (("run", "nothing"), ("run", "etl", "--size", "0"), ("run", "etl", "--size", "-1"),
                          ("run", "etl", "--size", "1000000000000000"), ("run",), ()):
            run = graft("recipe", *arguments)
            self.assertEqual((run.code, run.out, run.err.count("error: ")), (2, "", 1), run)


if __name__ == "__main__":
    unittest.main()
