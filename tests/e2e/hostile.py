"""What hostile clients and models ask for, over gRPC and HTTP: each is refused by name, at once and
within little memory, and the next request is answered."""

import http.client
import json
import os
import shutil
import socket
import sys
import time
import urllib.parse

from harness import DEMO, MIB, Case, Daemon, main
from stubs import Stubs, bad_field, generation_pb2, grpc, reason

CONTEXT_TOKENS = 1024  # Of the demo model; its vocabulary has 960.
LONG_TEXT = "once upon " * 3000
BODY_BYTES_MAX = 1 << 20
MESSAGE_BYTES_MAX = 4 << 20  # gRPC's limit.
# From request to refusal, on a loaded machine; a template may run for 3 million steps.
REFUSED_SECONDS = 10
# The most that a refusal may take of memory: a template's output of 16 MiB while it grows, values
# of 64 MiB; the longest body, twice.
GROWTH_MAX = 96 * MIB
DEEP_SCHEMA = '{"type":"array","items":' * 10_000 + "{}" + "}" * 10_000
TEMPLATES = {
    "loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "grows": "{% for a in range(100000) %}{{ messages[0].content * 10000 }}{% endfor %}",
    "recurs": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
}
MESSAGES = [{"role": "user", "content": "hello"}]


class HostileTest(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--vram-budget", "64MiB", "--staging", "4MiB")
        cls.stubs = Stubs(cls.daemon.address)
        cls.stubs.load("demo", DEMO)
        address = urllib.parse.urlsplit(cls.daemon.http)
        cls.http_address = (address.hostname, address.port)

    @classmethod
    def tearDownClass(cls):
        cls.stubs.close()
        code = cls.daemon.stop()
        cls.daemon.close()
        assert code == 0, code

    def setUp(self):
        super().setUp()
        self.started = time.monotonic()
        self.peak_bytes = self.peak_memory()

    def tearDown(self):
        self.assertLess(time.monotonic() - self.started, REFUSED_SECONDS)
        self.assertLess(self.peak_memory() - self.peak_bytes, GROWTH_MAX)
        answer = self.generate(prompt="Once upon a time", max_tokens=5)
        self.assertEqual(answer[-1].usage.generated_tokens, 5)
        status, content = self.post("/v1/completions", {"model": "demo", "prompt": "Once"})
        self.assertEqual(status, 200, content)

    def peak_memory(self):
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as file:
            (line,) = [line for line in file if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10

    # gRPC.

    def generate(self, **fields):
        request = generation_pb2.GenerateRequest(**{"model": "demo", **fields})
        return list(self.stubs.generation.Generate(request, timeout=REFUSED_SECONDS))

    def refuse(self, run, code, field=None, *words):
        with self.assertRaises(grpc.RpcError) as caught:
            run()
        error = caught.exception
        self.assertEqual(error.code(), code, error.details())
        self.assertEqual(bad_field(error), field, error.details())
        for word in words:
            self.assertIn(word, error.details())

    def refuse_request(self, field, *words, **fields):
        self.refuse(lambda: self.generate(**fields), grpc.StatusCode.INVALID_ARGUMENT, field,
                    *words)

    def refuse_score(self, field, *words, **fields):
        request = generation_pb2.ScoreRequest(model="demo", **fields)
        self.refuse(lambda: self.stubs.generation.Score(request, timeout=REFUSED_SECONDS),
                    grpc.StatusCode.INVALID_ARGUMENT, field, *words)

    # HTTP.

    def post(self, path, body):
        connection = http.client.HTTPConnection(*self.http_address, timeout=REFUSED_SECONDS)
        try:
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def refuse_post(self, path, body, param, *words, status=400):
        found, content = self.post(path, body)
        self.assertEqual(found, status, content)
        error = json.loads(content)["error"]
        self.assertEqual(error["param"], param, error)
        for word in words:
            self.assertIn(word, error["message"])

    def refuse_completion(self, param, *words, **fields):
        self.refuse_post("/v1/completions", {"model": "demo", "prompt": "a", **fields}, param,
                         *words)

    def refuse_chat(self, param, *words, **fields):
        self.refuse_post("/v1/chat/completions", {"model": "demo", "messages": MESSAGES, **fields},
                         param, *words)

    # Prompts.

    def test_a_prompt_over_the_context(self):
        self.refuse_request("prompt", str(CONTEXT_TOKENS), prompt=LONG_TEXT)
        self.refuse_request("prompt", "2000", token_ids=[5] * 2000)
        self.refuse_score("prompt", str(CONTEXT_TOKENS), prompt=LONG_TEXT)
        self.refuse_completion("prompt", str(CONTEXT_TOKENS), prompt=LONG_TEXT)
        self.refuse_completion("prompt", "2000", prompt=[5] * 2000)
        self.refuse_chat("messages", str(CONTEXT_TOKENS),
                         messages=[{"role": "user", "content": LONG_TEXT}])

    def test_an_empty_prompt(self):
        self.refuse_request("prompt", "empty")
        self.refuse_request("prompt", "empty", prompt="")
        self.refuse_score("prompt", "empty")
        # With the token that begins every text it is none.
        self.refuse_completion("prompt", prompt="", add_special_tokens=False)
        self.refuse_completion("prompt", prompt=[])
        self.refuse_chat("messages", messages=[])

    def test_ids_outside_the_vocabulary(self):
        for token_id in (960, -1, 1 << 20):
            self.refuse_request("token_ids", str(token_id), token_ids=[1, token_id])
            self.refuse_request("stop_token_ids", str(token_id), prompt="a",
                                stop_token_ids=[token_id])
            self.refuse_request("logit_bias", str(token_id), prompt="a", logit_bias={token_id: 1})
            self.refuse_score("token_ids", str(token_id), token_ids=[1, token_id])
            request = generation_pb2.DetokenizeRequest(model="demo", token_ids=[token_id])
            self.refuse(lambda: self.stubs.generation.Detokenize(request, timeout=REFUSED_SECONDS),
                        grpc.StatusCode.INVALID_ARGUMENT, "token_ids", str(token_id))
            self.refuse_completion("prompt", prompt=[1, token_id])
            self.refuse_completion("logit_bias", logit_bias={str(token_id): 1})

    # Options.

    def test_a_temperature_that_is_no_number(self):
        self.refuse_request("temperature", "nan", prompt="a", temperature=float("nan"))
        self.refuse_request("temperature", "inf", prompt="a", temperature=float("inf"))
        self.refuse_completion("temperature", temperature=1e39)
        # JSON has no such numbers: the place is named.
        for text in (b"NaN", b"Infinity", b"1e999"):
            self.refuse_post("/v1/completions",
                             b'{"model": "demo", "prompt": "a", "temperature": ' + text + b"}",
                             None, "byte 48", text.decode())

    def test_ten_thousand_stop_strings(self):
        self.refuse_request("stop", "10000", prompt="a", stop=["x"] * 10_000)
        self.refuse_completion("stop", "10000", stop=["x"] * 10_000)
        self.refuse_chat("stop", "10000", stop=["x"] * 10_000)

    def test_a_schema_that_nests_ten_thousand_deep(self):
        self.refuse_request("response_format.json_schema", "deep", prompt="a",
                            response_format={"json_schema": DEEP_SCHEMA})
        chat = json.dumps({"model": "demo", "messages": MESSAGES, "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": "SCHEMA"}}})
        self.refuse_post("/v1/chat/completions",
                         chat.replace('"SCHEMA"', DEEP_SCHEMA).encode(), None, "deep")
        self.refuse_request("tools_json", "depth", messages=MESSAGES, tools_json="[" * 10_000)

    # What a model brings.

    def test_templates_that_do_not_end(self):
        for name, text in TEMPLATES.items():
            source = self.path(name)
            shutil.copytree(DEMO, source)
            self.write(os.path.join(name, "chat_template.jinja"), text)
            self.stubs.load(name, source)
            self.addCleanup(self.stubs.unload, name)
            self.refuse(lambda: self.generate(model=name, messages=MESSAGES),
                        grpc.StatusCode.RESOURCE_EXHAUSTED, None, "chat template, line 1")
            # Not 429: to try again would not help.
            self.refuse_chat(None, "chat template, line 1", model=name)

    # Bytes.

    def test_text_that_is_not_utf8(self):
        for body in (b'{"model": "demo", "prompt": "\xff\xfe"}',
                     b'{"model": "\xc3", "prompt": "a"}'):
            self.refuse_post("/v1/completions", body, None, "UTF-8")
        # Python's messages hold no such text, so it is written by hand: fields 1 and 2.
        call = self.stubs.channel.unary_stream("/nibble.v1.GenerationService/Generate")
        for message in (b"\x0a\x04demo\x12\x02\xff\xfe", b"\x12\xff\xff\xff"):
            self.refuse(lambda: list(call(message, timeout=REFUSED_SECONDS)),
                        grpc.StatusCode.INVALID_ARGUMENT, None, "Generate", "UTF-8")
        unary = self.stubs.channel.unary_unary("/nibble.v1.GenerationService/Tokenize")
        self.refuse(lambda: unary(b"\x0a\x04demo\x12\x01\xff", timeout=REFUSED_SECONDS),
                    grpc.StatusCode.INVALID_ARGUMENT, None, "Tokenize", "UTF-8")

    def send_endless(self, head, piece, bytes_max=10**9):
        """Sends until the daemon hangs up; returns what it said, and how much it took."""
        sent = 0
        with socket.create_connection(self.http_address, timeout=REFUSED_SECONDS) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
                               b"Content-Type: application/json\r\n" + head + b"\r\n\r\n")
            reply = b""
            try:
                while sent < bytes_max:
                    connection.sendall(piece)
                    sent += len(piece)
            except OSError:  # It has hung up.
                pass
            try:
                reply = connection.recv(4096)
            except OSError:  # Reset: what it said may be lost with it.
                pass
        return reply, sent

    def test_a_body_of_a_gigabyte(self):
        for head, piece in ((b"Content-Length: 1000000000", b" " * 65536),
                            (b"Transfer-Encoding: chunked", b"10000\r\n" + b" " * 65536 + b"\r\n")):
            # With one byte of it the answer is there to be read.
            reply, _ = self.send_endless(head, piece[:1] if b"Length" in head else piece * 17,
                                         bytes_max=1)
            self.assertTrue(reply.startswith(b"HTTP/1.1 413 "), reply)
            self.assertIn(f"at most {BODY_BYTES_MAX} bytes".encode(), reply)
            self.send_endless(head, piece)
        # So large a message is refused by gRPC itself.
        size = MESSAGE_BYTES_MAX + 1
        self.refuse(lambda: self.generate(prompt="x" * size),
                    grpc.StatusCode.RESOURCE_EXHAUSTED, None, "larger than max",
                    str(MESSAGE_BYTES_MAX))

    def test_errors_have_reasons_that_scripts_may_test(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(prompt="a", temperature=float("nan"))
        self.assertEqual(reason(caught.exception), "INVALID_FIELD")


if __name__ == "__main__":
    sys.exit(main())
