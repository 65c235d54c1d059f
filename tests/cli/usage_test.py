"""The parts of the command-line contract that hold for every command: help, version, exit codes, what goes to which stream."""

import re
import unittest

from graft_cli import graft


def subcommands():
    text = graft("--help").out
    listed = text[text.index("Subcommands:"):].split("\n\n")[0]
    return re.findall(r"^  (\w[\w-]*)", listed, re.MULTILINE)


class Usage(unittest.TestCase):
    def test_help(self):
        result = graft("--help")
        self.assertEqual(result.code, 0, result)
        self.assertEqual(result.err, "")
        self.assertIn("train", subcommands())

    def test_help_of_each_command_has_an_example(self):
        for name in subcommands():
            with self.subTest(name):
                result = graft(name, "--help")
                self.assertEqual(result.code, 0, result)
                self.assertIn("Example", result.out)
                self.assertIn(f"graft {name}", result.out)

    def test_version(self):
        result = graft("--version")
        self.assertEqual(result.code, 0, result)
        self.assertRegex(result.out, r"^graft \d+\.\d+\.\d+ \(")
        for word in ("compiler", "libraries", "targets"):
            self.assertIn(word, result.out)

    def test_wrong_usage_is_2_and_says_what_to_do(self):
        cases = [[], ["no-such-command"], ["train"], ["train", "--no-such-flag"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--rank", "x"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--schedule", "sideways"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--dtype", "f12"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--adapter", "a", "--rank", "4"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--epochs", "1", "--steps", "4"],
                 ["train", "--model", "m", "--data", "d", "--out", "o", "--template-arg", "x"],
                 ["generate", "m", "--prompt", "p", "--temperature", "nan"], ["generate", "m", "--prompt", "p", "--top-p", "0"]]
        for arguments in cases:
            with self.subTest(" ".join(arguments)):
                result = graft(*arguments)
                self.assertEqual(result.code, 2, result)
                self.assertEqual(result.out, "")
                self.assertRegex(result.err, r"(?m)^error: ")
                self.assertRegex(result.err, r"(?m)^hint: ")

    def test_cpu_cap(self):
        import platform
        other = "neon" if platform.machine() == "x86_64" else "avx2"
        self.assertEqual(graft("--version", env={"GRAFT_CPU": "scalar"}).code, 0)
        for cap in (other, "warp"):
            result = graft("dump", "m", "--input", "i", "--output", "o", env={"GRAFT_CPU": cap})
            self.assertEqual(result.code, 2, (cap, result))

    def test_trace_of_the_dispatch(self):
        def trace(**env):
            result = graft("--version", env={"GRAFT_TRACE": "dispatch", **env})
            self.assertEqual(result.code, 0, result)
            return result.err

        self.assertRegex(trace(), r"(?m)^dispatch: f32 and f16 arithmetic: \w+$")
        capped = trace(GRAFT_CPU="scalar")
        self.assertIn("arithmetic: scalar\n", capped)
        self.assertNotIn("scalar does not run", capped)
        self.assertRegex(capped, r"does not run: (this CPU lacks it|capped by GRAFT_CPU)")
        self.assertEqual(graft("--version").err, "")

    def test_failure_is_1_with_a_hint(self):
        result = graft("train", "--model", "/nowhere/model", "--data", "/nowhere/data.jsonl", "--out", "/nowhere/out")
        self.assertEqual(result.code, 1, result)
        self.assertEqual(result.out, "")
        self.assertRegex(result.err, r"(?m)^error: ")
        self.assertIn("/nowhere", result.err)
        self.assertRegex(result.err, r"(?m)^hint: ")


if __name__ == "__main__":
    unittest.main()
