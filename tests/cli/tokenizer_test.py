"""graft tokenizer train: from text to a folder that tokenize and detokenize read, and one clear line for whatever is wrong."""

import json
import unittest

from graft_cli import ROOT, FolderTest, graft


class Tokenizer(FolderTest):
    def file(self, name, content):
        (self.dir / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.dir / name

    def train(self, *arguments, code=0):
        result = graft("tokenizer", "train", *arguments)
        self.assertEqual(result.code, code, result)
        return result

    def ids(self, text, folder="tok"):
        lines = self.file("in.jsonl", json.dumps({"text": text}))
        ids = json.loads(graft("tokenize", self.dir / folder, "--file", lines).out)["ids"]
        back = graft("detokenize", self.dir / folder, "--file", self.file("ids.jsonl", json.dumps({"ids": ids})))
        self.assertEqual(json.loads(back.out)["text"], text)
        return ids

    def test_learns_writes_and_is_read_back(self):
        text = (ROOT / "LICENSE").read_text()
        told = self.train(ROOT / "LICENSE", "--vocab-size", 700, "--special", "<|im_start|>", "--out", self.dir / "tok", "--json").json()
        self.assertEqual((told["tokens"], told["text_bytes"]), (700, len(text.encode())))
        self.assertEqual(len(self.ids(text)), told["text_tokens"])
        self.assertEqual(self.ids("<|endoftext|><|im_start|>"), [0, 1])
        config = json.loads((self.dir / "tok/tokenizer_config.json").read_text())
        self.assertEqual(config["eos_token"], "<|endoftext|>")
        made = json.loads((self.dir / "tok/tokenizer.json").read_text())
        self.assertEqual(sorted(made["model"]["vocab"].values()), list(range(700)))

        # The same bytes again; a folder that is not empty is not written into unasked.
        before = (self.dir / "tok/tokenizer.json").read_bytes()
        refused = self.train(ROOT / "LICENSE", "--vocab-size", 300, "--out", self.dir / "tok", code=1)
        self.assertIn("is not empty", refused.err)
        self.train(ROOT / "LICENSE", "--vocab-size", 700, "--special", "<|im_start|>", "--out", self.dir / "tok", "--overwrite")
        self.assertEqual((self.dir / "tok/tokenizer.json").read_bytes(), before)

    def test_rows_of_every_kind(self):
        rows = self.file("rows.jsonl", json.dumps({"messages": [{"role": "user", "content": "hello hello"}, {"role": "assistant", "content": "world world"}]}))
        told = self.train(rows, "--vocab-size", 264, "--out", self.dir / "tok", "--json").json()
        self.assertEqual(told["text_bytes"], len("hello hello" + "world world"))
        pairs = self.file("pairs.jsonl", "\n".join(json.dumps({"prompt": "abab", "completion": " cdcd"}) for _ in range(2)))
        self.assertEqual(self.train(pairs, "--vocab-size", 259, "--out", self.dir / "two", "--json").json()["text_bytes"], 18)

    def test_bytes_alone(self):
        self.train("--bytes", "--out", self.dir / "tok")
        self.assertEqual(len(self.ids("naïve")), 6)
        self.assertEqual(len(json.loads((self.dir / "tok/tokenizer.json").read_text())["model"]["vocab"]), 257)

    def test_fewer_tokens_than_asked_for_is_said(self):
        result = self.train(self.file("a.txt", "abc abc"), "--vocab-size", 4000, "--out", self.dir / "tok")
        self.assertIn("tokens instead of 4,000", result.err)
        self.assertEqual(len(self.ids("abc")), 1)

    def test_bad_input_gives_one_clear_line(self):
        cases = {"no such": (self.dir / "none.txt", "none.txt"), "empty": (self.file("empty.txt", ""), "empty"), "empty rows": (self.file("empty.jsonl", ""), "no rows"),
                 "one byte": (self.file("one.txt", "a"), "no pair"), "not UTF-8": (self.file("bad.txt", b"one\xc0\xaf"), "UTF-8"),
                 "broken row": (self.file("bad.jsonl", '{"text": "a"}\n{"text": 5}\n'), "bad.jsonl:2"), "folder": (self.dir, "directory"),
                 "not text": (self.file("zip.txt", b"PK\x03\x04xx"), "zip")}
        for name, (path, word) in cases.items():
            with self.subTest(name):
                result = self.train(path, "--vocab-size", 300, "--out", self.dir / "out", code=1)
                self.assertIn(word, result.err)
                self.assertEqual([line.split(":")[0] for line in result.err.splitlines()], ["error", "hint"])
                self.assertFalse((self.dir / "out").exists())

    def test_wrong_usage(self):
        text = self.file("a.txt", "abc abc")
        for name, arguments, word in (("small", [text, "--vocab-size", 255], "expected 257"), ("specials count", [text, "--vocab-size", 256], "expected 257"),
                                      ("negative", [text, "--vocab-size", -5], "-5"), ("huge", [text, "--vocab-size", 1 << 62], "16777216"),
                                      ("no size", [text], "--vocab-size"), ("no files", ["--vocab-size", 300], "FILES"),
                                      ("both", [text, "--vocab-size", 300, "--bytes"], "--bytes"), ("special twice", [text, "--vocab-size", 300, "--special", "<|endoftext|>"], "twice")):
            with self.subTest(name):
                result = self.train(*arguments, "--out", self.dir / "out", code=2)
                self.assertIn(word, result.err)
                self.assertFalse((self.dir / "out").exists())


if __name__ == "__main__":
    unittest.main()
