"""What a client of the mix does: one random act after the other, each with an outcome that it may
have. Whatever else comes back is a failure, and so is an error without a sentence.
"""

import collections
import json
import os
import random
import threading
import time
import urllib.parse

from harness import DATA, DEMO
from mix_http import HUNG_SECONDS, HttpActs
from stubs import Stubs, generation_pb2, grpc, memory_pb2, model_pb2, plan_pb2

# Names and what stands behind them, always the same, so that greedy answers can be compared.
MODELS = {
    "demo": (DEMO, {}),
    "demo-dq": (DEMO, {"double_quantization": True}),
    "demo-16bit": (DEMO, {"format": plan_pb2.AS_STORED}),
    "llama": (os.path.join(DATA, "models", "llama"), {}),
    "qwen2": (os.path.join(DATA, "models", "qwen2"), {"format": plan_pb2.FP4}),
    "mixtral": (os.path.join(DATA, "models", "mixtral"), {}),
    "qwen3_5": (os.path.join(DATA, "models", "qwen3_5"), {}),
}
WITH_TEXT = [name for name in MODELS if name.startswith("demo")]
SCHEMA = json.dumps({
    "type": "object", "properties": {"name": {"type": "string", "maxLength": 8}},
    "required": ["name"], "additionalProperties": False})

# While models come and go under a request.
GONE = ("NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE")
BUSY = ("RESOURCE_EXHAUSTED",)


class Record:
    """Outcomes of all clients. Thread-safe."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.failures = []

    def add(self, act, outcome, allowed, sentence=None):
        with self.lock:
            self.counts[act, str(outcome)] += 1
            if outcome not in allowed:
                self.failures.append(f"{act}: {outcome}: {sentence}, expected one of {allowed}")
            elif sentence is not None and not sentence.strip():
                self.failures.append(f"{act}: {outcome} without a reason")

    def fail(self, act, what):
        with self.lock:
            self.failures.append(f"{act}: {what}")


class MixClient(HttpActs):
    """One of the clients; belongs to one thread."""

    def __init__(self, daemon, record, sources, references, seed):
        address = urllib.parse.urlsplit(daemon.http)
        super().__init__(record, random.Random(seed), (address.hostname, address.port), WITH_TEXT)
        self.sources = sources  # Broken ones, by the code that they end with.
        self.references = references  # (model, prompt) to the greedy answer.
        self.stubs = Stubs(daemon.address)
        self.acts = [
            (8, self.load), (3, self.load_another_spec), (4, self.load_broken),
            (3, self.load_too_large), (4, self.load_and_leave), (4, self.unload),
            (10, self.generate_greedily), (4, self.generate_and_leave),
            (4, self.generate_with_deadline), (3, self.generate_nonsense),
            (2, self.generate_json), (2, self.read_slowly), (3, self.score), (3, self.tokenize),
            (5, self.look), (8, self.complete), (4, self.stream), (4, self.stream_and_leave),
            (3, self.half_close), (2, self.send_garbage), (2, self.scrape)]

    def live(self, end):
        try:
            while time.monotonic() < end:
                (act,) = self.random.choices([act for _, act in self.acts],
                                             [weight for weight, _ in self.acts])
                try:
                    act()
                except Exception as error:  # pylint: disable=broad-except
                    self.record.fail(act.__name__, f"{type(error).__name__}: {error}")
        finally:
            self.stubs.close()

    # gRPC.

    def call(self, act, allowed, run):
        """Runs a call to its end; returns its answer, or None for a refusal that is allowed."""
        try:
            answer = run()
        except grpc.RpcError as error:
            self.record.add(act, error.code().name, allowed, error.details())
            return None
        self.record.add(act, "OK", allowed)
        return answer

    def pick(self):
        return self.random.choice(list(MODELS))

    def load_request(self, name, source=None, quantization=None, **fields):
        own_source, own_quantization = MODELS.get(name, (None, {}))
        request = model_pb2.LoadModelRequest(
            model=name, source=source or own_source,
            quantization=plan_pb2.Quantization(**(own_quantization if quantization is None
                                                  else quantization)), **fields)
        request.serving.max_sequences = 4
        return request

    def load(self):
        request = self.load_request(self.pick(), detach=self.random.random() < 0.2)
        # CANCELLED: somebody unloads it while it loads.
        self.call("load", ("OK", "ALREADY_EXISTS", "CANCELLED", *BUSY),
                  lambda: list(self.stubs.models.LoadModel(request, timeout=HUNG_SECONDS)))

    def load_another_spec(self):
        request = self.load_request("changing", DEMO, {"block_size": self.random.choice([64, 128])})
        self.call("load another spec", ("OK", "ALREADY_EXISTS", "CANCELLED", *BUSY),
                  lambda: list(self.stubs.models.LoadModel(request, timeout=HUNG_SECONDS)))

    def load_broken(self):
        code, source = self.random.choice(self.sources)
        request = self.load_request(f"broken-{self.random.randrange(4)}", source)
        self.call(f"load broken ({code})", (code, "ALREADY_EXISTS", "CANCELLED", *BUSY),
                  lambda: list(self.stubs.models.LoadModel(request, timeout=HUNG_SECONDS)))

    def load_too_large(self):
        request = self.load_request("too-large", DEMO)
        request.serving.kv_cache_bytes = 1 << 34
        # CANCELLED: of another client's load, which this one joined.
        self.call("load too large", ("RESOURCE_EXHAUSTED", "CANCELLED", "ALREADY_EXISTS"),
                  lambda: list(self.stubs.models.LoadModel(request, timeout=HUNG_SECONDS)))

    def load_and_leave(self):
        call = self.stubs.models.LoadModel(self.load_request(self.pick()), timeout=HUNG_SECONDS)

        def run():
            for _ in range(self.random.randrange(3)):
                next(call, None)
            call.cancel()
            return list(call)

        self.call("load and leave", ("OK", "CANCELLED", "ALREADY_EXISTS", *BUSY), run)

    def unload(self):
        name = self.random.choice([*MODELS, "changing", "too-large", "broken-0", "broken-1"])
        patience = self.random.choice([0, 0.05, 1])
        self.call("unload", ("OK", "NOT_FOUND"), lambda: self.stubs.unload(name, patience))

    def request(self, name, tokens_max, prompt=0, **fields):
        return generation_pb2.GenerateRequest(
            model=name, token_ids=PROMPTS[prompt], max_tokens=tokens_max, **fields)

    def generate(self, act, request, allowed=(), seconds=HUNG_SECONDS):
        return self.call(act, ("OK", *GONE, *BUSY, *allowed),
                         lambda: list(self.stubs.generation.Generate(request, timeout=seconds)))

    def generate_greedily(self):
        """What comes must be what came when the model was alone, whatever else goes on."""
        name, prompt = self.random.choice(list(self.references))
        wanted = self.references[name, prompt]
        count = self.random.randrange(1, len(wanted) + 1)
        answer = self.generate("generate", self.request(name, count, prompt, temperature=0,
                                                        ignore_eos=True))
        if answer is not None:
            found = [id for piece in answer for id in piece.token_ids]
            if found != wanted[:count]:
                self.record.fail("generate", f"{name}: {found}, alone it said {wanted[:count]}")

    def generate_and_leave(self):
        call = self.stubs.generation.Generate(
            self.request(self.pick(), 200, ignore_eos=True, n=self.random.choice([1, 3])),
            timeout=HUNG_SECONDS)

        def run():
            for _ in range(self.random.randrange(6)):
                next(call, None)
            call.cancel()
            return list(call)

        self.call("generate and leave", ("OK", "CANCELLED", *GONE, *BUSY), run)

    def generate_with_deadline(self):
        self.generate("generate with deadline", self.request(self.pick(), 400, ignore_eos=True),
                      ("DEADLINE_EXCEEDED",), self.random.uniform(0.001, 0.2))

    def generate_nonsense(self):
        name = self.pick()
        request = self.random.choice([
            self.request(name, 5, temperature=float("nan")),
            self.request(name, 5, stop=["x"] * 10_000),
            self.request(name, 0),
            generation_pb2.GenerateRequest(model=name),
            generation_pb2.GenerateRequest(model=name, token_ids=[1, 1 << 30]),
            generation_pb2.GenerateRequest(model=name, token_ids=[1] * 5000)])
        self.call("generate nonsense", ("INVALID_ARGUMENT", *GONE, *BUSY),
                  lambda: list(self.stubs.generation.Generate(request, timeout=HUNG_SECONDS)))

    def generate_json(self):
        request = self.request(self.random.choice(WITH_TEXT), 60)
        request.response_format.json_schema = SCHEMA
        answer = self.generate("generate JSON", request)
        if answer is not None and answer[-1].finish_reason == "stop":
            if list(json.loads("".join(piece.text for piece in answer))) != ["name"]:
                self.record.fail("generate JSON", f"does not follow its schema: {answer}")

    def read_slowly(self):
        call = self.stubs.generation.Generate(
            self.request(self.pick(), 500, ignore_eos=True, logprobs=20), timeout=HUNG_SECONDS)

        def run():
            next(call, None)
            time.sleep(self.random.uniform(0, 0.5))
            call.cancel()
            return list(call)

        self.call("read slowly", ("OK", "CANCELLED", *GONE, *BUSY), run)

    def score(self):
        request = generation_pb2.ScoreRequest(
            model=self.pick(), token_ids=PROMPTS[0] * self.random.randrange(1, 30))
        self.call("score", ("OK", *GONE, *BUSY),
                  lambda: self.stubs.generation.Score(request, timeout=HUNG_SECONDS))

    def tokenize(self):
        name, text = self.pick(), "Once upon a time " * self.random.randrange(1, 50)
        stub = self.stubs.generation
        tokens = self.call("tokenize", ("OK", *GONE, *BUSY), lambda: stub.Tokenize(
            generation_pb2.TokenizeRequest(model=name, text=text), timeout=HUNG_SECONDS))
        if tokens is None:
            return
        back = self.call("detokenize", ("OK", *GONE, *BUSY), lambda: stub.Detokenize(
            generation_pb2.DetokenizeRequest(model=name, token_ids=tokens.token_ids,
                                             skip_special_tokens=True), timeout=HUNG_SECONDS))
        if back is not None and back.text != text:
            self.record.fail("detokenize", f"{back.text!r}, expected {text!r}")

    def look(self):
        """The ledger adds up at every moment."""
        memory = self.call("memory", ("OK",), lambda: self.stubs.memory.GetMemory(
            memory_pb2.GetMemoryRequest(), timeout=HUNG_SECONDS))
        self.call("list", ("OK",), lambda: self.stubs.models.ListModels(
            model_pb2.ListModelsRequest(), timeout=HUNG_SECONDS))
        self.call("get", ("OK", "NOT_FOUND"), lambda: self.stubs.models.GetModel(
            model_pb2.GetModelRequest(model=self.pick()), timeout=HUNG_SECONDS))
        (device,) = memory.devices
        if not device.allocated_bytes <= device.reserved_bytes <= device.budget_bytes:
            self.record.fail("memory", f"over its budget: {device}")
        owned = sum(model.weights_bytes + model.kv_cache_bytes + model.workspace_bytes
                    + model.staging_bytes for model in device.models)
        if owned != device.reserved_bytes:  # A host device has no runtime reservation.
            self.record.fail("memory", f"does not add up: {device}")


PROMPTS = [[1, 2, 3, 4, 5], list(range(20, 60)), [7] * 70]


def references(stubs):
    """What each model says when it is alone, of each prompt."""
    found = {}
    for name, (source, quantization) in MODELS.items():
        request = model_pb2.LoadModelRequest(
            model=name, source=source, quantization=plan_pb2.Quantization(**quantization))
        request.serving.max_sequences = 4
        for _ in stubs.models.LoadModel(request, timeout=HUNG_SECONDS):
            pass
        for index, prompt in enumerate(PROMPTS):
            answer = stubs.generation.Generate(generation_pb2.GenerateRequest(
                model=name, token_ids=prompt, max_tokens=40, temperature=0, ignore_eos=True),
                                               timeout=HUNG_SECONDS)
            found[name, index] = [id for piece in answer for id in piece.token_ids]
        stubs.unload(name)
    return found
