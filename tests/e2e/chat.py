"""`nibble chat` on a terminal: what a person types, and what they see."""

import os
import pty
import select
import signal
import sys
import termios
import time

import marked_demo
from harness import BINARY, DEMO, START_SECONDS, Case, Daemon, environment, main, wait_until

PROMPT = ">>> "
ANSWER = "Six plus seven is thirteen."
UP = "\x1b[A"
LEFT = "\x1b[D"
CTRL_C = "\x03"
CTRL_D = "\x04"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


class Terminal:
    """`nibble chat` with a terminal of its own."""

    def __init__(self, daemon, model, *flags):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BINARY, [BINARY, "chat", model, "--address", daemon.address, *flags],
                      environment({"TERM": "xterm", "HOME": daemon.directory}))
        self.seen = ""

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def read_until(self, text, seconds=START_SECONDS):
        """What was printed up to and with `text`; the rest is kept."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"waited {seconds} s for {text!r} after {self.seen!r}")
            try:
                part = os.read(self.fd, 4096)
            except OSError:  # The other end is closed.
                part = b""
            if not part:
                raise AssertionError(f"ended without {text!r}: {self.seen!r}")
            self.seen += part.decode(errors="replace").replace("\r", "")
        before, self.seen = self.seen.split(text, 1)
        return before + text

    def read_more_than(self, characters, seconds=START_SECONDS):
        """Forgets what was printed, once it is more than that."""
        deadline = time.monotonic() + seconds
        while len(self.seen) <= characters:
            if not select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"waited {seconds} s for more than {self.seen!r}")
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = ""

    def read_prompt(self):
        """What was printed up to the prompt, once a line is read key by key: keys that come before
        are the terminal's, not the editor's."""
        printed = self.read_until(PROMPT)
        wait_until(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, "the line editor")
        return printed

    def wait(self, seconds=START_SECONDS):
        """Reads to the end; returns the exit code."""
        deadline = time.monotonic() + seconds
        while select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                if os.read(self.fd, 4096):
                    continue
            except OSError:  # The other end is closed.
                pass
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        raise AssertionError(f"waited {seconds} s for the end of the chat")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class ChatTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--vram-budget", "512MiB", "--staging", "8MiB")

    @classmethod
    def tearDownClass(cls):
        try:
            assert cls.daemon.stop() == 0, cls.daemon.log()
        finally:
            cls.daemon.close()

    def load(self, name, source):
        self.assert_done(self.daemon.load(name, source, "--kv-cache-dtype", "F32"))
        self.addCleanup(self.daemon.run, "unload", name)

    def cancelled(self):
        lines = self.daemon.log().splitlines()
        return len([line for line in lines if "Generate" in line and "CANCELLED" in line])

    def test_a_line_is_edited_answered_and_remembered(self):
        self.load("demo", DEMO)
        with Terminal(self.daemon, "demo", "--temperature", "0") as chat:
            chat.read_prompt()
            # A letter too many is taken back, and one that is missing is put in.
            chat.type("What is sx plus sevenn\x7f?" + LEFT * len("x plus seven?") + "i\n")
            chat.read_until(ANSWER)
            chat.read_prompt()
            chat.type(UP)
            chat.read_until("What is six plus seven?")
            chat.type("\n")
            chat.read_until("\n")
            self.assertGreater(len(chat.read_prompt().strip()), len(PROMPT))
            chat.type("\n")
            chat.read_prompt()
            chat.type(CTRL_D)
            self.assertEqual(chat.wait(), 0)

    def test_ctrl_c_ends_the_answer_and_not_the_chat(self):
        # Random weights do not find an end: an answer goes on to the end of the context.
        source = self.synth("llama-tiny")
        self.write("llama-tiny/chat_template.jinja", "{{ messages[-1].content }}")
        self.load("tiny", source)
        with Terminal(self.daemon, "tiny", "--temperature", "0") as chat:
            chat.read_prompt()
            for _ in range(2):
                chat.type("Tell me a story\n")
                chat.read_more_than(300)  # What was typed is shown; then it answers.
                chat.type(CTRL_C)
                chat.read_prompt()
            chat.type(CTRL_C)  # At the prompt it does nothing.
            chat.type(CTRL_D)
            self.assertEqual(chat.wait(), 0)
        # The daemon may hear of the second a moment after its client has left.
        wait_until(lambda: self.cancelled() == 2, "two answers are cancelled")

    def test_the_end_of_the_input_ends_the_chat(self):
        self.load("demo", DEMO)
        with Terminal(self.daemon, "demo") as chat:
            chat.read_prompt()
            chat.type(CTRL_D)
            self.assertEqual(chat.wait(), 0)

    def test_a_model_that_is_gone_ends_the_chat(self):
        with Terminal(self.daemon, "nobody") as chat:
            chat.read_prompt()
            chat.type("Hello\n")
            chat.read_until("nobody")
            self.assertEqual(chat.wait(), 1)

    def test_reasoning_is_dimmed_on_a_terminal_and_nowhere_else(self):
        self.load("thinker", marked_demo.write("reasoning", self.path("thinker")))
        with Terminal(self.daemon, "thinker", "--temperature", "0") as chat:
            chat.read_prompt()
            chat.type(marked_demo.QUESTION + "\n")
            shown = chat.read_prompt()
            chat.type(CTRL_D)
            self.assertEqual(chat.wait(), 0)
        self.assertEqual(shown.replace(PLAIN + DIM, "").rsplit(marked_demo.QUESTION + "\n", 1)[1],
                         f"{DIM}plus seven is{PLAIN}\n\n.\n{PROMPT}")
        piped = self.daemon.run("generate", "thinker", "--chat", marked_demo.QUESTION,
                                "--temperature", "0")
        self.assertEqual(self.assert_done(piped).out, ".\n")
        pieces = self.daemon.run("generate", "thinker", "--chat", marked_demo.QUESTION,
                                 "--temperature", "0", "--json")
        self.assertIn('"reasoning"', pieces.out)


if __name__ == "__main__":
    sys.exit(main())
