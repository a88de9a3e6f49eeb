"""Plain gRPC stubs against a running daemon: what a client makes from our .proto files alone.

Run by hand, see README.md: it needs `grpcio-tools`, which is not among our dependencies. Loads the
demo model from SOURCE under a name of its own, and unloads it at the end.
"""

import os
import pathlib
import sys
import tempfile
import threading
import time

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
MODEL = f"grpc-client-{os.getpid()}"
SECONDS = 60


def check(holds, what):
    print(("ok    " if holds else "FAILED  ") + what)
    check.failures += not holds


check.failures = 0


def make_stubs(directory):
    """Generates modules, as a build of a client does, and makes them importable."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={directory}",
                        f"--grpc_python_out={directory}", *files])
    if code != 0:
        sys.exit("the .proto files cannot be compiled")
    sys.path.insert(0, directory)
    import google  # pylint: disable=import-outside-toplevel
    google.__path__.append(os.path.join(directory, "google"))


class Client:
    def __init__(self, address):
        # pylint: disable=import-error,import-outside-toplevel
        from google.rpc import error_details_pb2, status_pb2
        from nibble.v1 import (generation_pb2, generation_pb2_grpc, memory_pb2, memory_pb2_grpc,
                               model_pb2, model_pb2_grpc, plan_pb2)
        self.details_pb2, self.status_pb2 = error_details_pb2, status_pb2
        self.generation_pb2, self.model_pb2 = generation_pb2, model_pb2
        self.memory_pb2, self.plan_pb2 = memory_pb2, plan_pb2
        channel = grpc.insecure_channel(address)
        self.models = model_pb2_grpc.ModelServiceStub(channel)
        self.memory = memory_pb2_grpc.MemoryServiceStub(channel)
        self.generation = generation_pb2_grpc.GenerationServiceStub(channel)

    def generate(self, **fields):
        request = self.generation_pb2.GenerateRequest(**{"model": MODEL, **fields})
        return self.generation.Generate(request, timeout=SECONDS)

    def details(self, error):
        """google.rpc details of an error, by the last part of their names."""
        found = {}
        for key, value in error.trailing_metadata():
            if key == "grpc-status-details-bin":
                for detail in self.status_pb2.Status.FromString(value).details:
                    name = detail.type_url.rsplit(".", 1)[-1]
                    message = getattr(self.details_pb2, name)()
                    detail.Unpack(message)
                    found[name] = message
        return found

    def reserved_bytes(self):
        return self.memory.GetMemory(self.memory_pb2.GetMemoryRequest()).devices[0].reserved_bytes


def loads(client, source):
    events = list(client.models.LoadModel(
        client.model_pb2.LoadModelRequest(model=MODEL, source=source), timeout=SECONDS))
    plan, model = events[0].plan, events[-1].model
    check(plan.fits and plan.peak_bytes == plan.resident_bytes + plan.staging_bytes,
          f"load: planned, peak {plan.peak_bytes} bytes")
    check(model.state == client.model_pb2.READY and model.peak_bytes == plan.peak_bytes,
          f"load: ready, {model.formats}, the peak as planned")


def answers(client):
    pieces = list(client.generate(prompt="Once upon a time", max_tokens=20, temperature=0))
    text = "".join(piece.text for piece in pieces)
    count = sum(len(piece.token_ids) for piece in pieces)
    check(bool(text) and len(pieces) > 1, f"generate: {text!r} in {len(pieces)} messages")
    check(pieces[-1].finish_reason == "length" and pieces[-1].usage.generated_tokens == count == 20,
          f"generate: 20 tokens, {pieces[-1].usage.prompt_tokens} of the prompt")
    chat = list(client.generate(
        messages=[client.generation_pb2.Message(role="user", content="What is six plus seven?")],
        temperature=0))
    check(chat[-1].finish_reason == "stop", "chat: " + repr("".join(p.text for p in chat)))
    told = list(client.generate(prompt="Once upon a time", max_tokens=3, temperature=0, logprobs=2))
    logprobs = [one for piece in told for one in piece.logprobs]
    check(len(logprobs) == 3 and all(one.top[0].token_id == one.token_id for one in logprobs),
          "logprobs: the token taken is the likeliest")
    two = list(client.generate(prompt="Once upon a time", max_tokens=5, n=2, seed=1))
    check({piece.index for piece in two} == {0, 1}, "n: two answers")


def tokenizes(client):
    text = "Once upon a time there was a child."
    tokens = client.generation.Tokenize(
        client.generation_pb2.TokenizeRequest(model=MODEL, text=text), timeout=SECONDS)
    back = client.generation.Detokenize(client.generation_pb2.DetokenizeRequest(
        model=MODEL, token_ids=tokens.token_ids, skip_special_tokens=True), timeout=SECONDS)
    check(back.text == text, f"tokenize and detokenize: {len(tokens.token_ids)} tokens")
    score = client.generation.Score(
        client.generation_pb2.ScoreRequest(model=MODEL, token_ids=tokens.token_ids),
        timeout=SECONDS)
    check(len(score.log_probabilities) == len(tokens.token_ids) - 1 and score.perplexity > 1,
          f"score: perplexity {score.perplexity:.2f}")


def refuses(client, source):
    def refusal(run):
        try:
            run()
        except grpc.RpcError as error:
            return error.code(), client.details(error), error.details()
        return None, {}, "it was answered"

    code, details, said = refusal(lambda: list(client.generate(prompt="a",
                                                               temperature=float("nan"))))
    check(code == grpc.StatusCode.INVALID_ARGUMENT
          and details["BadRequest"].field_violations[0].field == "temperature", f"refused: {said}")
    code, details, said = refusal(lambda: list(client.generate(model="nobody", prompt="a")))
    check(code == grpc.StatusCode.NOT_FOUND, f"refused: {said}")
    request = client.model_pb2.LoadModelRequest(model=MODEL + "-2", source=source)
    request.serving.kv_cache_bytes = 1 << 46
    code, details, said = refusal(lambda: list(client.models.LoadModel(request, timeout=SECONDS)))
    metadata = details["ErrorInfo"].metadata if "ErrorInfo" in details else {}
    check(code == grpc.StatusCode.RESOURCE_EXHAUSTED and "QuotaFailure" in details
          and int(metadata["needed_bytes"]) > int(metadata["available_bytes"]), f"refused: {said}")
    code, _, said = refusal(lambda: client.models.UnloadModel(
        client.model_pb2.UnloadModelRequest(model="nobody"), timeout=SECONDS))
    check(code == grpc.StatusCode.NOT_FOUND, f"refused: {said}")


def cancels(client):
    call = client.generate(prompt="Once upon a time", max_tokens=900, ignore_eos=True, n=8)
    next(call)
    call.cancel()
    try:
        list(call)
        check(False, "cancel: the stream ended by itself")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.CANCELLED, "cancel: CANCELLED")
    try:
        list(client.generation.Generate(client.generation_pb2.GenerateRequest(
            model=MODEL, prompt="a", max_tokens=900, ignore_eos=True, n=16), timeout=0.05))
        check(False, "deadline: it was kept")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, "deadline: DEADLINE_EXCEEDED")


def unloads(client, before_bytes):
    """While it answers: what runs is ended once the drain timeout has passed."""
    call = client.generate(prompt="Once upon a time", max_tokens=900, ignore_eos=True, n=16)
    next(call)
    request = client.model_pb2.UnloadModelRequest(model=MODEL)
    request.drain_timeout.FromMilliseconds(100)
    freed = []
    thread = threading.Thread(
        target=lambda: freed.append(client.models.UnloadModel(request).freed_bytes))
    started = time.monotonic()
    thread.start()
    try:
        list(call)
        said = "it was answered in time"
    except grpc.RpcError as error:
        said = error.details()
        check(error.code() == grpc.StatusCode.UNAVAILABLE, f"unload: the stream hears {said!r}")
    thread.join()
    check(freed[0] > 0 and client.reserved_bytes() == before_bytes,
          f"unload: {freed[0]} bytes are back in {time.monotonic() - started:.2f} s")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: grpc_client.py 127.0.0.1:50051 SOURCE")
    with tempfile.TemporaryDirectory() as directory:
        make_stubs(directory)
        client = Client(sys.argv[1])
        before_bytes = client.reserved_bytes()
        loads(client, sys.argv[2])
        answers(client)
        tokenizes(client)
        refuses(client, sys.argv[2])
        cancels(client)
        unloads(client, before_bytes)
    sys.exit(1 if check.failures else 0)


if __name__ == "__main__":
    main()
