// Figures of repeated measurements: what benchmarks print.

#pragma once

#include <string>
#include <vector>

namespace nibble {

struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

// Requires: samples is not empty.
Spread SpreadOf(std::vector<double> samples);

// One thing that was measured, in bytes a second, and how it stands to the first of its table.
struct BenchRow {
  std::string name;
  std::string meaning;
  std::vector<double> seconds;  // Of each run.
};

// Rates of the rows, each run moving `bytes`: medians and spread in GB/s, and what share of each
// other row's rate the first row reaches.
std::string RenderBench(const std::vector<BenchRow>& rows, double bytes);

// The same as one JSON object: {"bytes": ..., "runs": ..., "rows": {NAME: {"seconds": {...},
// "gb_per_second": {...}, "share_of_first": ...}}}. `extra` is put before it, as `"key": value, `.
std::string BenchJson(const std::vector<BenchRow>& rows, double bytes, const std::string& extra);

// One thing that was measured as a rate, whatever it moves.
struct RateRow {
  std::string name;
  std::string meaning;
  std::vector<double> rates;  // Of each run.
};

// Medians and spread in `unit`, and each row as a multiple of the first.
std::string RenderRates(const std::vector<RateRow>& rows, const std::string& unit);

// The same as one JSON object: {"runs": ..., "rows": {NAME: {KEY: {...}, "multiple_of_first":
// ...}}}. `extra` as above.
std::string RatesJson(const std::vector<RateRow>& rows, const std::string& key,
                      const std::string& extra);

}  // namespace nibble
