"""Bad checkpoints and bad requests: each is an error that names the thing, and the next load works."""

import json
import os
import resource
import shutil
import struct
import sys

from harness import DEMO, Case, Daemon, main, nibble

SHARD = "model.safetensors"


def header_of(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def rewrite_header(path, change):
    """Replaces the header by what `change` makes of it; the data stay."""
    header, data_offset = header_of(path)
    with open(path, "rb") as file:
        file.seek(data_offset)
        data = file.read()
    text = change(header)
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


class BadInputTest(Case):
    """One daemon for all; after each refusal its ledger is empty and a good load works."""

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--vram-budget", "256MiB", "--staging", "8MiB")

    @classmethod
    def tearDownClass(cls):
        code = cls.daemon.stop()
        cls.daemon.close()
        assert code == 0, code

    def refuse(self, source, *words, flags=(), name="bad"):
        answer = self.assert_refused(self.daemon.load(name, source, *flags), *words)
        self.assert_ledger_empty(self.daemon)
        return answer

    def copy(self):
        """A small checkpoint of one file, to be spoilt."""
        target = self.path("checkpoint")
        shutil.copytree(os.path.join(os.path.dirname(DEMO), "models", "qwen2"), target)
        return target, os.path.join(target, SHARD)

    def tearDown(self):
        self.assert_done(self.daemon.load("good", DEMO))
        self.assert_done(self.daemon.run("unload", "good"))
        self.assert_ledger_empty(self.daemon)

    # Requests.

    def test_a_missing_source(self):
        self.refuse("/no/such/checkpoint", "NOT_FOUND", "/no/such/checkpoint")

    def test_a_block_size_that_is_none(self):
        self.refuse(DEMO, "INVALID_ARGUMENT", "block_size", "48", flags=["--block-size", "48"])

    def test_names_that_are_none(self):
        for name in ("a\nb", "a\x1bb", " a", "-a", "a b", "x" * 129, ".a", "ä"):
            answer = nibble("load", "--address", self.daemon.address, "--", name, DEMO)
            self.assert_refused(answer, "INVALID_ARGUMENT")
            self.assertTrue(all(c.isprintable() or c == "\n" for c in answer.err), repr(answer.err))

    def test_a_source_with_control_characters(self):
        self.refuse("models/\x07bell", "INVALID_ARGUMENT")

    def test_a_glob_that_matches_nothing(self):
        self.refuse(DEMO, "INVALID_ARGUMENT", "nothing.*", flags=["--keep", "nothing.*"])

    def test_a_ratio_that_is_not_reached(self):
        self.refuse(DEMO, "FAILED_PRECONDITION", "min_quantized_ratio",
                    flags=["--min-quantized-ratio", "1"])

    def test_what_comes_later(self):
        for flags in (["--keep-alive", "5m"], ["--when-full", "wait"],
                      ["--when-full", "EVICT_IDLE"]):
            self.refuse(DEMO, "UNIMPLEMENTED", flags=flags)

    def test_positive_scales_without_a_search(self):
        self.refuse(DEMO, "INVALID_ARGUMENT", "positive_scales", flags=["--positive-scales"])

    def test_unknown_models(self):
        self.assert_refused(self.daemon.run("unload", "nobody"), "NOT_FOUND", "nobody")
        self.assert_refused(self.daemon.run("ps", "--report", "nobody"), "NOT_FOUND", "nobody")

    # Files.

    def test_an_empty_directory(self):
        os.mkdir(self.path("empty"))
        self.refuse(self.path("empty"), "NOT_FOUND", "config.json")

    def test_a_file_in_place_of_a_directory(self):
        self.refuse(os.path.join(DEMO, "config.json"), "INVALID_ARGUMENT")

    def test_a_config_without_model_type(self):
        source, _ = self.copy()
        self.write("checkpoint/config.json", '{"hidden_size": 64}')
        self.refuse(source, "DATA_LOSS", "config.json", "model_type")

    def test_a_foreign_quant_method(self):
        source, _ = self.copy()
        with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
        self.write("checkpoint/config.json", json.dumps(config))
        self.refuse(source, "UNIMPLEMENTED", "gptq")

    def test_a_truncated_shard(self):
        source, shard = self.copy()
        os.truncate(shard, os.path.getsize(shard) - 1)
        self.refuse(source, "DATA_LOSS", SHARD)

    def test_a_missing_shard(self):
        source = self.path("missing")
        shutil.copytree(DEMO, source)
        os.remove(os.path.join(source, "model-00002-of-00003.safetensors"))
        self.refuse(source, "model-00002-of-00003.safetensors")

    def test_an_index_that_leads_out(self):
        source = self.path("out")
        shutil.copytree(DEMO, source)
        index = os.path.join(source, "model.safetensors.index.json")
        with open(index, encoding="utf-8") as file:
            contents = json.load(file)
        contents["weight_map"]["model.norm.weight"] = "../x"
        with open(index, "w", encoding="utf-8") as file:
            json.dump(contents, file)
        self.refuse(source, "../x")

    def test_an_unknown_dtype(self):
        source, shard = self.copy()

        def change(header):
            header["model.norm.weight"]["dtype"] = "Q7"
            return header

        rewrite_header(shard, change)
        self.refuse(source, "DATA_LOSS", SHARD, "model.norm.weight", "Q7")

    def test_a_duplicate_tensor(self):
        source, shard = self.copy()

        def change(header):
            entry = json.dumps(header["model.norm.weight"])
            return (json.dumps(header)[:-1] + f', "model.norm.weight": {entry}}}').encode()

        rewrite_header(shard, change)
        self.refuse(source, "DATA_LOSS", "model.norm.weight")

    def test_a_declared_size_beyond_the_file(self):
        source, shard = self.copy()

        def change(header):
            header["model.norm.weight"]["data_offsets"][1] += 1 << 40
            return header

        rewrite_header(shard, change)
        self.refuse(source, "DATA_LOSS", SHARD)

    def test_a_declared_shape_that_overflows(self):
        source, shard = self.copy()

        def change(header):
            header["model.norm.weight"]["shape"] = [1 << 40, 1 << 40]
            return header

        rewrite_header(shard, change)
        self.refuse(source, "DATA_LOSS", SHARD, "model.norm.weight")

    def test_infinity_in_a_tensor(self):
        source, shard = self.copy()
        header, data_offset = header_of(shard)
        name = next(n for n in sorted(header) if n.endswith("q_proj.weight"))
        self.assertIn(header[name]["dtype"], ("BF16", "F16"))
        infinity = {"BF16": b"\x80\x7f", "F16": b"\x00\x7c"}[header[name]["dtype"]]
        with open(shard, "r+b") as file:
            file.seek(data_offset + header[name]["data_offsets"][0] + 2 * 77)
            file.write(infinity)
        self.refuse(source, "DATA_LOSS", name, "77")
        self.assert_done(self.daemon.load("inf", source, "--allow-non-finite"))
        self.assert_done(self.daemon.run("unload", "inf"))

    def test_a_link_out_of_the_root(self):
        root = self.path("root")
        os.mkdir(root)
        os.symlink(DEMO, os.path.join(root, "out"))
        with Daemon("--vram-budget", "256MiB", roots=[root]) as daemon:
            self.assert_refused(daemon.load("m", "out"), "out")
            self.assert_refused(daemon.load("m", DEMO), DEMO)

    def test_synth_says_what_is_wrong(self):
        self.assert_refused(nibble("synth", "llama-9b", self.path("x")), "NOT_FOUND", "llama-8b")
        self.assert_refused(nibble("synth", "llama-tiny", DEMO), "ALREADY_EXISTS")
        self.assert_refused(nibble("synth", "llama-tiny", "/proc/x"), "/proc/x")

    def test_synth_under_a_limit_of_file_sizes_leaves_nothing(self):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # For children, too.
        try:
            answer = nibble("synth", "llama-tiny", self.path("x"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assert_refused(answer, "RESOURCE_EXHAUSTED", "no space left")
        self.assertFalse(os.path.exists(self.path("x")))


if __name__ == "__main__":
    sys.exit(main())
