"""Runs the real binary: a daemon on free ports in a directory of its own, and commands against it.

Python 3's standard library only. The binary is named by NIBBLE_BINARY, or is the one of the preset
`host`, or of `release`.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(REPOSITORY, "tests", "data")
DEMO = os.path.join(DATA, "demo-model")
START_SECONDS = 30  # On a loaded machine; a daemon needs well under one.
MIB = 1 << 20


def find_binary():
    named = os.environ.get("NIBBLE_BINARY")
    for path in [named] if named else [
        os.path.join(REPOSITORY, "build", preset, "bin", "nibble") for preset in ("host", "release")
    ]:
        if os.access(path, os.X_OK):
            return path
    sys.exit("no nibble binary: build one, or name it in NIBBLE_BINARY")


BINARY = find_binary()


def environment(extra=None):
    """The environment without settings of nibble, so that the caller's shell decides nothing."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NIBBLE_")}
    plain.update(extra or {})
    return plain


class Answer:
    """What a command printed and returned."""

    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def nibble(*arguments, env=None, timeout=120, cwd=None):
    return Answer(
        subprocess.run(
            [BINARY, *map(str, arguments)], env=environment(env), timeout=timeout, cwd=cwd,
            capture_output=True, text=True, check=False))


def plan(source, *flags):
    """The plan without a daemon, its sizes as numbers."""
    answer = nibble("plan", source, "--json", *flags)
    if answer.code != 0:
        raise AssertionError(f"plan of {source}: {answer}")
    return numbers(answer.json())


def numbers(message):
    """Protobuf's JSON with its 64-bit numbers as numbers."""
    if isinstance(message, dict):
        return {key: numbers(value) for key, value in message.items()}
    if isinstance(message, list):
        return [numbers(value) for value in message]
    if isinstance(message, str) and re.fullmatch(r"-?\d+", message):
        return int(message)
    return message


def wait_until(holds, what, seconds=START_SECONDS):
    """Polls until `holds()` is true; there is nobody to tell us."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for: {what}")
        time.sleep(0.01)


class Daemon:
    """A daemon on the host device; stopped with SIGTERM when the `with` block ends."""

    def __init__(self, *flags, roots=("/",), env=None, device=True):
        self.directory = tempfile.mkdtemp(prefix="nibble-e2e-")
        self.log_path = os.path.join(self.directory, "log")
        self.port_file = os.path.join(self.directory, "ports")
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                   "--port-file", self.port_file, "--log-level", "debug"]
        command += ["--device", "host"] if device else []
        for root in roots:
            command += ["--model-root", root]
        self.log_file = open(self.log_path, "w", encoding="utf-8")
        self.process = subprocess.Popen(
            command + list(map(str, flags)), env=environment(env), stdout=self.log_file,
            stderr=self.log_file)
        try:
            wait_until(self._is_open, "the daemon to open its ports")
        except AssertionError:
            self.close()
            raise
        with open(self.port_file, encoding="utf-8") as file:
            ports = dict(line.split("=") for line in file.read().split())
        self.address = f"127.0.0.1:{ports['grpc']}"
        self.http = f"http://127.0.0.1:{ports['http']}"

    def _is_open(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
        return os.path.exists(self.port_file) and os.path.getsize(self.port_file) > 0

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    # Commands.

    def run(self, command, *arguments, **options):
        return nibble(command, *arguments, "--address", self.address, **options)

    def start(self, command, *arguments):
        """A command that goes on in the background."""
        return subprocess.Popen(
            [BINARY, command, *map(str, arguments), "--address", self.address], env=environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def load(self, name, source, *flags):
        return self.run("load", name, source, "--json", *flags)

    def memory(self):
        """The daemon's device, its sizes as numbers."""
        return numbers(self.run("memory", "--json").json())["devices"][0]

    def models(self):
        listed = numbers(self.run("ps", "--json").json())["models"]
        return {model["model"]: model for model in listed}

    def state(self, name):
        return self.models().get(name, {}).get("state")

    def get(self, path):
        with urllib.request.urlopen(self.http + path, timeout=10) as response:
            return response.read().decode()

    def metric(self, name, labels=""):
        """The value of one series; `labels` as in the exposition, without braces."""
        series = f"{name}{{{labels}}}" if labels else name
        for line in self.get("/metrics").splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no series {series} in /metrics")

    # The end.

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log_file.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is not None:
                print(self.log(), file=sys.stderr)
            else:
                code = self.stop()
                if code != 0:
                    raise AssertionError(f"the daemon ended with {code}:\n{self.log()}")
        finally:
            self.close()


class Case(unittest.TestCase):
    """A test case with a scratch directory and a few words of the product."""

    maxDiff = None

    def setUp(self):
        self.scratch = tempfile.mkdtemp(prefix="nibble-e2e-")
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.scratch, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def synth(self, shape, *flags):
        directory = self.path(shape + "".join(flags))
        if not os.path.exists(directory):
            self.assert_done(nibble("synth", shape, directory, *flags))
        return directory

    def assert_done(self, answer):
        self.assertEqual(answer.code, 0, answer)
        return answer

    def assert_refused(self, answer, *words):
        self.assertEqual(answer.code, 1, answer)
        for word in words:
            self.assertIn(word, answer.err)
        return answer

    def assert_ledger_empty(self, daemon, runtime_bytes=0):
        """Nothing reserved but for runtime, nothing allocated, no model: as a host daemon starts."""
        memory = daemon.memory()
        self.assertEqual(memory["reserved_bytes"], runtime_bytes, memory)
        self.assertEqual(memory["allocated_bytes"], 0, memory)
        self.assertEqual(memory["available_bytes"], memory["budget_bytes"] - runtime_bytes, memory)
        self.assertEqual(memory["models"], [], memory)

    def wait_for_state(self, daemon, name, *states):
        wait_until(lambda: daemon.state(name) in states, f"{name} to be {states}")

    def wait_for_empty_ledger(self, daemon):
        wait_until(lambda: daemon.memory()["allocated_bytes"] == 0, "the memory to come back")
        self.assert_ledger_empty(daemon)


def main():
    unittest.main(verbosity=2)
