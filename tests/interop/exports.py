"""Loads what `nibble export` writes with transformers and bitsandbytes, on the CPU. See README.md."""

import glob
import json
import math
import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import bitsandbytes  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402

import harness  # noqa: E402
import nf4  # noqa: E402

MODELS = os.path.join(harness.DATA, "models")
TRANSFORMERS_4 = transformers.__version__.startswith("4.")
FORMATS = {  # What a load is asked for, and what it is called here.
    "nf4": [],
    "nf4_dq": ["--double-quantization"],
    "fp4": ["--format", "fp4"],
    "nf4_128": ["--block-size", "128"],
    "nf4_search": ["--scale-search"],
}


def read(directory):
    """Every tensor of a checkpoint: 16-bit ones as torch has them, the rest as numpy arrays."""
    tensors = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.safetensors"))):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                assert name not in tensors, name
                tensors[name] = tensor if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return tensors


def quantized_names(tensors):
    return sorted({name.split(".quant_state.")[0] for name in tensors if ".quant_state." in name})


def equal(a, b):
    """To the bit; -0 is not 0."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def source_matrices(source):
    """The source's tensors in fp32 under the names of an export: fused experts taken apart."""
    matrices = {}
    for name, tensor in read(source).items():
        name = name.replace("model.language_model.", "model.")
        if name.startswith(("model.visual.", "mtp.")):
            continue
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            matrices[name] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            stem = name.replace("experts.", f"experts.{expert}.")
            if name.endswith("down_proj"):
                matrices[stem + ".weight"] = matrix
            else:
                gate, up = matrix.chunk(2)
                matrices[stem.replace("gate_up_proj", "gate_proj") + ".weight"] = gate
                matrices[stem.replace("gate_up_proj", "up_proj") + ".weight"] = up
    return matrices


class Report:
    def __init__(self):
        self.failures = []

    def check(self, holds, text):
        if not holds:
            self.failures.append(text)
            print("  FAILED", text)

    def note(self, text):
        print(" ", text)


class Export:
    """One model, loaded and exported by a daemon."""

    def __init__(self, report, daemon, source, form, root):
        self.report, self.daemon, self.source, self.form = report, daemon, source, form
        self.name = f"{os.path.basename(source)}-{form}"
        self.directory = os.path.join(root, self.name)
        print(self.name)
        answer = daemon.load(self.name, source, "--weights-only", *FORMATS[form])
        report.check(answer.code == 0, f"{self.name}: load: {answer}")
        answer = daemon.run("export", self.name, self.directory, "--json")
        report.check(answer.code == 0, f"{self.name}: export: {answer}")
        self.summary = answer.json()
        daemon.run("unload", self.name)
        self.tensors = read(self.directory)
        self.quantized = quantized_names(self.tensors)
        self.stored = {name: nf4.Stored(name, self.tensors) for name in self.quantized}

    def check_files(self):
        """The files against numpy: nothing of transformers or bitsandbytes."""
        matrices = source_matrices(self.source)
        straddling = 0
        for name, matrix in matrices.items():
            if name not in self.stored:
                kept = self.tensors[name]
                same = torch.equal(kept, matrix) if torch.is_tensor(kept) else equal(kept, matrix)
                self.report.check(same, f"{self.name}: {name} differs from the source")
                continue
            stored = self.stored[name]
            straddling += stored.straddles
            if self.form.startswith("nf4") and "search" not in self.form:
                codes, absmax = nf4.quantize_nf4(matrix.float().numpy(), stored.state["blocksize"])
                self.report.check(equal(stored.packed.reshape(-1), codes),
                                  f"{self.name}: codes of {name}")
                if stored.nested_map is None:
                    self.report.check(equal(stored.absmax, absmax), f"{self.name}: absmax of {name}")
        extra = [name for name in self.tensors
                 if name not in matrices and not any(name.startswith(q + ".") for q in self.quantized)]
        self.report.check(not extra, f"{self.name}: tensors that the source has not: {extra}")
        self.report.note(f"files: {len(self.quantized)} tensors in 4 bits, {straddling} of them with "
                         f"rows that straddle blocks, {len(matrices) - len(self.quantized)} kept")

    def check_dequantization(self):
        """Every tensor of the files through bitsandbytes, tensor by tensor."""
        straddling = 0
        for name, stored in self.stored.items():
            if stored.straddles:
                straddling += 1
                continue
            values = dequantize(self.tensors, name)
            self.report.check(equal(values, stored.dequantize()),
                              f"{self.name}: bitsandbytes dequantizes {name} differently")
        self.report.note(f"bitsandbytes dequantizes {len(self.stored) - straddling} tensors to the "
                         f"same bits ({straddling} left out: rows straddle blocks)")

    def check_model(self):
        """As transformers loads it."""
        model = transformers.AutoModelForCausalLM.from_pretrained(self.directory, dtype="auto")
        layers = {name + ".weight": module for name, module in model.named_modules()
                  if isinstance(module, bitsandbytes.nn.Linear4bit)}
        self.report.check(sorted(layers) == self.quantized,
                          f"{self.name}: 4-bit layers differ: {set(layers) ^ set(self.quantized)}")
        for name, module in layers.items():
            stored, state = self.stored[name], module.weight.quant_state
            self.report.check(equal(module.weight.data.numpy().reshape(-1), stored.packed.reshape(-1)),
                              f"{self.name}: loaded codes of {name}")
            if not stored.straddles:
                values = bitsandbytes.functional.dequantize_4bit(module.weight.data, as_fp32(state))
                self.report.check(equal(values.numpy(), stored.dequantize()),
                                  f"{self.name}: loaded weights of {name}")
        matrices = source_matrices(self.source)
        kept = 0
        for name, parameter in model.named_parameters():
            if name not in layers and name in matrices:
                kept += 1
                self.report.check(torch.equal(parameter.data.cpu(), torch.as_tensor(matrices[name])
                                              .to(parameter.dtype)), f"{self.name}: loaded {name}")
        self.report.note(f"transformers {transformers.__version__}: {len(layers)} 4-bit layers and "
                         f"{kept} kept tensors equal")
        return model

    def check_round_trip(self):
        """Into nibble again, and out."""
        again = self.name + "-again"
        answer = self.daemon.load(again, self.directory, "--weights-only")
        self.report.check(answer.code == 0, f"{self.name}: loading the export: {answer}")
        if answer.code != 0:
            return
        directory = self.directory + "-again"
        answer = self.daemon.run("export", again, directory, "--json")
        self.report.check(answer.code == 0, f"{again}: export: {answer}")
        self.daemon.run("unload", again)
        first, second = self.tensors, read(directory)
        self.report.check(first.keys() == second.keys(), f"{again}: other tensors")
        for name, tensor in first.items():
            same = (torch.equal(tensor, second[name]) if torch.is_tensor(tensor)
                    else equal(tensor, second[name]))
            self.report.check(same, f"{again}: {name} differs")
        config = [json.load(open(os.path.join(path, "config.json"), encoding="utf-8"))
                  for path in (self.directory, directory)]
        self.report.check(config[0] == config[1], f"{again}: config.json differs")
        self.report.note(f"round trip through nibble: {len(second)} tensors equal")


def as_fp32(state):
    """The state of a layer, to be dequantized without a rounding to 16 bits."""
    state.dtype = torch.float32
    return state


def dequantize(tensors, name):
    own = {key: torch.as_tensor(value) for key, value in tensors.items()
           if key.startswith(name + ".")}
    state = bitsandbytes.functional.QuantState.from_dict(own, device=torch.device("cpu"))
    packed = torch.as_tensor(tensors[name])
    return bitsandbytes.functional.dequantize_4bit(packed, as_fp32(state)).numpy()


def log_likelihoods(model, directory):
    """Of each held-out text, and how many tokens were predicted."""
    # By its file: the classes that tokenizer_config.json names differ between versions.
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=os.path.join(directory, "tokenizer.json"))
    with open(os.path.join(harness.DEMO, "heldout.jsonl"), encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    found, tokens = [], 0
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt").input_ids
            scores = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
            found.append(scores.gather(1, ids[0, 1:, None]).double().sum().item())
            tokens += ids.shape[1] - 1
    return found, tokens


def load_dequantized(directory):
    """In fp32, with the weights that bitsandbytes makes of the loaded layers: what expected.json was
    computed from. (Its own products on the CPU round weights to bf16.)"""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for name, module in list(model.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(
                module.weight.data, as_fp32(module.weight.quant_state))
            layer = torch.nn.Linear(*reversed(weight.shape), bias=module.bias is not None)
            layer.weight.data = weight
            if module.bias is not None:
                layer.bias.data = module.bias.data.float()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
    return model


def check_perplexity(report, export, model):
    with open(os.path.join(harness.DEMO, "expected.json"), encoding="utf-8") as file:
        expected = json.load(file)["nf4"]
    for arithmetic, loaded in (("bitsandbytes' own, bf16", model),
                               ("fp32", load_dequantized(export.directory))):
        found, tokens = log_likelihoods(loaded, export.directory)
        report.check(tokens == expected["tokens"], f"{export.name}: {tokens} tokens")
        perplexity = math.exp(-sum(found) / tokens)
        error = abs(perplexity / expected["perplexity"] - 1)
        report.note(f"perplexity {perplexity:.9f} ({arithmetic}), expected "
                    f"{expected['perplexity']:.9f}: {100 * error:.6f} % apart")
        report.check(error < 0.001, f"{export.name}: perplexity {perplexity}")
    # Of equal weights only the order of additions is left.
    worst = max(abs(a - b) for a, b in zip(found, expected["log_likelihood_first8"]))
    report.note(f"fp32 log-likelihoods of the first 8 texts: at most {worst:.7f} apart")
    report.check(worst < 1e-3, f"{export.name}: log-likelihoods")


def main():
    torch.manual_seed(0)
    torch.set_num_threads(min(4, os.cpu_count() or 1))
    transformers.utils.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, bitsandbytes {bitsandbytes.__version__}, "
          f"torch {torch.__version__}")
    report = Report()
    root = tempfile.mkdtemp(prefix="nibble-interop-")
    try:
        with harness.Daemon("--export-root", root) as daemon:
            dense = [harness.DEMO] + [os.path.join(MODELS, name) for name in
                                      ("llama", "llama_tied_llama3rope", "qwen2", "qwen3", "gemma2",
                                       "llama_rows_not_multiple_of_64")]
            if not TRANSFORMERS_4:  # Which does not know it.
                dense.append(os.path.join(MODELS, "qwen3_5"))
            for source in dense:
                for form in FORMATS:
                    export = Export(report, daemon, source, form, root)
                    export.check_files()
                    export.check_dequantization()
                    model = export.check_model()
                    if source == harness.DEMO and form == "nf4":
                        check_perplexity(report, export, model)
                    export.check_round_trip()
            for name in ("mixtral", "qwen3_moe", "qwen3_5_moe"):
                export = Export(report, daemon, os.path.join(MODELS, name), "nf4", root)
                report.check(any("transformers 5" in text for text in export.summary["warnings"]),
                             f"{name}: nothing is said of transformers 5")
                export.check_files()
                export.check_dequantization()
                if TRANSFORMERS_4 and name != "qwen3_5_moe":
                    export.check_model()
                export.check_round_trip()
    finally:
        shutil.rmtree(root)
    print(f"{len(report.failures)} checks failed" if report.failures else "every check held")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
