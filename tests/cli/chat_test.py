"""graft chat on a terminal and off it: commands, adapters, Ctrl-C, Ctrl-D; log-probabilities of generate."""

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import time
import unittest

from graft_cli import BINARY, fixtures, graft

FIXTURES = fixtures()
MODEL = FIXTURES and FIXTURES / "models/pystd-5m"
ADAPTER = FIXTURES and FIXTURES / "golden/pystd-5m/start_adapter"
START = 'def read_lines(path):\n    """Read'.replace("\n", " ")


class Terminal:
    """The binary on a pseudo-terminal of its own, so that Ctrl-C is a signal to it as on a real one."""

    def __init__(self, *arguments, locale="C.UTF-8"):
        try:
            self.pid, self.fd = pty.fork()
        except OSError as error:  # a container without /dev/pts
            raise unittest.SkipTest(f"no terminal to be had: {error}")
        if self.pid == 0:
            os.environ.update(TERM="xterm", LC_ALL=locale)
            os.execv(BINARY, [BINARY, *map(str, arguments)])
        self.text, self.seen = "", 0

    def read(self, seconds):
        """Everything until nothing has come for so long."""
        new = ""
        while select.select([self.fd], [], [], seconds)[0]:
            try:
                block = os.read(self.fd, 65536)
            except OSError:
                break
            if not block:
                break
            new += block.decode(errors="replace")
        self.text += new
        return new

    def expect(self, word, seconds=30):
        """Waits for a word after the last one found; the text up to it."""
        end = time.monotonic() + seconds
        while self.text.find(word, self.seen) < 0:
            if time.monotonic() > end:
                raise AssertionError(f"'{word}' did not come; the screen:\n{self.text}")
            self.read(0.05)
        begin, self.seen = self.seen, self.text.find(word, self.seen) + len(word)
        return self.text[begin : self.seen]

    def send(self, text):
        os.write(self.fd, text.encode())

    def line(self, text):
        self.send(text + "\r")

    def wait(self):
        self.read(0.5)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@unittest.skipUnless(FIXTURES, "no fixtures")
class Chat(unittest.TestCase):
    def test_a_session(self):
        terminal = Terminal("chat", MODEL, "--raw", "--greedy", "--max-tokens", 400, "--ignore-eos")
        terminal.expect("> ")
        terminal.line("/help")
        help_text = terminal.expect("Ctrl-C")
        for word in ("/reset", "/adapter", "/system", "/quit"):
            self.assertIn(word, help_text)
        terminal.line("/adapter")
        terminal.expect("no adapter is loaded")
        terminal.line(f"/adapter load sql {ADAPTER}")
        terminal.expect("active: sql")
        terminal.line("/adapter load sql /nowhere")
        terminal.expect("error: ")
        terminal.line("/adapter use other")
        terminal.expect("other")
        terminal.line("/adapter off")
        terminal.expect("base model")
        terminal.line("/adapter use sql")
        terminal.expect("active: sql")
        terminal.line("/adapter remove sql")
        terminal.expect("base model")
        terminal.line("/nonsense")
        terminal.expect("no command")
        terminal.line(START)
        terminal.read(0.05)
        terminal.send("\x03")  # stops the answer, not the program
        terminal.expect("tokens/s")
        terminal.line("/reset")
        terminal.read(0.2)
        terminal.send("half a line")
        terminal.read(0.2)
        terminal.send("\x03")  # drops what was typed
        terminal.read(0.2)
        terminal.line("/adapter")
        terminal.expect("no adapter is loaded")
        terminal.send("\x04")
        self.assertEqual(terminal.wait(), 0)

    def test_what_is_typed(self):
        for locale in ("C.UTF-8", "C"):
            terminal = Terminal("chat", MODEL, "--raw", "--greedy", "--max-tokens", 4, "--ignore-eos", locale=locale)
            terminal.expect("> ")
            terminal.line("/adapter use grün🦜漢字")  # what is typed is seen, and arrives
            terminal.expect("grün🦜漢字")
            terminal.expect("no adapter is called 'grün🦜漢字'")
            terminal.line("   ")  # no message
            terminal.read(0.3)
            self.assertNotIn("tokens/s", terminal.text)
            terminal.line("one \\")
            terminal.read(0.2)
            terminal.line("two")  # a message of two lines
            terminal.expect("4 tokens")
            terminal.line("x" * 3000)
            terminal.expect("error: the sequence has")
            terminal.expect("> ")
            os.write(terminal.fd, b"/\xff\xfe\x80\r")  # no character at all
            terminal.expect("is no command")
            terminal.send("\x04")
            self.assertEqual(terminal.wait(), 0)

    def test_terminated_at_the_prompt(self):
        terminal = Terminal("chat", MODEL, "--raw", "--greedy")
        terminal.expect("> ")
        terminal.send("half a line")
        terminal.read(0.2)
        os.kill(terminal.pid, signal.SIGTERM)
        self.assertEqual(terminal.wait(), 130)

    def test_not_a_terminal(self):
        def run(text, *extra):
            done = subprocess.run([BINARY, "chat", str(MODEL), "--raw", "--greedy", "--max-tokens", "8", "--quiet", *extra], input=text, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done

        one = run(START + "\n")
        self.assertEqual(one.stderr, "")
        self.assertTrue(one.stdout.strip())
        # The dialogue starts anew after /reset; what two lines say is remembered.
        self.assertEqual(run(f"{START}\n/reset\n{START}\n").stdout, 2 * one.stdout)
        # The base model is back bit for bit after an adapter.
        self.assertEqual(run(f"/adapter load a {ADAPTER}\n/adapter off\n{START}\n").stdout.splitlines()[2:], one.stdout.splitlines())
        self.assertEqual(run("").stdout, "")

    def test_log_probabilities_as_lines(self):
        words = ["generate", MODEL, "--raw", "--greedy", "--prompt", START, "--max-tokens", 4, "--logprobs", 2]
        want = graft(*words, "--json").json()
        shown = graft(*words, "--quiet").out.removeprefix(want["text"] + "\n").splitlines()
        self.assertEqual([(line.split()[0], line.split()[1]) for line in shown], [(f"{t['logprob']:.4f}", str(t["id"])) for t in want["logprobs"]])
        for line, token in zip(shown, want["logprobs"]):
            self.assertRegex(line, rf'    of ".*" {token["top"][0][1]:.4f}, ".*" {token["top"][1][1]:.4f}$')


if __name__ == "__main__":
    if not FIXTURES:
        sys.exit(77)
    unittest.main()
