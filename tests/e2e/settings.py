"""Flags, environment and settings file on the real binary: precedence, messages, exit codes."""

import os
import socket
import sys

from harness import DATA, DEMO, MIB, Case, Daemon, main, nibble

MODELS = os.path.join(DATA, "models")


class SettingsTest(Case):
    def test_flag_beats_environment_beats_file_beats_default(self):
        config = self.write("nibble.toml", '[serve]\nvram-budget = "64MiB"\nstaging = "16MiB"\n'
                            "max_loads = 1\n")
        env = {"NIBBLE_CONFIG": config, "NIBBLE_VRAM_BUDGET": "80MiB"}
        with Daemon(env=env) as daemon:
            self.assertEqual(daemon.memory()["budget_bytes"], 80 * MIB)
            model = self.assert_done(daemon.load("demo", DEMO)).json()
            self.assertEqual(int(model["plan"]["staging_bytes"]), 16 * MIB)
        with Daemon("--vram-budget", "96MiB", env=env) as daemon:
            self.assertEqual(daemon.memory()["budget_bytes"], 96 * MIB)
        with Daemon("--config", config) as daemon:
            self.assertEqual(daemon.memory()["budget_bytes"], 64 * MIB)

    def test_the_file_loads_models_at_start(self):
        config = self.write("nibble.toml", f"""
[serve]
vram-budget = "256MiB"
staging = "8MiB"
model-root = ["{DATA}"]

[[model]]
name = "demo"
source = "demo-model"
block_size = 128

[[model]]
name = "kept"
source = "{MODELS}/llama"
format = "AS_STORED"
weights-only = true
""")
        with Daemon("--config", config, roots=[]) as daemon:
            self.wait_for_state(daemon, "demo", "READY")
            self.wait_for_state(daemon, "kept", "READY")
            models = daemon.models()
            self.assertEqual(models["demo"]["quantization"]["block_size"], 128)
            self.assertEqual(models["kept"]["quantization"]["format"], "AS_STORED")

    def test_lists_in_the_environment_are_separated_by_colons(self):
        env = {"NIBBLE_MODEL_ROOT": f"{self.scratch}:{DATA}", "NIBBLE_VRAM_BUDGET": "256MiB"}
        with Daemon(roots=[], env=env) as daemon:
            self.assert_done(daemon.load("demo", "demo-model"))

    def test_clients_find_the_daemon_by_the_environment(self):
        with Daemon("--vram-budget", "64MiB") as daemon:
            self.assert_done(nibble("ps", env={"NIBBLE_ADDRESS": daemon.address}))

    def test_mistakes_of_the_file_are_named_with_their_line(self):
        config = self.write("nibble.toml", '[serve]\n\nvram-budgets = "1GiB"\n')
        answer = nibble("serve", "--config", config)
        self.assertEqual(answer.code, 2, answer)
        self.assertIn(f"{config}:3: vram-budgets: unknown setting", answer.err)
        config = self.write("model.toml", '[[model]]\nname = "x"\nsource = "y"\nblocksize = 3\n')
        answer = nibble("serve", "--config", config)
        self.assertEqual(answer.code, 2, answer)
        self.assertIn(f"{config}:4: blocksize: unknown setting", answer.err)

    def test_mistakes_of_the_environment_are_named(self):
        answer = nibble("serve", env={"NIBBLE_MAX_LOADS": "many"})
        self.assertEqual(answer.code, 2, answer)
        self.assertIn("NIBBLE_MAX_LOADS: expected a whole number", answer.err)

    def test_wrong_usage_exits_with_2(self):
        for arguments in ([], ["frobnicate"], ["load", "x"], ["plan"], ["unload", "x", "y"],
                          ["plan", DEMO, "--vram-budget", "24gb"], ["ps", "--frob"], ["synth"],
                          ["serve", "--vram-budget", "-1"], ["serve", "--drain-timeout", "30"],
                          ["load", "m", DEMO, "--format", "INT3"]):
            answer = nibble(*arguments)
            self.assertEqual(answer.code, 2, (arguments, answer))
            self.assertNotEqual(answer.err, "", arguments)

    def test_help_teaches_every_command(self):
        overview = self.assert_done(nibble("--help")).out
        for command in ("serve", "plan", "load", "unload", "ps", "memory", "synth", "version",
                        "bench load", "bench quantize"):
            self.assertIn(f"  {command} ", overview)
            page = self.assert_done(nibble(*command.split(), "--help")).out
            self.assertIn("Examples\n", page)
            for line in page.splitlines():
                flag = line.split()[0] if line.startswith("  --") else None
                if flag:
                    self.assertIn(f"[NIBBLE_{flag[2:].upper().replace('-', '_')}]", page, command)

    def test_an_address_in_use_is_said(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for flag in ("--listen", "--http-listen"):
                other = "--http-listen" if flag == "--listen" else "--listen"
                answer = nibble("serve", "--device", "host", "--vram-budget", "64MiB", flag, address,
                                other, "127.0.0.1:0")
                self.assert_refused(answer, address)

    def test_a_budget_of_nothing_is_refused(self):
        for budget, reserve in (("0", "0"), ("64MiB", "64MiB"), ("64MiB", "65MiB")):
            answer = nibble("serve", "--device", "host", "--vram-budget", budget,
                            "--runtime-reserve", reserve, "--listen", "127.0.0.1:0",
                            "--http-listen", "127.0.0.1:0")
            self.assertEqual(answer.code, 1, answer)
            self.assertIn("budget", answer.err)

    def test_an_open_address_needs_to_be_meant(self):
        answer = nibble("serve", "--device", "host", "--vram-budget", "64MiB", "--listen",
                        "0.0.0.0:0", "--http-listen", "127.0.0.1:0")
        self.assert_refused(answer, "--insecure")

    def test_no_daemon_is_said(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            self.assert_refused(nibble("ps", "--address", address), "UNAVAILABLE",
                                f"no daemon answers at {address}", "nibble serve")


if __name__ == "__main__":
    sys.exit(main())
