"""The benchmarks run and say what they mean; how fast is for tests/long.sh."""

import os
import sys

from harness import Case, main, nibble


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


if __name__ == "__main__":
    sys.exit(main())
