"""The main job on the demo model: plan, load, look at it from every side, unload, nothing left."""

import json
import os
import sys

from harness import DEMO, MIB, Case, Daemon, main, nibble, plan

FLAGS = ["--vram-budget", "256MiB", "--staging", "8MiB"]


class MainPathTest(Case):
    def test_a_model_goes_in_and_comes_out(self):
        planned = plan(DEMO, "--staging", "8MiB", "--vram-budget", "256MiB")
        self.assertTrue(planned["fits"])
        self.assertEqual(planned["peak_bytes"],
                         planned["resident_bytes"] + planned["staging_bytes"])
        with Daemon(*FLAGS) as daemon:
            self.assert_ledger_empty(daemon)
            model = self.assert_done(daemon.load("demo", DEMO)).json()
            self.assertEqual(model["state"], "READY")
            self.assertEqual(int(model["peak_bytes"]), planned["peak_bytes"])
            self.assertGreater(model["plan"]["quantized_ratio"], 0.5)

            memory = daemon.memory()
            self.assertEqual(memory["allocated_bytes"], planned["resident_bytes"])
            self.assertEqual(memory["reserved_bytes"], planned["resident_bytes"])
            self.assertEqual(memory["peak_allocated_bytes"], planned["peak_bytes"])
            self.assertEqual([entry["model"] for entry in memory["models"]], ["demo"])

            answer = self.assert_done(daemon.run("unload", "demo", "--json"))
            self.assertEqual(int(answer.json()["freed_bytes"]), planned["resident_bytes"])
            self.assert_ledger_empty(daemon)
            self.assertEqual(daemon.models(), {})

    def test_metrics_tell_what_the_ledger_tells(self):
        with Daemon(*FLAGS) as daemon:
            self.assertEqual(daemon.metric("nibble_checkpoint_read_bytes_total"), 0)
            model = self.assert_done(daemon.load("demo", DEMO)).json()
            memory = daemon.memory()
            self.assertEqual(daemon.metric("nibble_checkpoint_read_bytes_total"),
                             int(model["plan"]["source_bytes"]))
            self.assertEqual(daemon.metric("nibble_vram_budget_bytes", 'device="host"'),
                             memory["budget_bytes"])
            self.assertEqual(daemon.metric("nibble_vram_peak_bytes", 'device="host"'),
                             memory["peak_allocated_bytes"])
            self.assertEqual(daemon.metric("nibble_model_plan_error_bytes", 'model="demo"'), 0)
            self.assertEqual(daemon.metric("nibble_models", 'state="READY"'), 1)
            self.assertEqual(daemon.get("/healthz").strip() != "", True)
            self.assert_done(daemon.run("unload", "demo"))
            self.assertNotIn('model="demo"', daemon.get("/metrics"))

    def test_people_can_read_what_it_prints(self):
        with Daemon(*FLAGS) as daemon:
            loaded = self.assert_done(daemon.run("load", "demo", DEMO))
            self.assertRegex(loaded.out, r"demo  ready: resident .* MiB, peak .* MiB, .* GB/s")
            self.assertIn("demo  planned: reads ", loaded.err)
            self.assertIn("100%", loaded.err)
            self.assertRegex(daemon.run("ps").out, r"demo +READY +NF4 ")
            self.assertIn("embed_tokens", daemon.run("ps", "--report", "demo").out)
            self.assertRegex(daemon.run("memory").out, r"weights +\S+ MiB +\S+ MiB")
            self.assertRegex(daemon.run("unload", "demo").out, r"demo unloaded, .* bytes\) are back")
            self.assertEqual(daemon.run("ps").out, "no models\n")

    def test_the_daemons_plan_is_the_offline_plan(self):
        offline = json.loads(nibble("plan", DEMO, "--json", "--staging", "8MiB").out)
        with Daemon(*FLAGS) as daemon:
            model = self.assert_done(daemon.load("demo", DEMO)).json()
            report = daemon.run("ps", "--report", "demo", "--json").json()["report"]
        self.assertEqual(report["tensors"], offline["tensors"])
        for name in ("source_bytes", "weights_bytes", "staging_bytes", "resident_bytes",
                     "peak_bytes", "quantized_ratio", "warnings"):
            self.assertEqual(model["plan"][name], offline[name], name)

    def test_a_relative_path_means_the_callers_directory(self):
        with Daemon(*FLAGS) as daemon:
            answer = daemon.run("load", "demo", os.path.basename(DEMO), cwd=os.path.dirname(DEMO))
            self.assert_done(answer)

    def test_a_path_under_a_root_needs_no_directory(self):
        with Daemon(*FLAGS, roots=[os.path.dirname(DEMO)]) as daemon:
            self.assert_done(daemon.load("demo", os.path.basename(DEMO)))

    def test_a_small_budget_shows_in_the_plan(self):
        planned = plan(DEMO, "--staging", "8MiB", "--vram-budget", "9MiB")
        self.assertFalse(planned["fits"])
        self.assertEqual(planned["shortfall_bytes"], planned["peak_bytes"] - 9 * MIB)
        self.assertTrue(planned["remedies"])
        answer = self.assert_done(nibble("plan", DEMO, "--vram-budget", "1MiB"))
        self.assertIn("does NOT fit", answer.out)


if __name__ == "__main__":
    sys.exit(main())
