"""What happens when loads are cancelled, joined, in each other's way, or cut off: the ledger comes
back to where it was, and the next load works."""

import http.client
import os
import signal
import sys
import threading
import urllib.request

from harness import DEMO, Case, Daemon, main, plan, wait_until

# Sparse, so that it costs no disk; large enough to be caught at work by one thread.
SLOW = "llama-1b"
STAGING = ["--staging", "8MiB", "--reader-threads", "1"]


class LifecycleTest(Case):
    def slow_daemon(self, *flags):
        """A daemon that one slow load fits, and the checkpoint for it."""
        source = self.synth(SLOW, "--sparse")
        budget = self.planned(source)["peak_bytes"]
        return Daemon(*STAGING, "--vram-budget", budget, *flags), source

    @staticmethod
    def planned(source):
        return plan(source, "--staging", "8MiB")

    def begin(self, daemon, source, *flags):
        """A load that is under way."""
        command = daemon.start("load", "slow", source, *flags)
        self.addCleanup(self.end, command)
        wait_until(lambda: daemon.metric("nibble_checkpoint_read_bytes_total") > 0
                   or command.poll() is not None, "the load to read")
        self.assertIsNone(command.poll(), "the load is over before it could be disturbed")
        return command

    @staticmethod
    def end(command):
        if command.poll() is None:
            command.kill()
        command.communicate()

    def assert_next_load_works(self, daemon):
        self.assert_done(daemon.load("next", DEMO))
        self.assert_done(daemon.run("unload", "next"))
        self.assert_ledger_empty(daemon)

    def test_ctrl_c_cancels_the_load(self):
        daemon, source = self.slow_daemon()
        with daemon:
            command = self.begin(daemon, source)
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=30)
            self.assertEqual(command.returncode, 1)
            self.assertIn("cancelled the load of slow", err)
            self.wait_for_empty_ledger(daemon)
            self.assertLess(daemon.metric("nibble_checkpoint_read_bytes_total"),
                            self.planned(source)["source_bytes"])
            self.assert_next_load_works(daemon)

    def test_a_killed_client_cancels_the_load(self):
        daemon, source = self.slow_daemon()
        with daemon:
            command = self.begin(daemon, source)
            command.kill()
            command.wait(timeout=30)
            self.wait_for_empty_ledger(daemon)
            self.assert_next_load_works(daemon)

    def test_a_detached_load_outlives_its_client(self):
        daemon, source = self.slow_daemon()
        with daemon:
            command = self.begin(daemon, source, "--detach")
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=30)
            self.assertEqual(command.returncode, 0)
            self.assertIn("the load of slow goes on", err)
            self.assertIn(daemon.state("slow"), ("LOADING", "READY"))
            self.assert_done(daemon.run("unload", "slow"))
            self.assert_ledger_empty(daemon)

    def test_sigterm_while_loading_exits_with_0(self):
        daemon, source = self.slow_daemon()
        with daemon:
            command = self.begin(daemon, source)
            self.assertEqual(daemon.stop(), 0)
            _, err = command.communicate(timeout=30)
            self.assertEqual(command.returncode, 1)
            self.assertNotEqual(err, "")

    def test_scrapes_while_it_stops_are_whole_or_refused(self):
        daemon, source = self.slow_daemon()
        answers, errors = [], []

        def scrape():
            while daemon.process.poll() is None:
                try:
                    response = urllib.request.urlopen(daemon.http + "/metrics", timeout=10)
                except OSError:  # Refused, or closed before the first byte.
                    continue
                try:
                    with response:
                        answers.append(response.read().decode())
                except (OSError, http.client.HTTPException) as error:  # Cut off in the midst.
                    errors.append(repr(error))

        with daemon:
            command = self.begin(daemon, source)
            scraper = threading.Thread(target=scrape)
            scraper.start()
            wait_until(lambda: len(answers) > 3, "scrapes while it loads")
            self.assertEqual(daemon.stop(), 0)
            scraper.join(timeout=30)
            command.communicate(timeout=30)
        self.assertEqual(errors, [])
        for answer in answers:
            self.assertRegex(answer, r"(?m)^nibble_ledger_sequence\{.*\} \d+$")
            self.assertTrue(answer.endswith("\n"))

    def test_unloading_while_it_loads_gives_everything_back(self):
        daemon, source = self.slow_daemon()
        with daemon:
            command = self.begin(daemon, source)
            self.assert_done(daemon.run("unload", "slow"))
            self.assert_ledger_empty(daemon)
            _, err = command.communicate(timeout=30)
            self.assertEqual(command.returncode, 1)
            self.assertIn("CANCELLED", err)
            self.assert_next_load_works(daemon)

    def test_an_identical_request_joins(self):
        daemon, source = self.slow_daemon()
        with daemon:
            first = self.begin(daemon, source)
            second = self.assert_done(daemon.load("slow", source))
            _, err = first.communicate(timeout=60)
            self.assertEqual(first.returncode, 0, err)
            self.assertEqual(second.json()["state"], "READY")
            self.assertEqual(daemon.metric("nibble_checkpoint_read_bytes_total"),
                             int(second.json()["plan"]["source_bytes"]))
            again = self.assert_done(daemon.load("slow", source))
            self.assertEqual(again.json()["load_seconds"], second.json()["load_seconds"])

    def test_one_of_two_callers_may_leave(self):
        daemon, source = self.slow_daemon()
        with daemon:
            first = self.begin(daemon, source)
            second = daemon.start("load", "slow", source)
            self.addCleanup(self.end, second)
            self.assertIn("planned", second.stderr.readline(), "it has joined")
            first.send_signal(signal.SIGINT)
            self.assertEqual(second.wait(timeout=60), 0)
            self.assertEqual(daemon.state("slow"), "READY")

    def test_another_spec_of_the_same_name_is_refused(self):
        with Daemon(*STAGING, "--vram-budget", "256MiB") as daemon:
            self.assert_done(daemon.load("demo", DEMO))
            self.assert_refused(daemon.load("demo", DEMO, "--block-size", "128"),
                                "ALREADY_EXISTS", "demo")

    def test_what_does_not_fit_beside_another_fits_after_its_unload(self):
        peak = self.planned(DEMO)["peak_bytes"]
        with Daemon(*STAGING, "--vram-budget", peak) as daemon:
            self.assert_done(daemon.load("first", DEMO))
            self.assert_refused(daemon.load("second", DEMO), "RESOURCE_EXHAUSTED", "needed")
            self.assertEqual(
                daemon.metric("nibble_budget_refusals_total", 'reason="BUDGET_EXCEEDED"'), 1)
            self.assert_done(daemon.run("unload", "first"))
            self.assert_done(daemon.load("second", DEMO))

    def test_cycles_leave_nothing_behind(self):
        with Daemon(*STAGING, "--vram-budget", "256MiB") as daemon:
            descriptors = f"/proc/{daemon.process.pid}/fd"
            self.assert_done(daemon.load("m", DEMO))
            self.assert_done(daemon.run("unload", "m"))
            # Connections of clients end a moment after the clients.
            before = len(os.listdir(descriptors))
            for _ in range(10):
                self.assert_done(daemon.load("m", DEMO))
                self.assert_done(daemon.run("unload", "m"))
                self.assert_ledger_empty(daemon)
            wait_until(lambda: len(os.listdir(descriptors)) <= before, "descriptors to close")


if __name__ == "__main__":
    sys.exit(main())
