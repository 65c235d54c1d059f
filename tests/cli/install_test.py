#!/usr/bin/env python3
"""What `cmake --install` places serves a C++ program: examples/cpp finds it, builds, links and answers as the binary does; every
installed header is whole."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from graft_cli import BINARY, ROOT, graft

MODEL = ROOT / "examples/demo/model"
QUESTION = "How many books are there?"


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


class InstallTest(unittest.TestCase):
    def test_a_program_outside_the_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            prefix, source, build = (pathlib.Path(folder) / name for name in ("prefix", "source", "build"))
            run("cmake", "--install", pathlib.Path(BINARY).resolve().parent, "--prefix", prefix)
            include = prefix / "include"
            headers = sorted(str(h.relative_to(include)) for h in include.rglob("*.h"))
            self.assertIn("graft/kernels/norm.h", headers)
            self.assertEqual([h for h in headers if "test" in h or "_inl" in h], [])

            source.mkdir()
            (source / "headers.cc").write_text("".join(f'#include "{h}"\n' for h in headers))
            (source / "CMakeLists.txt").write_text(
                "cmake_minimum_required(VERSION 3.22)\nproject(outside LANGUAGES CXX)\n"
                f"add_subdirectory({ROOT}/examples/cpp ask)\n"
                "find_package(graft REQUIRED)\nadd_library(headers OBJECT headers.cc)\n"
                "target_link_libraries(headers PRIVATE graft::graft)\n")
            run("cmake", "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
                "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wshadow -Werror")
            run("cmake", "--build", build)
            found = run("grep", "graft_DIR", build / "CMakeCache.txt")
            self.assertIn(str(prefix), found)

            answer = run(build / "ask/ask", MODEL, QUESTION)
            expected = graft("generate", MODEL, "--prompt", QUESTION, "--temperature", "0", "--quiet")
            self.assertEqual(expected.code, 0, expected)
            self.assertEqual(answer, expected.out)
            self.assertGreater(len(answer.strip()), 0)


if __name__ == "__main__":
    if "GRAFT_SANITIZED" in os.environ:
        print("skipped: what is installed is the release build")
        sys.exit(77)
    unittest.main()
