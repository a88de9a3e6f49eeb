"""Load, generation, cancellation, unload and failure, mixed at random from 16 clients over gRPC and
HTTP: no crash, no leak, ledger and process flat, every request answered or refused with a reason.

    mix.py [SECONDS [SEED]]     default: 20, and a seed that is drawn and printed

tests/long.sh mix runs it for 10 minutes.
"""

import os
import random
import re
import shutil
import struct
import sys
import threading
import time

from harness import DATA, DEMO, MIB, Case, Daemon, main, plan, wait_until
from stubs import Stubs, model_pb2
from mix_clients import MODELS, MixClient, Record, references

CLIENTS = 16
PHASES = 4  # After each the daemon is idle and must be as after the first.
STAGING_BYTES = 4 * MIB

# What an idle daemon may hold more of after the last phase than after the first. The allocator
# keeps a fringe of M_TRIM_THRESHOLD = 128 KiB in each of its arenas, 8 a core, and what lies
# scattered beneath it; seen are differences of 1 MiB either way, and 325 000 calls in 10 minutes, of
# which a leak of 35 bytes each would show.
RSS_GROWTH_MAX = 8 * MIB

seconds = float(sys.argv.pop(1)) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 20.0
seed = int(sys.argv.pop(1)) if len(sys.argv) > 1 and sys.argv[1].isdigit() \
    else random.SystemRandom().randrange(1 << 32)


class MixTest(Case):
    def broken_sources(self):
        """Checkpoints that cannot be loaded, each with the code that says so."""
        def copy(name):
            shutil.copytree(os.path.join(DATA, "models", "qwen2"), self.path(name))
            return self.path(name), os.path.join(self.path(name), "model.safetensors")

        cut, cut_shard = copy("cut")
        os.truncate(cut_shard, os.path.getsize(cut_shard) - 1)
        infinite, infinite_shard = copy("infinite")  # Fails only once it is read.
        with open(infinite_shard, "r+b") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            file.seek(8 + header_bytes)
            file.write(b"\x80\x7f" * 4096)  # bf16 infinity, or F16 NaN.
        foreign, _ = copy("foreign")
        with open(os.path.join(foreign, "config.json"), encoding="utf-8") as file:
            config = file.read()
        self.write("foreign/config.json", config.rstrip()[:-1]
                   + ', "quantization_config": {"quant_method": "gptq", "bits": 4}}')
        return [("DATA_LOSS", cut), ("DATA_LOSS", infinite), ("UNIMPLEMENTED", foreign),
                ("NOT_FOUND", self.path("nowhere"))]

    def process(self, daemon):
        """What the daemon's process holds: resident memory, threads, descriptors."""
        with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
            status = dict(line.split(":", 1) for line in file)
        return {"rss": int(status["VmRSS"].split()[0]) << 10, "threads": int(status["Threads"]),
                "files": len(os.listdir(f"/proc/{daemon.process.pid}/fd"))}

    def unload_all(self, daemon):
        with Stubs(daemon.address) as stubs:
            # Detached loads may still be on their way, so more than once.
            while models := stubs.models.ListModels(model_pb2.ListModelsRequest()).models:
                for model in models:
                    try:
                        stubs.unload(model.model, 0)
                    except Exception as error:  # pylint: disable=broad-except
                        self.assertIn("NOT_FOUND", str(error))
        self.assert_ledger_empty(daemon)

    def run_phase(self, daemon, record, shared, phase):
        clients = [MixClient(daemon, record, *shared, f"{seed}/{phase}/{index}")
                   for index in range(CLIENTS)]
        end = time.monotonic() + seconds / PHASES
        threads = [threading.Thread(target=client.live, args=(end,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=seconds + 180)
            self.assertFalse(thread.is_alive(), "a client hangs")

    def idle(self, daemon):
        """The process once every connection has ended."""
        self.unload_all(daemon)
        wait_until(lambda: all(daemon.metric("nibble_connections", f'protocol="{protocol}"')
                               <= (protocol == "http") for protocol in ("grpc", "http")),
                   "connections to end")
        time.sleep(0.5)  # Threads of loads and engines end a moment after their memory is back.
        return self.process(daemon)

    def test_sixteen_clients_leave_nothing_behind(self):
        print(f"mix: seed {seed}, {seconds:.0f} s", flush=True)
        # Room for most of the models, so that budget refusals happen.
        resident = [plan(source, "--staging", STAGING_BYTES)["resident_bytes"]
                    for source, _ in MODELS.values()]
        budget = sum(resident) * 2 // 3 + 2 * STAGING_BYTES
        # Answers are compared with what was said alone.
        with Daemon("--vram-budget", budget, "--staging", STAGING_BYTES, "--batch-invariant") as daemon:
            with Stubs(daemon.address) as stubs:
                shared = (self.broken_sources(), references(stubs))
            record, samples = Record(), []
            for phase in range(PHASES):
                self.run_phase(daemon, record, shared, phase)
                samples.append(self.idle(daemon))
                print(f"mix: phase {phase + 1}: {sum(record.counts.values())} calls, idle with "
                      f"{samples[-1]}", flush=True)
            for (act, outcome), count in sorted(record.counts.items()):
                print(f"mix: {count:8} {act}: {outcome}")
            self.assertEqual(record.failures[:20], [], f"{len(record.failures)} failures")
            self.assert_flat(samples)
            self.assert_mixed(record)
            self.assert_log_explained(daemon)

    def assert_flat(self, samples):
        first, last = samples[0], samples[-1]
        self.assertLessEqual(last["files"], first["files"], samples)
        self.assertLessEqual(last["rss"], first["rss"] + RSS_GROWTH_MAX, samples)
        # gRPC starts threads as calls come, up to a bound of its own, and keeps them a while.
        self.assertLessEqual(last["threads"], first["threads"] + CLIENTS, samples)

    def assert_mixed(self, record):
        """Everything that was to happen did: a mix that loads nothing proves nothing."""
        for act in ("load", "generate", "HTTP completion", "unload", "score"):
            good = record.counts[act, "200" if act.startswith("HTTP") else "OK"]
            self.assertGreater(good, 0, f"{act} never worked")
        for outcome in ("RESOURCE_EXHAUSTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED"):
            self.assertTrue(any(outcome == found for _, found in record.counts), outcome)

    def assert_log_explained(self, daemon):
        """No line of level error: what clients do wrong is no error of the daemon."""
        errors = [line for line in daemon.log().splitlines()
                  if re.search(r" level=(error|critical) ", line)]
        self.assertEqual(errors[:20], [])


if __name__ == "__main__":
    sys.exit(main())
