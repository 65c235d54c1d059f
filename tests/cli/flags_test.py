"""Every flag of the command-line contract is there, is explained, and refuses what is out of its range; all faults at once."""

import json
import pathlib
import tempfile
import unittest

from graft_cli import TINY, batches, graft

COMMON = "--threads --seed --dtype --quiet --verbose"
FLAGS = {
    "train": COMMON + """ --json --model --data --out --method --rank --alpha --dropout --rslora --dora --targets --exclude --layers --rank-pattern
        --alpha-pattern --modules-to-save --init --adapter --save-dtype --lr --schedule --schedule-steps --warmup --warmup-from --min-lr --weight-decay
        --decay-all --beta1 --beta2 --eps --clip --optimizer --aux-coef --aux-mode --z-coef --epochs --steps --batch-size --batch-tokens --accumulate
        --max-length --too-long --pack --loss-on --no-shuffle --label-smoothing --valid --eval-every --save-every --keep --early-stop --resume --overwrite
        --recompute --memory-limit --dropout-at --ignore-index --partial --template-arg --dry-run --config""",
    "merge": "--threads --quiet --verbose --json --out --dtype --shard-size --overwrite",
    "generate": COMMON + """ --json --adapter --prompt --file --raw --chat --max-tokens --temperature --top-k --top-p --min-p --repetition-penalty
        --frequency-penalty --presence-penalty --logit-bias --repeat-last-n --stop --min-tokens --ignore-eos --system --rng --greedy --stream --no-cache
        --logprobs --template-arg""",
    "chat": COMMON + " --adapter --raw --system --template-arg --max-tokens --temperature",
    "eval": COMMON + " --json --adapter --data --metrics --max-tokens --raw --chat --template-arg",
    "data check": COMMON + " --json --model --max-length --show",
    "bench moe": "--threads --seed --quiet --json --only --trials --warmup --html --from --serve",
    "inspect": COMMON + " --json",
    "tokenize": COMMON + " --file --no-special",
    "detokenize": COMMON + " --file --skip-special --stream",
    "template": COMMON + " --file --tokens --template-arg",
    "dump": COMMON + """ --adapter --input --output --want --method --temperature --top-k --top-p --min-p --repetition-penalty --frequency-penalty
        --presence-penalty --logit-bias --repeat-last-n""",
}
RUN = ["train", "--model", "m", "--data", "d", "--out", "o"]
ASK = ["generate", "m", "--prompt", "x"]
OUT_OF_RANGE = [
    *([*RUN, f"--{name}", value] for name, values in {
        "rank": ["0", "-1", "x", "1.5"], "alpha": ["0", "-1", "nan", "inf"], "dropout": ["1", "-0.1", "nan"], "lr": ["0", "-1", "nan", "1e999"],
        "beta1": ["1", "-0.1"], "beta2": ["1"], "eps": ["0"], "weight-decay": ["-1"], "clip": ["-1", "on"], "label-smoothing": ["1"], "warmup": ["-1", "101%", "x"],
        "warmup-from": ["2"], "schedule": ["sine"], "optimizer": ["adam"], "epochs": ["0", "1.5"], "steps": ["-1"], "batch-size": ["0"],
        "accumulate": ["0"], "max-length": ["-1", "x"], "too-long": ["cut"], "loss-on": ["none"], "method": ["qlora"], "init": ["zero"], "dropout-at": ["output"],
        "save-dtype": ["f64"], "keep": ["0"], "save-every": ["-1"], "early-stop": ["-1"], "memory-limit": ["8Q", "-1", "much"], "threads": ["-1", "x"],
        "seed": ["-1", "x"], "dtype": ["f16"], "aux-mode": ["both"]}.items() for value in values),
    *([*ASK, f"--{name}", value] for name, values in {
        "temperature": ["-1", "x"], "top-k": ["-1"], "top-p": ["1.5", "-0.1"], "min-p": ["2"], "max-tokens": ["-1", "x"], "repetition-penalty": ["0"],
        "logit-bias": ["5", "x=1", "5=x"], "rng": ["mt"], "logprobs": ["-1"], "threads": ["0"], "stop": [""], "dtype": ["f64"]}.items() for value in values),
    [*ASK, "--raw", "--chat"], [*ASK, "--file", "f"], ["generate", "m"],
    ["merge", "m", "a", "--out", "o", "--dtype", "f64"], ["merge", "m", "a", "--out", "o", "--shard-size", "x"], ["merge", "m", "a"], ["merge", "m", "--out", "o"],
    ["dump", "m", "--input", "i"], ["dump", "m", "--input", "i", "--output", "o", "--method", "x"],
    ["eval", "m"], ["eval", "m", "--data", "d", "--metrics", "accuracy"], ["data"], ["data", "chek"], ["data", "check", "d"],
    ["data", "check", "d", "--model", "m", "--max-length", "0"], ["inspect"], ["inspect", "a", "b"], ["tokenize", "m"], ["template", "t"], ["detokenize", "m"],
]


class Flags(unittest.TestCase):
    def test_help_lists_every_flag_with_its_meaning(self):
        for command, flags in FLAGS.items():
            text = graft(*command.split(), "--help").out
            for flag in flags.split():
                with self.subTest(f"{command} {flag}"):
                    lines = [line for line in text.splitlines() if flag in line.replace(",", " ").split()]
                    self.assertTrue(lines)
                    # A description follows, on the line or below it.
                    after = text[text.index(lines[0]) :].split("\n  -")[0]
                    self.assertGreater(len(after.split()), 3, after)
            self.assertIn(f"graft {command}", text)

    def test_out_of_range_is_wrong_usage(self):
        for arguments in OUT_OF_RANGE:
            with self.subTest(" ".join(arguments)):
                result = graft(*arguments)
                self.assertEqual(result.code, 2, result)
                self.assertEqual(result.out, "")
                self.assertRegex(result.err, r"(?m)^error: ")
                self.assertRegex(result.err, r"(?m)^hint: graft( \w+)+ --help")

    def test_all_faults_of_a_command_line_at_once(self):
        result = graft("train", "--model", "m", "--out", "o", "--rank", "0", "--lr", "x", "--schedul", "cosine", "--dropout", "2", "--keep", "0")
        self.assertEqual(result.code, 2, result)
        for word in ("rank", "lr", "--schedul", "dropout", "keep"):
            self.assertIn(word, result.err)
        self.assertIn("did you mean --schedule?", result.err)
        result = graft("generate", "--top-p", "3", "--min-p", "-1", "--prompt", "x", "--tempratur=1")
        for word in ("top-p", "min-p", "--tempratur", "model"):
            self.assertIn(word, result.err)

    def test_faults_of_a_config_come_together(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as name:
            path = pathlib.Path(name) / "c.toml"
            path.write_text('rank = 0\nlr = "fast"\nschedul = "cosine"\nmodel = "m"\ndata = "d"\nout = "o"\n')
            result = graft("train", "--config", path)
            self.assertEqual(result.code, 1, result)
            for word in ("rank", "lr", "schedul", "c.toml:1", "c.toml:2", "c.toml:3"):
                self.assertIn(word, result.err)

    def test_unknown_and_missing_commands(self):
        result = graft("trian")
        self.assertEqual(result.code, 2, result)
        self.assertIn("did you mean train?", result.err)
        self.assertEqual(graft().code, 2)

    def test_json_prints_one_object_and_nothing_else(self):
        with tempfile.TemporaryDirectory(prefix="graft-test-") as name:
            folder = pathlib.Path(name)
            batches(folder / "d.safetensors")
            train = ["train", "--model", TINY, "--data", folder / "d.safetensors", "--out", folder / "a", "--steps", 2, "--json"]
            for arguments in ([*train, "--dry-run"], train, [*train, "--resume"], ["merge", TINY, folder / "a", "--out", folder / "m", "--json"],
                              ["inspect", folder / "a", "--json"], ["inspect", TINY, "--json"], ["inspect", folder / "a/checkpoint-2", "--json"],
                              ["eval", TINY, "--data", folder / "d.safetensors", "--json"]):
                with self.subTest(" ".join(map(str, arguments))):
                    result = graft(*arguments)
                    self.assertEqual(result.code, 0, result)
                    self.assertEqual(len(result.out.splitlines()), 1)
                    self.assertIsInstance(json.loads(result.out), dict)


if __name__ == "__main__":
    unittest.main()
