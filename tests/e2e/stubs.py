"""Plain gRPC stubs in Python, generated from proto/ when a test starts, and what their errors say.

Debian's own Python has grpcio and protobuf as packages (deploy/install_packages.sh). Where another
Python comes first, the test begins anew in Debian's.
"""

import atexit
import importlib
import os
import shutil
import subprocess
import sys
import tempfile

from harness import REPOSITORY

DEBIAN_PYTHON = "/usr/bin/python3"

try:
    import grpc
except ModuleNotFoundError:
    if os.path.realpath(sys.executable) != os.path.realpath(DEBIAN_PYTHON):
        os.execv(DEBIAN_PYTHON, [DEBIAN_PYTHON, *sys.argv])
    raise

import google

PROTO = os.path.join(REPOSITORY, "proto")
PROTOS = ("google/rpc/error_details", "google/rpc/status", "nibble/v1/generation",
          "nibble/v1/memory", "nibble/v1/model", "nibble/v1/plan")


def generate(directory):
    """Writes the modules of all .proto files to `directory`, and makes them importable."""
    plugin = shutil.which("grpc_python_plugin")
    if plugin is None or shutil.which("protoc") is None:
        sys.exit("protoc and grpc_python_plugin are missing: deploy/install_packages.sh")
    subprocess.run(
        ["protoc", "-I", PROTO, f"--python_out={directory}", f"--grpc_out={directory}",
         f"--plugin=protoc-gen-grpc={plugin}", *(f"{stem}.proto" for stem in PROTOS)],
        cwd=PROTO, check=True)
    sys.path.insert(0, directory)
    google.__path__.append(os.path.join(directory, "google"))


_directory = tempfile.mkdtemp(prefix="nibble-stubs-")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
generate(_directory)

memory_pb2 = importlib.import_module("nibble.v1.memory_pb2")
model_pb2 = importlib.import_module("nibble.v1.model_pb2")
plan_pb2 = importlib.import_module("nibble.v1.plan_pb2")
generation_pb2 = importlib.import_module("nibble.v1.generation_pb2")
error_details_pb2 = importlib.import_module("google.rpc.error_details_pb2")
status_pb2 = importlib.import_module("google.rpc.status_pb2")


class Stubs:
    """A channel to a daemon and its services."""

    def __init__(self, address):
        # A channel of its own: grpcio shares connections of equal channels otherwise.
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1),
                              ("grpc.max_receive_message_length", 64 << 20)])
        self.models = importlib.import_module("nibble.v1.model_pb2_grpc").ModelServiceStub(
            self.channel)
        self.memory = importlib.import_module("nibble.v1.memory_pb2_grpc").MemoryServiceStub(
            self.channel)
        self.generation = importlib.import_module(
            "nibble.v1.generation_pb2_grpc").GenerationServiceStub(self.channel)

    def load(self, name, source, **fields):
        """Loads a model and waits; returns the READY model. Raises grpc.RpcError."""
        request = model_pb2.LoadModelRequest(model=name, source=source, **fields)
        last = None
        for event in self.models.LoadModel(request, timeout=120):
            last = event
        return last.model

    def unload(self, name, drain_seconds=None):
        request = model_pb2.UnloadModelRequest(model=name)
        if drain_seconds is not None:
            request.drain_timeout.FromNanoseconds(round(drain_seconds * 1e9))
        return self.models.UnloadModel(request, timeout=120).freed_bytes

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def details(error):
    """The messages of google.rpc.Status in an RpcError, by the last part of their names."""
    found = {}
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            name = detail.type_url.rsplit(".", 1)[-1]
            message = getattr(error_details_pb2, name)()
            detail.Unpack(message)
            found[name] = message
    return found


def bad_field(error):
    """The field that a BadRequest names, or None."""
    request = details(error).get("BadRequest")
    return request.field_violations[0].field if request is not None else None


def reason(error):
    """The reason of the error's ErrorInfo, or None."""
    info = details(error).get("ErrorInfo")
    return info.reason if info is not None else None
