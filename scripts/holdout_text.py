"""Text of holdout.py: garbage, long texts and arbitrary ids through tokenizers of every byte-level and SentencePiece-style kind, against `tokenizers`.

Each of the fixtures' BPE tokenizers as it is and with one setting changed. Not compared: truncation and padding (graft, as transformers, takes them from
the command and not from tokenizer.json), `StripAccents` (marks newer than Unicode 9) and --skip-special where a special token's content is normalized
(`tokenizers` then shows it).
"""

import copy
import json
import os
import pathlib
import random
import subprocess

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

KINDS = ["qwen2", "llama3", "gpt2", "llama2", "mistral", "gemma"]
SCRIPTS = [(0x20, 0x7E), (0, 0x20), (0x7F, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF), (0x1100, 0x11FF), (0x1680, 0x1680),
           (0x1E00, 0x20CF), (0x2000, 0x206F), (0x2E80, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFB00, 0xFFFF), (0x10000, 0x10FFFF), (0x1F1E6, 0x1F9FF), (0xE0000, 0xE01FF)]
PRE_TOKENIZERS = [{"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
                  {"type": "Punctuation", "behavior": "Isolated"}, {"type": "BertPreTokenizer"}, {"type": "CharDelimiterSplit", "delimiter": "a"},
                  {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": False}, {"type": "Split", "pattern": {"Regex": "\\s+|[^\\s\\p{L}]"}, "behavior": "Isolated", "invert": False}]
SETTINGS = {"prefix space": ("add_prefix_space", True), "no prefix space": ("add_prefix_space", False), "no regex": ("use_regex", False), "trim off": ("trim_offsets", False),
            "trim on": ("trim_offsets", True), "prepend always": ("prepend_scheme", "always"), "prepend never": ("prepend_scheme", "never"), "prepend first": ("prepend_scheme", "first"),
            "split on": ("split", True), "split off": ("split", False), "removed": ("behavior", "Removed"), "merged with previous": ("behavior", "MergedWithPrevious"),
            "merged with next": ("behavior", "MergedWithNext"), "contiguous": ("behavior", "Contiguous"), "invert": ("invert", True)}
MODELS = {"ignore merges": {"ignore_merges": True}, "no byte fallback": {"byte_fallback": False}, "unknown apart": {"fuse_unk": False, "byte_fallback": False},
          "unknown fused": {"fuse_unk": True, "byte_fallback": False}}


def character(r):
    while True:
        low, high = r.choice(SCRIPTS)
        code = r.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def texts(r, tokenizer, count):
    special = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    vocab = sorted(tokenizer.get_vocab())
    out = ["", " ", "\n", "\0", "\ufeff", "\ufffd", "a\u0301", "\r\n\r\n  \t x", "\ufdfd", "\u3000", "'S 'LL '\u017f", "\uff11\uff12\uff13\uff14 \u0663\u0664\u0665 \u00b2\u00b3 \u2167", "x\u200by", "\u2028\u2029\x85"]
    kinds = [lambda: character(r), lambda: bytes(r.randrange(256) for _ in range(2)).decode("utf-8", "replace"), lambda: bytes([r.randrange(256)]).decode("latin-1"),
             lambda: r.choice([character(r), r.choice(special), " ", "\n", r.choice(special)[:-1], r.choice(vocab)]), lambda: r.choice(" \t\n\r\u00a0\u2003ab1."),
             lambda: r.choice(vocab), lambda: r.choice(vocab) + character(r) + " ", lambda: r.choice("\u2581<0x41>\u0120<0xFF>\u010aa\u00e9 \u6f22\U0001f469\u200d\U0001f467")]
    while len(out) < count:
        make = kinds[len(out) % len(kinds)]
        out.append("".join(make() for _ in range(r.choice([1, 2, 3, 5, 9, 20, 60]))))
    return out


def long_texts(r):
    yield from ("a" * 200000, " " * 100000, "\n" * 50000, "0123456789" * 20000, "\u6f22\u5b57" * 50000, "ab " * 70000, "\u0301" * 20000, "<s>" * 20000, "'" * 50000,
                "\U0001f469\u200d\U0001f467" * 20000, "\u00e9" * 50000, "\u2581" * 50000, "".join(character(r) for _ in range(60000)))


def changed(kind):
    """(name, tokenizer.json) as it is, and with one thing changed wherever it has that thing."""
    base = json.loads((fixtures() / kind / "tokenizer.json").read_text())
    yield "as is", base

    def put(node, key, value):
        hit = False
        if isinstance(node, dict):
            if node.get("type") in ("ByteLevel", "Metaspace", "Split", "Digits") and node.get(key, value) != value:
                node[key], hit = value, True
            return any([put(child, key, value) for child in node.values()]) or hit
        return any([put(child, key, value) for child in node]) if isinstance(node, list) else False

    for name, (key, value) in SETTINGS.items():
        other = copy.deepcopy(base)
        if any([put(other[part], key, value) for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor")]):
            yield name, other
    for name, keys in MODELS.items():
        other = copy.deepcopy(base)
        other["model"].update(keys)
        if other["model"] != base["model"]:
            yield name, other
    for key in ("lstrip", "rstrip", "single_word", "normalized", "special"):
        other = copy.deepcopy(base)
        for token in other["added_tokens"]:
            token[key] = not token[key]
        yield f"added tokens: {key} turned", other
    steps = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")] + [{"type": "Strip", "strip_left": True, "strip_right": False}]
    for part, key, steps in (("normalizer", "normalizers", steps), ("pre_tokenizer", "pretokenizers", PRE_TOKENIZERS)):
        for step in steps:
            other = copy.deepcopy(base)
            other[part] = {"type": "Sequence", key: [step] + ([base[part]] if base[part] else [])}
            yield f"{part} {json.dumps(step)} first", other


def fixtures():
    return pathlib.Path(os.environ.get("GRAFT_SHARED", "../shared")) / "fixtures/tokenizer"


def ask(bench, command, folder, rows, *flags):
    done = subprocess.run([bench.binary, command, folder, "--file", "-", "--quiet", *flags], input="".join(json.dumps(r, ensure_ascii=i % 2 == 0) + "\n" for i, r in enumerate(rows)),
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-700:])
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]  # not splitlines: U+2028 stands in texts as it is
    if len(answers) != len(rows):
        raise RuntimeError(f"{len(answers)} answers to {len(rows)} rows")
    return answers


def in_bytes(text, offsets):
    ends = [0]
    for c in text:
        ends.append(ends[-1] + len(c.encode()))
    return [[ends[a], ends[b]] for a, b in offsets]


def text_case(bench, case, kind, description, seed, long=False):
    folder = bench.folder / f"text{seed}"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(description))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    r = random.Random(seed)
    given = list(long_texts(r)) if long else texts(r, tokenizer, 400 if case.endswith("as is") else 250)

    def same(what, ours, theirs, of):
        bench.check(f"{case} {str(of)[:80]!r}", f"{what} differ", ours != theirs, 0.5)

    for special in (True, False):
        for text, ours in zip(given, ask(bench, "tokenize", folder, [{"text": t} for t in given], *([] if special else ["--no-special"]))):
            theirs = tokenizer.encode(text, add_special_tokens=special)
            same("token ids", ours["ids"], theirs.ids, text)
            same("byte offsets", ours["byte_offsets"], in_bytes(text, theirs.offsets), text)
            same("special masks", list(map(int, ours["special_mask"])), theirs.special_tokens_mask, text)
    size = tokenizer.get_vocab_size()
    short = sorted(i for token, i in tokenizer.get_vocab().items() if len(token) <= 2 or token.startswith("<0x"))  # halves of characters
    if long:
        rows = [[r.choice(short) for _ in range(100000)], [r.randrange(size) for _ in range(100000)]]
    else:
        pairs = [(given[i], given[-i - 1]) for i in range(60)]
        for (a, b), ours in zip(pairs, ask(bench, "tokenize", folder, [{"a": a, "b": b} for a, b in pairs])):
            theirs = tokenizer.encode(a, b)
            same("ids of pairs", (ours["ids"], ours.get("type_ids", theirs.type_ids)), (theirs.ids, theirs.type_ids), (a, b))
        rows = [[r.randrange(size) for _ in range(r.choice([0, 1, 2, 3, 8, 30]))] for _ in range(200)] + [[r.choice(short) for _ in range(r.choice([1, 2, 3, 8, 30]))] for _ in range(400)]
    for skip in (False, True):
        if skip and "normalized turned" in case:
            continue
        flags = ["--skip-special"] if skip else []
        for ids, ours in zip(rows, ask(bench, "detokenize", folder, [{"ids": i} for i in rows], *flags)):
            same("decoded texts", ours["text"], tokenizer.decode(ids, skip_special_tokens=skip), ids)
        for ids, ours in zip(rows, [] if long else ask(bench, "detokenize", folder, [{"ids": i} for i in rows], "--stream", *flags)):
            stream = DecodeStream(skip_special_tokens=skip)
            try:
                theirs = [stream.step(tokenizer, i) for i in ids]
            except Exception:  # it gives up on some broken sequences
                continue
            same("streamed texts", ours["chunks"], theirs, ids)


def text_cases(bench, seeds):
    out = []
    for kind in KINDS:
        descriptions = list(changed(kind))
        for name, description in descriptions:
            out.append((f"{kind} {name}", lambda k=kind, n=name, d=description, s=next(seeds): text_case(bench, f"{k} {n}", k, d, s)))
        out.append((f"{kind} long", lambda k=kind, d=descriptions[0][1], s=next(seeds): text_case(bench, f"{k} long", k, d, s, True)))
    return out
