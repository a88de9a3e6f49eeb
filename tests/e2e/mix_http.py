"""What a client of the mix does over HTTP: whole answers and streams, leaving, sending garbage."""

import http.client
import json
import socket

HUNG_SECONDS = 60  # A call that takes this long hangs: on a loaded machine the longest take a few.
GONE = (404, 400, 503)  # While models come and go under a request.
BUSY = 429


class HttpActs:
    """Of one client; belongs to one thread. `models` are names of models with a tokenizer."""

    def __init__(self, record, generator, http_address, models):
        self.record = record
        self.random = generator
        self.http_address = http_address
        self.http_models = models

    def post(self, path, body):
        text = json.dumps(body).encode()
        return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n").encode() + text

    def open(self):
        return socket.create_connection(self.http_address, timeout=HUNG_SECONDS)

    def completion(self, **fields):
        name = self.random.choice(self.http_models)
        if self.random.random() < 0.5:
            return "/v1/completions", {"model": name, "prompt": "Once upon a time",
                                       "max_tokens": 20, **fields}
        return "/v1/chat/completions", {
            "model": name, "messages": [{"role": "user", "content": "Tell me a story."}],
            "max_tokens": 20, **fields}

    def answer(self, act, path, body):
        connection = http.client.HTTPConnection(*self.http_address, timeout=HUNG_SECONDS)
        try:
            connection.request("POST", path, json.dumps(body),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode()
        finally:
            connection.close()
        sentence = None
        if response.status != 200:
            sentence = json.loads(content)["error"]["message"]
        self.record.add(act, response.status, (200, BUSY, *GONE), sentence)
        return content if response.status == 200 else None

    def complete(self):
        content = self.answer("HTTP completion", *self.completion())
        if content is not None and not json.loads(content)["choices"]:
            self.record.fail("HTTP completion", f"no choices: {content}")

    def stream(self):
        content = self.answer("HTTP stream", *self.completion(stream=True))
        if content is None:
            return
        last = [line for line in content.split("\n\n") if line][-1]
        if last != "data: [DONE]" and "error" not in json.loads(last.removeprefix("data: ")):
            self.record.fail("HTTP stream", f"ends with neither [DONE] nor an error: {last}")

    def stream_and_leave(self):
        with self.open() as connection:
            connection.sendall(self.post(*self.completion(stream=True)))
            if self.random.random() < 0.8:
                connection.recv(self.random.randrange(1, 500))
        self.record.add("HTTP stream and leave", "left", ("left",))

    def half_close(self):
        """A client that closes its sending side is taken for gone: it may get no answer, but an end."""
        with self.open() as connection:
            request = self.post(*self.completion())
            connection.sendall(request[:self.random.choice([len(request), len(request) // 2])])
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass
        self.record.add("HTTP half-closed", "ended", ("ended",))

    def send_garbage(self):
        with self.open() as connection:
            connection.sendall(self.random.choice([
                self.random.randbytes(200) + b"\r\n\r\n",
                self.post("/v1/completions", {"model": "demo"})[:-1] + b"\xff",
                self.post("/v1/completions", {"prompt": [["deep"]]})]))
            reply = connection.recv(4096)
        if not reply.startswith(b"HTTP/1.1 4"):
            self.record.fail("HTTP garbage", f"{reply!r}")
        self.record.add("HTTP garbage", "refused", ("refused",))

    def scrape(self):
        connection = http.client.HTTPConnection(*self.http_address, timeout=HUNG_SECONDS)
        try:
            for path in ("/metrics", "/v1/models", "/healthz"):
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                self.record.add(f"HTTP {path}", response.status, (200,))
        finally:
            connection.close()
