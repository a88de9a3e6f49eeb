"""Plans are exact: a load's allocations peak at the plan's peak; a budget of that peak is enough; of
one byte less it is refused before any tensor data is read.

As a test: every checkpoint of tests/data, and every synthetic shape (those that would fill the
machine are planned and refused, not loaded). `exact.py SHAPE|DIRECTORY...` carries all of it out for
what is named, loads included, whatever its size, and prints figures.
"""

import json
import os
import shutil
import sys
import tempfile
import time

from harness import DATA, DEMO, MIB, Case, Daemon, main, nibble, plan, wait_until

MODELS = sorted(os.listdir(os.path.join(DATA, "models")))
STAGING = ["--staging", "4MiB"]
# Loaded in full by the test: the others' weights would fill a small machine, or its minutes.
LOADED_SHAPES_BYTES_MAX = 3 << 30


def shapes():
    """Name and bytes of data of every synthetic shape."""
    lines = nibble("synth", "--list").out.splitlines()[1:]
    units = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    found = {}
    for line in lines:
        name, _, _, size, unit = line.split()[:5]
        found[name] = int(float(size) * units[unit])
    return found


def check_refusal(case, source, peak_bytes, *flags, runtime_bytes=0):
    """One byte less than the peak beside runtime: refused with all figures, nothing read or left."""
    with Daemon(*flags, "--runtime-reserve", runtime_bytes,
                "--vram-budget", peak_bytes + runtime_bytes - 1) as daemon:
        answer = case.assert_refused(
            daemon.load("m", source), "RESOURCE_EXHAUSTED",
            f"{peak_bytes:,} bytes", f"{peak_bytes - 1:,} bytes", "what would help")
        case.assertRegex(answer.err, r"short +1 B +1 bytes")
        case.assertRegex(answer.err, r"what would help:\n    \* ")
        case.assertEqual(daemon.metric("nibble_checkpoint_read_bytes_total"), 0)
        case.assert_ledger_empty(daemon, runtime_bytes)


def check_load(case, source, planned, *flags, runtime_bytes=0):
    """A budget of exactly the peak and runtime: loads, and the ledger's high-water mark is the peak."""
    peak_bytes = planned["peak_bytes"]
    with Daemon(*flags, "--runtime-reserve", runtime_bytes,
                "--vram-budget", peak_bytes + runtime_bytes) as daemon:
        start = time.monotonic()
        answer = case.assert_done(daemon.run("load", "m", source, "--json", timeout=3000))
        seconds = time.monotonic() - start
        memory = daemon.memory()
        case.assertEqual(int(answer.json()["peak_bytes"]), peak_bytes)
        case.assertEqual(memory["peak_allocated_bytes"], peak_bytes)
        case.assertEqual(memory["allocated_bytes"], planned["resident_bytes"])
        case.assertEqual(daemon.metric("nibble_model_plan_error_bytes", 'model="m"'), 0)
        held_bytes = high_water_bytes(daemon)
        case.assert_done(daemon.run("unload", "m"))
        case.assert_ledger_empty(daemon, runtime_bytes)
    return seconds, held_bytes


def high_water_bytes(daemon):
    """The most memory the process ever held (VmHWM)."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="utf-8") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def context_bytes(directory):
    """What a server would want beside the weights: keys and values of two contexts of 8192 tokens, the
    default, in 16 bits (of every layer, so at most), and the 1 GiB of CUDA's runtime."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config = config.get("text_config", config)
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    token_bytes = (2 * 2 * head_size * config["num_hidden_layers"]
                   * config.get("num_key_value_heads", heads))
    tokens = 2 * min(8192, config.get("max_position_embeddings", 8192))
    return tokens * token_bytes + (1 << 30)


def idle_bytes():
    with Daemon("--vram-budget", "1GiB") as daemon:
        daemon.memory()
        return high_water_bytes(daemon)


class ExactTest(Case):
    def check(self, source):
        planned = plan(source, *STAGING)
        check_load(self, source, planned, *STAGING)
        check_refusal(self, source, planned["peak_bytes"], *STAGING)

    def test_checkpoints_of_every_family(self):
        self.assertGreater(len(MODELS), 10)
        for name in MODELS:
            with self.subTest(model=name):
                self.check(os.path.join(DATA, "models", name))

    def test_the_demo_model(self):
        self.check(DEMO)

    def test_a_runtime_reserve_stands_beside_the_peak(self):
        planned = plan(DEMO, *STAGING)
        check_load(self, DEMO, planned, *STAGING, runtime_bytes=96 * MIB)
        check_refusal(self, DEMO, planned["peak_bytes"], *STAGING, runtime_bytes=96 * MIB)

    def test_every_synthetic_shape(self):
        found = shapes()
        self.assertIn("dense-35b", found)
        for shape, data_bytes in found.items():
            with self.subTest(shape=shape):
                small = data_bytes < LOADED_SHAPES_BYTES_MAX
                source = self.synth(shape, *([] if data_bytes < 10**8 else ["--sparse"]))
                if small:
                    self.check(source)
                else:
                    check_refusal(self, source, plan(source, *STAGING)["peak_bytes"], *STAGING)
                shutil.rmtree(source)

    def overlap(self, sources, planned):
        """Two loads in a budget of exactly both peaks; returns the most that was allocated at once."""
        both = sum(each["peak_bytes"] for each in planned.values())
        with Daemon(*STAGING, "--reader-threads", "1", "--vram-budget", both) as daemon:
            commands = [daemon.start("load", name, source) for name, source in sources.items()]
            for command in commands:
                _, err = command.communicate(timeout=120)
                self.assertEqual(command.returncode, 0, err)
            models = daemon.models()
            for name, each in planned.items():
                self.assertEqual(models[name]["peak_bytes"], each["peak_bytes"], name)
            return daemon.memory()["peak_allocated_bytes"]

    def test_two_loads_side_by_side(self):
        source = self.synth("llama-1b", "--sparse")
        other = self.path("other")
        self.assert_done(nibble("synth", "llama-1b", other, "--sparse", "--seed", "1"))
        sources = {"a": source, "b": other}
        planned = {name: plan(each, *STAGING) for name, each in sources.items()}
        both = sum(each["peak_bytes"] for each in planned.values())
        # Each has its whole peak from its first byte to its last, so that both together have been
        # allocated says that they ran at the same time. A machine may be too busy for that once.
        wait_until(lambda: self.overlap(sources, planned) == both, "two loads to overlap", 120)

    def test_the_rounding_of_a_gpu_shows_in_its_plan(self):
        host, cuda = plan(DEMO), plan(DEMO, "--device", "cuda")
        self.assertEqual(cuda["weights_bytes"] % (2 << 20), 0)
        self.assertGreaterEqual(cuda["weights_bytes"], host["weights_bytes"])
        self.assertEqual(cuda["tensors"], host["tensors"])


def run_in_full(names):
    """What the test does with a checkpoint, for those named; prints figures. Real data with --real,
    other staging with --staging=SIZE; with --card=BYTES the peak must fit a card of that size together
    with room for context."""
    real = "--real" in names
    card_bytes = next((int(name[7:]) for name in names if name.startswith("--card=")), None)
    staging = [name for name in names if name.startswith("--staging=")]
    case = Case()
    idle = idle_bytes()
    for name in [name for name in names if not name.startswith("--")]:
        scratch = tempfile.mkdtemp(prefix="nibble-exact-")
        try:
            source = name
            if not os.path.isdir(name):
                source = os.path.join(scratch, name)
                written = nibble("synth", name, source, *([] if real else ["--sparse"]), timeout=3000)
                case.assert_done(written)
            planned = plan(source, "--weights-only", *staging)
            context = context_bytes(source)
            if card_bytes is not None:
                case.assertLessEqual(planned["peak_bytes"] + context, card_bytes, name)
            check_refusal(case, source, planned["peak_bytes"], *staging)
            seconds, high_water = check_load(case, source, planned, *staging)
            # The device's memory is the host's: nothing large may be held beside it.
            case.assertLess(high_water, planned["peak_bytes"] + (64 << 20) + idle)
            print(f"{name}: source {planned['source_bytes'] / 1e9:.2f} GB, "
                  f"peak {planned['peak_bytes']:,} bytes = plan, {seconds:.2f} s, "
                  f"{planned['source_bytes'] / seconds / 1e9:.2f} GB/s, VmHWM {high_water:,} bytes, "
                  f"{100 * planned['quantized_ratio']:.2f} % in 4 bits; with context "
                  f"{(planned['peak_bytes'] + context) / 1e9:.2f} GB"
                  + (f", fits {card_bytes / 1e9:.0f} GB" if card_bytes else ""), flush=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_in_full(sys.argv[1:]) if sys.argv[1:] else main())
