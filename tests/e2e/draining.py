"""Unloading a model that is answering, over both protocols: what runs may end within the timeout,
then is ended; new requests hear why; then the memory is back."""

import http.client
import json
import sys
import threading
import time
import urllib.parse

from harness import DEMO, Case, Daemon, main
from stubs import Stubs, generation_pb2, grpc, model_pb2, plan_pb2

DRAIN_SECONDS = 2.0
# Beyond the timeout: a step that runs, and a loaded machine.
SLACK_SECONDS = 10.0


class DrainingTest(Case):
    def setUp(self):
        super().setUp()
        self.daemon = self.enterContext(Daemon("--vram-budget", "256MiB", "--staging", "4MiB"))
        self.stubs = self.enterContext(Stubs(self.daemon.address))
        address = urllib.parse.urlsplit(self.daemon.http)
        self.http_address = (address.hostname, address.port)
        # Answers of thousands of tokens, several at a time, outlast any timeout here.
        request = model_pb2.LoadModelRequest(
            model="m", source=self.synth("llama-tiny"),
            quantization=plan_pb2.Quantization(format=plan_pb2.AS_STORED))
        list(self.stubs.models.LoadModel(request, timeout=60))

    def generate(self, tokens_max, answers=1):
        return self.stubs.generation.Generate(generation_pb2.GenerateRequest(
            model="m", token_ids=[1, 2, 3], max_tokens=tokens_max, n=answers, ignore_eos=True),
                                              timeout=120)

    def open_http(self, tokens_max, stream, answers=1):
        connection = http.client.HTTPConnection(*self.http_address, timeout=120)
        self.addCleanup(connection.close)
        connection.request(
            "POST", "/v1/completions",
            json.dumps({"model": "m", "prompt": [1, 2, 3], "max_tokens": tokens_max, "n": answers,
                        "ignore_eos": True, "stream": stream}),
            {"Content-Type": "application/json"})
        return connection

    def start_unload(self, drain_seconds):
        """Begins to unload; returns a list that will hold how long it took and what it freed."""
        done = []

        def unload():
            started = time.monotonic()
            freed_bytes = self.stubs.unload("m", drain_seconds)
            done.append((time.monotonic() - started, freed_bytes))

        thread = threading.Thread(target=unload)
        thread.start()
        self.addCleanup(thread.join)
        self.wait_for_state(self.daemon, "m", "DRAINING")
        return thread, done

    def assert_new_requests_hear_why(self):
        for call in (lambda: list(self.generate(1)),
                     lambda: self.stubs.generation.Score(
                         generation_pb2.ScoreRequest(model="m", token_ids=[1, 2]), timeout=60)):
            with self.assertRaises(grpc.RpcError) as caught:
                call()
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertIn("m: is being unloaded", caught.exception.details())
        response = self.open_http(1, False).getresponse()
        self.assertEqual(response.status, 503)
        self.assertEqual(response.getheader("Retry-After"), "1")
        message = json.loads(response.read())["error"]["message"]
        self.assertIn("m: is being unloaded", message)

    def test_what_runs_is_ended_after_the_timeout(self):
        reserved = self.daemon.memory()["reserved_bytes"]
        stream = self.generate(8000, 5)  # Fifteen of the sixteen sequences that run at a time.
        next(stream)
        response = self.open_http(8000, True, 5).getresponse()
        self.assertTrue(response.readline().startswith(b"data: {"))
        waiting = self.open_http(8000, False, 5)  # Hears nothing until it is done.
        thread, done = self.start_unload(DRAIN_SECONDS)
        self.assert_new_requests_hear_why()
        self.assertEqual(done, [], "it waits for what runs")
        with self.assertRaises(grpc.RpcError) as caught:
            list(stream)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertIn("unload", caught.exception.details())
        events = [line for line in response.read().decode().split("\n") if line]
        self.assertIn("unload", json.loads(events[-1].removeprefix("data: "))["error"]["message"])
        refused = waiting.getresponse()
        self.assertEqual(refused.status, 503)
        self.assertIn("unload", json.loads(refused.read())["error"]["message"])
        thread.join()
        ((seconds, freed_bytes),) = done
        self.assertGreaterEqual(seconds, DRAIN_SECONDS)
        self.assertLess(seconds, DRAIN_SECONDS + SLACK_SECONDS)
        self.assertEqual(freed_bytes, reserved)
        self.assert_ledger_empty(self.daemon)

    def test_what_ends_in_time_is_answered_whole(self):
        stream = self.generate(400, 4)
        next(stream)
        response = self.open_http(400, True, 4).getresponse()
        self.assertTrue(response.readline().startswith(b"data: {"))
        thread, done = self.start_unload(60)
        self.assert_new_requests_hear_why()
        ends = [piece for piece in stream if piece.finish_reason]
        self.assertEqual([end.usage.generated_tokens for end in ends], [400] * 4)
        self.assertTrue(response.read().endswith(b"data: [DONE]\n\n"))
        thread.join()
        self.assertLess(done[0][0], 60, "it did not wait for the timeout")
        self.assert_ledger_empty(self.daemon)

    def test_the_name_is_free_afterwards(self):
        stream = self.generate(8000, 8)
        next(stream)
        self.stubs.unload("m", 0)
        with self.assertRaises(grpc.RpcError):
            list(stream)
        self.assertEqual(self.stubs.load("m", DEMO).state, model_pb2.READY)
        self.assertEqual(list(self.generate(3))[-1].usage.generated_tokens, 3)
        self.stubs.unload("m")
        self.assert_ledger_empty(self.daemon)
        response = self.open_http(1, False).getresponse()
        self.assertEqual(response.status, 404)
        self.assertEqual(json.loads(response.read())["error"]["code"], "model_not_found")


if __name__ == "__main__":
    sys.exit(main())
