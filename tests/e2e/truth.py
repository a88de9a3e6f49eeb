"""The figures are true: what the ledger counts is what the process holds, and every snapshot adds up,
all through a load."""

import re
import sys

from harness import MIB, Case, Daemon, main, numbers, plan, wait_until

STAGING_BYTES = 8 * MIB
# One reader, so that tensors are written in the order of the plan.
FLAGS = ["--staging", STAGING_BYTES, "--reader-threads", "1"]
RUNTIME_BYTES = 64 * MIB
# The acceptance: 5 % and 32 MiB.
SHARE = 0.05
SLACK_BYTES = 32 * MIB


class Written:
    """How many bytes of the slab a load has written when it has read so many of the source."""

    def __init__(self, planned):
        self.tensors = [(tensor["source_bytes"], tensor["device_bytes"])
                        for tensor in planned["tensors"]]
        assert sum(source for source, _ in self.tensors) == planned["source_bytes"]

    def at(self, read_bytes):
        written = 0
        for source, device in self.tensors:
            if read_bytes < source:
                return written + device * read_bytes // source
            read_bytes -= source
            written += device
        return written


def held_bytes(daemon):
    """What the system says the process holds (VmRSS)."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmRSS")))


def parse_metrics(text):
    """Values by name and labels."""
    values = {}
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and not line.startswith("#"):
            labels = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', found.group(2) or "")))
            values[found.group(1), labels] = float(found.group(3))
    return values


def by_purpose(metrics, name):
    """The series of a metric whose only other label is the device."""
    return {dict(labels)["purpose"]: value for (found, labels), value in metrics.items()
            if found == name and "model" not in dict(labels)}


class TruthTest(Case):
    def read_bytes(self, daemon, planned):
        """How much of the source is read; all of it once the model is READY."""
        model = daemon.models().get("m", {})
        if model.get("state") == "READY":
            return planned["source_bytes"]
        return model.get("progress", {}).get("read_bytes", 0)

    def assert_close(self, held, least, most, when):
        self.assertGreaterEqual(held, least * (1 - SHARE) - SLACK_BYTES, when)
        self.assertLessEqual(held, most * (1 + SHARE) + SLACK_BYTES, when)

    def follow(self, daemon, command, planned, idle):
        """Compares while the load runs; returns how often that was in the midst of it."""
        written = Written(planned)
        count = 0
        while command.poll() is None:
            before = self.read_bytes(daemon, planned)
            held = held_bytes(daemon) - idle
            after = self.read_bytes(daemon, planned)
            if after == 0:  # Not begun, or failed: the end will tell.
                continue
            # What is staged is written too, a slot at least and all of it at most; and it may be
            # given back already when the model is READY.
            self.assert_close(held, written.at(before), written.at(after) + STAGING_BYTES,
                              f"{before} to {after} bytes read")
            count += 0 < before < planned["source_bytes"]
        return count

    def test_what_a_load_has_written_is_what_the_process_holds(self):
        source = self.synth("llama-1b", "--sparse")
        # Without KV cache and workspace: they are allocated, and not written before they are used.
        planned = plan(source, "--weights-only", "--staging", STAGING_BYTES)
        self.assertGreater(planned["resident_bytes"], 10 * SLACK_BYTES, "a mistake would show")
        with Daemon(*FLAGS, "--vram-budget", planned["peak_bytes"]) as daemon:
            daemon.models()
            idle = held_bytes(daemon)
            count = 0
            for _ in range(10):  # A fast machine may be done before anybody looks.
                command = daemon.start("load", "m", source, "--weights-only")
                count += self.follow(daemon, command, planned, idle)
                self.assertEqual(command.wait(), 0, command.communicate())
                command.communicate()
                memory = daemon.memory()
                self.assertEqual(memory["allocated_bytes"], planned["resident_bytes"])
                self.assert_close(held_bytes(daemon) - idle, memory["allocated_bytes"],
                                  memory["allocated_bytes"], "when loaded")
                # And what the daemon says of itself is what the system says.
                self.assertAlmostEqual(memory["process_bytes"], held_bytes(daemon), delta=4 * MIB)
                self.assert_done(daemon.run("unload", "m"))
                self.assert_close(held_bytes(daemon) - idle, 0, 0, "when unloaded")
                if count >= 3:
                    break
            self.assertGreaterEqual(count, 3, "the load was seen at work")

    # Sums within a snapshot.

    def check_memory(self, answer):
        (device,) = answer["devices"]
        purposes = {entry["purpose"]: entry for entry in device["purposes"]}
        for kind in ("reserved_bytes", "allocated_bytes"):
            self.assertEqual(device[kind], sum(entry[kind] for entry in purposes.values()), answer)
        for entry in purposes.values():
            self.assertLessEqual(entry["allocated_bytes"], entry["reserved_bytes"], answer)
        for purpose in ("weights", "kv_cache", "workspace", "staging"):
            of_models = sum(model[purpose + "_bytes"] for model in device["models"])
            self.assertEqual(purposes[purpose]["reserved_bytes"], of_models, answer)
        self.assertEqual(purposes["runtime"]["reserved_bytes"], RUNTIME_BYTES, answer)
        self.assertEqual(device["allocated_bytes"],
                         sum(model["allocated_bytes"] for model in device["models"]), answer)
        self.assertEqual(device["available_bytes"],
                         device["budget_bytes"] - device["reserved_bytes"], answer)
        self.assertLessEqual(device["reserved_bytes"], device["peak_reserved_bytes"], answer)
        self.assertLessEqual(device["allocated_bytes"], device["peak_allocated_bytes"], answer)

    def check_metrics(self, text):
        metrics = parse_metrics(text)
        reserved = by_purpose(metrics, "nibble_vram_reserved_bytes")
        allocated = by_purpose(metrics, "nibble_vram_allocated_bytes")
        for purpose, value in reserved.items():
            self.assertLessEqual(allocated[purpose], value, text)
            of_models = sum(each for (name, labels), each in metrics.items()
                            if name == "nibble_model_vram_bytes"
                            and dict(labels)["purpose"] == purpose)
            runtime = RUNTIME_BYTES if purpose == "runtime" else 0
            self.assertEqual(value, of_models + runtime, text)
        self.assertLessEqual(sum(reserved.values()),
                             metrics["nibble_vram_budget_bytes", (("device", "host"),)], text)
        return metrics

    def check_equal(self, answer, metrics):
        """Of one sequence, so equal but for what is sampled. Returns whether it is."""
        label = (("device", "host"),)
        if metrics["nibble_ledger_sequence", label] != answer["sequence"]:
            return False
        (device,) = answer["devices"]
        self.assertEqual(metrics["nibble_vram_budget_bytes", label], device["budget_bytes"])
        self.assertEqual(metrics["nibble_vram_peak_bytes", label], device["peak_allocated_bytes"])
        for kind in ("reserved", "allocated"):
            self.assertEqual(by_purpose(metrics, f"nibble_vram_{kind}_bytes"),
                             {entry["purpose"]: entry[kind + "_bytes"]
                              for entry in device["purposes"]})
        for model in device["models"]:
            for purpose in ("weights", "kv_cache", "workspace", "staging"):
                labels = (("device", "host"), ("model", model["model"]), ("purpose", purpose))
                self.assertEqual(metrics["nibble_model_vram_bytes", labels],
                                 model[purpose + "_bytes"])
        return True

    def look(self, daemon):
        metrics = self.check_metrics(daemon.get("/metrics"))
        answer = numbers(daemon.run("memory", "--json").json())
        self.check_memory(answer)
        return self.check_equal(answer, metrics)

    def test_every_snapshot_adds_up_all_through_two_loads(self):
        source = self.synth("llama-1b", "--sparse")
        budget = 2 * plan(source, "--staging", STAGING_BYTES)["peak_bytes"] + RUNTIME_BYTES
        with Daemon(*FLAGS, "--vram-budget", budget, "--runtime-reserve", RUNTIME_BYTES) as daemon:
            self.assertTrue(self.look(daemon), "idle")
            commands = [daemon.start("load", name, source) for name in ("a", "b")]
            count = 0
            while any(command.poll() is None for command in commands):
                self.look(daemon)
                count += 1
            for command in commands:
                _, err = command.communicate()
                self.assertEqual(command.returncode, 0, err)
            self.assertGreaterEqual(count, 2)
            wait_until(lambda: self.look(daemon), "two looks at an idle daemon to be of one state")
            for name in ("a", "b"):
                self.assert_done(daemon.run("unload", name))
            self.assertTrue(self.look(daemon), "empty")


if __name__ == "__main__":
    sys.exit(main())
