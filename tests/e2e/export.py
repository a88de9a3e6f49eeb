"""`nibble export`: a directory with a checkpoint in it, or nothing."""

import json
import os
import resource
import signal
import struct

import harness
from harness import Case, Daemon, DEMO, wait_until


def header(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))


class Export(Case):

    def setUp(self):
        super().setUp()
        self.root = self.path("exports")
        os.mkdir(self.root)

    def target(self, name):
        return os.path.join(self.root, name)

    def test_writes_a_checkpoint_whole(self):
        with Daemon("--export-root", self.root) as daemon:
            self.assert_done(daemon.load("demo", DEMO))
            answer = self.assert_done(daemon.run("export", "demo", self.target("out"), "--json"))
            summary = harness.numbers(answer.json())
            self.assertEqual(os.listdir(self.root), ["out"])
            files = sorted(os.listdir(self.target("out")))
            self.assertEqual(sorted(summary["files"]), files)
            self.assertEqual(summary["bytes"], sum(
                os.path.getsize(os.path.join(self.target("out"), name)) for name in files))
            self.assertEqual(files, [
                "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
                "tokenizer.json", "tokenizer_config.json"])
            # What is exported is what was loaded.
            report = self.assert_done(daemon.run("ps", "--report", "demo", "--json")).json()["report"]
            written = header(os.path.join(self.target("out"), "model.safetensors"))
            for tensor in report["tensors"]:
                in_4_bits = tensor["format"] == "NF4"
                self.assertEqual(written[tensor["name"]]["dtype"], "U8" if in_4_bits else "BF16")
                self.assertEqual(in_4_bits, tensor["name"] + ".absmax" in written)
            # Again, into the same place: it is in use.
            self.assert_refused(daemon.run("export", "demo", self.target("out")), "ALREADY_EXISTS")
            # A relative path is the client's.
            os.mkdir(self.target("team"))
            self.assert_done(daemon.run("export", "demo", "here", cwd=self.target("team")))
            self.assertIn("config.json", os.listdir(self.target("team/here")))

    def test_is_off_without_a_root_and_confined_to_it(self):
        with Daemon() as daemon:
            self.assert_done(daemon.load("demo", DEMO))
            self.assert_refused(daemon.run("export", "demo", self.target("out")),
                                "FAILED_PRECONDITION", "--export-root")
        with Daemon("--export-root", self.root) as daemon:
            self.assert_refused(daemon.run("export", "demo", self.target("out")), "NOT_FOUND")
            self.assert_done(daemon.load("demo", DEMO))
            for path in (self.path("outside"), self.target("../outside"), self.root):
                self.assert_refused(daemon.run("export", "demo", path), "INVALID_ARGUMENT")
            self.assertEqual(os.listdir(self.root), [])

    def test_refuses_a_model_that_is_not_in_4_bits(self):
        with Daemon("--export-root", self.root) as daemon:
            self.assert_done(daemon.load("demo", DEMO, "--format", "as-stored"))
            self.assert_refused(daemon.run("export", "demo", self.target("out")),
                                "FAILED_PRECONDITION", "nothing of the model is in 4 bits")
            self.assertEqual(os.listdir(self.root), [])

    def test_a_limit_of_file_sizes_is_a_full_disk(self):
        source = self.synth("llama-tiny")
        with Daemon("--export-root", self.root, "--staging", "8MiB") as daemon:
            self.assert_done(daemon.load("m", source))
            pid = daemon.process.pid
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            self.assert_refused(daemon.run("export", "m", self.target("out")),
                                "RESOURCE_EXHAUSTED", "no space left")
            self.assertEqual(os.listdir(self.root), [])
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
            self.assert_done(daemon.run("export", "m", self.target("out")))

    def test_leaves_nothing_when_interrupted_or_unloaded(self):
        source = self.synth("llama-1b", "--sparse")
        with Daemon("--export-root", self.root, "--vram-budget", "1GiB") as daemon:
            self.assert_done(daemon.load("big", source, "--weights-only"))
            export = daemon.start("export", "big", self.target("out"))
            wait_until(lambda: os.listdir(self.root), "the export to begin")
            export.send_signal(signal.SIGINT)
            export.communicate(timeout=60)
            self.assertEqual(export.returncode, 1)
            wait_until(lambda: not os.listdir(self.root), "the export to be removed")
            self.assertEqual(daemon.state("big"), "READY")

            export = daemon.start("export", "big", self.target("out"))
            wait_until(lambda: os.listdir(self.root), "the export to begin")
            self.assert_done(daemon.run("unload", "big", "--drain-timeout", "0s"))
            _, error = export.communicate(timeout=60)
            self.assertEqual(export.returncode, 1, error)
            self.assertIn("UNAVAILABLE", error)
            self.assertEqual(os.listdir(self.root), [])
            self.wait_for_empty_ledger(daemon)


if __name__ == "__main__":
    harness.main()
