#!/usr/bin/env python3
"""Writes docs/kernels: a reference page for each domain of the kernel suite, from the registry and the headers' comments.

    scripts/kernel_docs.py           # write (./dev docs)
    scripts/kernel_docs.py --check   # exit 1 where a page is stale or missing
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/kernels"
NOTE = "<!-- Written by ./dev docs from the registry and graft/kernels/*.h; edit those. -->\n"


def declarations():
    """{function: [(header, declaration with its comment)]} of graft/kernels/*.h."""
    found = {}
    for path in sorted((ROOT / "graft/kernels").glob("*.h")):
        if path.name.endswith(("_inl.h", "_table.h", "test_support.h", "_test_util.h", "_test_data.h")):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        for i, line in enumerate(lines):
            match = re.match(r"(?:inline |\[\[nodiscard\]\] )*[\w:<>]+ (\w+)\(", line)
            if not match or line.startswith(("return", "  ")):
                continue
            begin = i
            while begin > 0 and re.match(r"//|template", lines[begin - 1]):
                begin -= 1
            end = i
            while end + 1 < len(lines) and not re.search(r"[;{]\s*(//.*)?$", lines[end]):
                end += 1
            while end + 1 < len(lines) and re.match(r"\s+//", lines[end + 1]):  # a comment that goes on
                end += 1
            found.setdefault(match[1], []).append((path.name, "\n".join(lines[begin:end + 1])))
    return found


def general(header):
    """What a header says of all its functions: the comment block after the namespace opens, where a blank line follows it."""
    text = (ROOT / "graft/kernels" / header).read_text(encoding="utf-8")
    match = re.search(r"^namespace graft \{\n\n((?://.*\n)+)\n", text, re.MULTILINE)
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in match[1].splitlines()) if match else ""


def words(domain):
    return domain.replace("_", " ").capitalize()


def tensor_text(tensors):
    return ", ".join(f"`{t['name']}` {t['dtype'].lower()} {json.dumps(t['shape'])}" for t in tensors) or "none"


def page(domain, kernels, functions):
    text = f"{NOTE}# {words(domain)}\n\n"
    headers = []
    for k in kernels:
        for header, _ in functions.get(k["name"], []):
            if header not in headers:
                headers.append(header)
    for header in headers:
        if about := general(header):
            text += f"`graft/kernels/{header}`:\n\n" + "".join(f"> {line}\n" if line else ">\n" for line in about.splitlines()) + "\n"
    text += "| kernel | what it computes | bytes | operations |\n| --- | --- | --- | --- |\n"
    for k in kernels:
        contract = k["contract"].replace("|", "\\|")
        text += f"| [{k['name']}](#{k['name']}) | {contract} | {k['bytes']:.4g} | {k['flops']:.4g} |\n"
    text += "\nBytes that must move and operations, for an element of the main input of an example of 4,096 elements.\n"
    for k in kernels:
        text += f"\n## {k['name']}\n\n`{k['contract']}`\n\n"
        for header, declaration in functions.get(k["name"], []):
            text += f"```cpp\n// graft/kernels/{header}\n{declaration}\n```\n\n"
        text += f"- Inputs of the example: {tensor_text(k['inputs'])}\n- Outputs: {tensor_text(k['outputs'])}\n"
        if k["parameters"]:
            text += "- Parameters of the example: " + ", ".join(f"`{n}` = {v}" for n, v in k["parameters"].items()) + "\n"
        if k["in_place"]:
            pairs = [pair.split("=") for pair in k["in_place"].split()]
            text += "- May be computed in place: " + ", ".join(f"`{out}` in `{at}`" for out, at in pairs) + "\n"
        if k["rule"]:
            text += f"- Chosen by shape (`graft kernel route {k['operation']} SIZE`): {k['rule']}\n"
        if k["outside_contract"]:
            text += f"- Variants may differ in bits: {k['outside_contract']}\n"
        else:
            text += "- The same bits from every variant and any number of threads\n"
    return text


def pages(graft):
    done = subprocess.run([graft, "kernel", "list", "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {graft} kernel list --json failed\n{done.stderr}")
    kernels = json.loads(done.stdout)["kernels"]
    functions, domains = declarations(), {}
    for k in kernels:
        domains.setdefault(k["domain"], []).append(k)
    index = f"{NOTE}# The kernel suite\n\n{len(kernels)} kernels in {len(domains)} domains. `graft kernel list` shows them, `graft kernel bench NAME` times one here, " \
            "[a guide](../add_a_kernel.md) adds one.\n\n| domain | kernels |\n| --- | --- |\n"
    result = {}
    for domain, some in domains.items():
        index += f"| [{words(domain)}]({domain}.md) | {', '.join(k['name'] for k in some)} |\n"
        result[f"{domain}.md"] = page(domain, some, functions)
    result["README.md"] = index
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graft", default=os.environ.get("GRAFT_BINARY", str(ROOT / "build/release/graft")))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    wanted = pages(arguments.graft)
    there = {p.name: p.read_text(encoding="utf-8") for p in OUT.glob("*.md")} if OUT.is_dir() else {}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if arguments.check:
        if stale:
            sys.exit(f"error: docs/kernels is stale: {', '.join(stale)}\nhint: ./dev docs writes it again")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (OUT / name).write_text(wanted[name], encoding="utf-8")
        else:
            (OUT / name).unlink()
    print(f"docs/kernels: {len(wanted)} pages, {len(stale)} changed")


if __name__ == "__main__":
    main()
