"""The benchmarks run and say what they mean. How fast is for tests/long.sh: `bench.py --bounds` runs
them at full size, prints what they print, and fails below what the project promises.
"""

import os
import sys

from harness import DEMO, Case, main, nibble


class BenchTest(Case):
    def test_load_prints_shares_of_the_machines_rates(self):
        answer = self.assert_done(
            nibble("bench", "load", "--shape", "llama-tiny", "--runs", "3", "--staging", "4MiB",
                   "--json", env={"TMPDIR": self.scratch}))
        result = answer.json()
        self.assertEqual(result["runs"], 3)
        self.assertEqual(result["page_cache_share"], 1)
        rows = result["rows"]
        self.assertEqual(list(rows), ["load", "read", "copy"])
        self.assertEqual(rows["load"]["share_of_first"], 1)
        for row in rows.values():
            rate = row["gb_per_second"]
            self.assertLessEqual(rate["min"], rate["median"])
            self.assertLessEqual(rate["median"], rate["max"])
            self.assertGreater(rate["min"], 0)
        self.assertEqual(os.listdir(self.scratch), [], "the checkpoint is removed")

    def test_quantize_prints_its_share_of_a_copy(self):
        answer = self.assert_done(
            nibble("bench", "quantize", "--runs", "3", "--bytes", "4MiB", "--json"))
        rows = answer.json()["rows"]
        self.assertEqual(list(rows), ["quantize", "copy"])
        self.assertGreater(rows["copy"]["share_of_first"], 0)

    def test_linear_prints_its_share_of_reading(self):
        answer = self.assert_done(
            nibble("bench", "linear", "--n", "256", "--k", "512", "--runs", "1", "--json"))
        result = answer.json()
        self.assertEqual([row["m"] for row in result["rows"]], [1, 2, 4, 8, 16, 32, 64, 128, 512])
        self.assertEqual(result["matrix_bytes"], 256 * 512 * 9 // 16)
        for row in result["rows"]:
            self.assertGreater(row["microseconds"]["min"], 0)
            self.assertGreater(row["share_of_read"], 0)

    def test_decode_and_prefill_print_tokens_a_second(self):
        for bench, arguments in (("decode", ["--tokens", "4"]), ("prefill", [])):
            for arithmetic in ("fp32", "bf16"):
                answer = self.assert_done(
                    nibble("bench", bench, "--runs", "2", "--prompt-tokens", "8", "--arithmetic",
                           arithmetic, "--json", DEMO, *arguments))
                result = answer.json()
                self.assertEqual(result["bench"], bench)
                self.assertEqual(result["runs"], 2)
                self.assertGreater(result["tokens_per_second"]["min"], 0)
                self.assertGreater(result["read_gb_per_second"]["min"], 0)
                self.assertEqual("share_of_read" in result, bench == "decode")


    def test_serve_prints_one_and_many_of_each_way(self):
        answer = self.assert_done(
            nibble("bench", "serve", "--shape", "llama-tiny", "--runs", "3", "--sequences", "4",
                   "--tokens", "8", "--json", env={"TMPDIR": self.scratch}))
        result = answer.json()
        self.assertEqual((result["runs"], result["sequences"], result["answer_tokens"]), (3, 4, 8))
        rows = result["rows"]
        self.assertEqual(list(rows), ["engine_1", "engine_4", "grpc_1", "grpc_4", "http_1",
                                      "http_4"])
        self.assertEqual(rows["engine_1"]["multiple_of_first"], 1)
        for row in rows.values():
            rate = row["tokens_per_second"]
            self.assertGreater(rate["min"], 0)
            self.assertLessEqual(rate["median"], rate["max"])
        self.assertEqual(os.listdir(self.scratch), [], "the checkpoint is removed")


# On a quiet machine with 2 cores, the checkpoint in the page cache.
LOAD_GB_PER_SECOND_MIN = 3.0
QUANTIZE_SHARE_OF_COPY_MIN = 0.4
SEQUENCES_32_OF_ONE_MIN = 3.0  # Tokens a second at the engine's API.


def check_bounds():
    """llama-8b from the page cache, NF4 from bf16 on one core beside memcpy, and answers of llama-1b,
    one and 32 at once; medians."""
    failures = 0

    def check(what, found, least):
        nonlocal failures
        failed = found < least
        failures += failed
        print(f"{what}: {found:.2f}, at least {least}: {'MISSED' if failed else 'kept'}", flush=True)

    load = run_bench("load", "--shape", "llama-8b")
    if load["page_cache_share"] < 1:
        print(f"only {load['page_cache_share']:.2f} of the checkpoint was in the page cache")
        failures += 1
    check("load, GB/s of source", load["rows"]["load"]["gb_per_second"]["median"],
          LOAD_GB_PER_SECOND_MIN)
    quantize = run_bench("quantize")
    check("NF4 from bf16, share of memcpy", quantize["rows"]["copy"]["share_of_first"],
          QUANTIZE_SHARE_OF_COPY_MIN)
    serve = run_bench("serve", "--shape", "llama-1b", "--sequences", "32")
    check("32 sequences at once, tokens/s as a multiple of one",
          serve["rows"]["engine_32"]["multiple_of_first"], SEQUENCES_32_OF_ONE_MIN)
    return 1 if failures else 0


def run_bench(*arguments):
    answer = nibble("bench", *arguments, "--json", timeout=1200)
    if answer.code != 0:
        sys.exit(f"nibble bench {' '.join(arguments)}: {answer}")
    print(answer.out, flush=True)
    return answer.json()


if __name__ == "__main__":
    sys.exit(check_bounds() if "--bounds" in sys.argv[1:] else main())
