#include "server/command_line/bench_figures.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/check.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

constexpr double kGigabyte = 1e9;

Spread RatesOf(const BenchRow& row, double bytes) {
  std::vector<double> rates;
  rates.reserve(row.seconds.size());
  for (const double seconds : row.seconds) {
    rates.push_back(bytes / seconds / kGigabyte);
  }
  return SpreadOf(std::move(rates));
}

// How the first row's rate stands to this row's: the median of the runs' own ratios, because both
// were measured next to each other in each run.
double ShareOf(const BenchRow& first, const BenchRow& row) {
  std::vector<double> shares;
  for (size_t run = 0; run < std::min(first.seconds.size(), row.seconds.size()); ++run) {
    shares.push_back(row.seconds[run] / first.seconds[run]);
  }
  return SpreadOf(std::move(shares)).median;
}

// How this row stands to the first: as above, of rates.
double MultipleOf(const RateRow& first, const RateRow& row) {
  std::vector<double> multiples;
  for (size_t run = 0; run < std::min(first.rates.size(), row.rates.size()); ++run) {
    multiples.push_back(row.rates[run] / first.rates[run]);
  }
  return SpreadOf(std::move(multiples)).median;
}

std::string SpreadJson(const Spread& spread) {
  return absl::StrFormat("{\"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", spread.median,
                         spread.least, spread.most);
}

}  // namespace

Spread SpreadOf(std::vector<double> samples) {
  Check(!samples.empty(), "something was measured");
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  const double median =
      samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
  return {median, samples.front(), samples.back()};
}

std::string RenderBench(const std::vector<BenchRow>& rows, double bytes) {
  using Align = TextTable::Align;
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
                   Align::kRight, Align::kLeft});
  table.AddRow({"", "MEDIAN", "GB/S", "MIN", "MAX", absl::StrCat(rows.front().name, " IS"), ""});
  for (const BenchRow& row : rows) {
    const Spread rates = RatesOf(row, bytes);
    table.AddRow({row.name, absl::StrFormat("%.3f s", SpreadOf(row.seconds).median),
                  absl::StrFormat("%.2f", rates.median), absl::StrFormat("%.2f", rates.least),
                  absl::StrFormat("%.2f", rates.most),
                  absl::StrFormat("%.2f", ShareOf(rows.front(), row)), row.meaning});
  }
  return table.Render("  ");
}

std::string BenchJson(const std::vector<BenchRow>& rows, double bytes, const std::string& extra) {
  std::string json = absl::StrFormat("{%s\"bytes\": %.0f, \"runs\": %d, \"rows\": {", extra, bytes,
                                     rows.front().seconds.size());
  for (const BenchRow& row : rows) {
    absl::StrAppend(&json, &row == &rows.front() ? "" : ", ", "\"", row.name,
                    "\": {\"seconds\": ", SpreadJson(SpreadOf(row.seconds)),
                    ", \"gb_per_second\": ", SpreadJson(RatesOf(row, bytes)),
                    absl::StrFormat(", \"share_of_first\": %.6g}", ShareOf(rows.front(), row)));
  }
  return absl::StrCat(json, "}}\n");
}

std::string RenderRates(const std::vector<RateRow>& rows, const std::string& unit) {
  using Align = TextTable::Align;
  TextTable table(
      {Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.AddRow({"", unit, "MIN", "MAX", absl::StrCat("OF ", rows.front().name), ""});
  for (const RateRow& row : rows) {
    const Spread rates = SpreadOf(row.rates);
    table.AddRow({row.name, absl::StrFormat("%.1f", rates.median),
                  absl::StrFormat("%.1f", rates.least), absl::StrFormat("%.1f", rates.most),
                  absl::StrFormat("%.2f", MultipleOf(rows.front(), row)), row.meaning});
  }
  return table.Render("  ");
}

std::string RatesJson(const std::vector<RateRow>& rows, const std::string& key,
                      const std::string& extra) {
  std::string json =
      absl::StrFormat("{%s\"runs\": %d, \"rows\": {", extra, rows.front().rates.size());
  for (const RateRow& row : rows) {
    absl::StrAppend(
        &json, &row == &rows.front() ? "" : ", ", "\"", row.name, "\": {\"", key,
        "\": ", SpreadJson(SpreadOf(row.rates)),
        absl::StrFormat(", \"multiple_of_first\": %.6g}", MultipleOf(rows.front(), row)));
  }
  return absl::StrCat(json, "}}\n");
}

}  // namespace nibble
