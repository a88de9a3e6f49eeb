#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "kernels/step_ops.h"
#include "server/command_line/bench_device.h"
#include "server/command_line/bench_figures.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/local_source.h"
#include "server/command_line/memory_read_rate.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

struct BenchLinearOptions {
  std::string device = "host";
  size_t format = 0;  // Index into kFormats.
  int64_t block_size = kBlockSizeDefault;
  int64_t output_features = 8192;  // N
  int64_t input_features = 2048;   // K
  ProductOptions products = {Arithmetic::kBf16, false};
  int64_t runs = 9;
  bool json = false;
};

constexpr MatrixFormat kFormats[] = {MatrixFormat::kNf4, MatrixFormat::kFp4, MatrixFormat::kBf16,
                                     MatrixFormat::kF16};
constexpr const char* kFormatNames[] = {"NF4", "FP4", "BF16", "F16"};
constexpr int64_t kRowCounts[] = {1, 2, 4, 8, 16, 32, 64, 128, 512};  // M

// So many matrices that each is read from memory, not from a cache.
constexpr int64_t kMatrixBytesMin = 512_MiB;

// Matrices and activations in device memory under one reservation.
struct LinearSubject {
  BenchMemory bench;
  std::vector<LinearArgs> products;  // One with each matrix; rows are set for each table row.
  DeviceSpan live;
  int64_t matrix_bytes = 0;  // Of one.
};

// Random bits are codes, and bf16 or fp16 numbers if their exponents are cut; scales of weights.
absl::Status FillMatrices(LinearSubject& subject, DeviceSpan codes, DeviceSpan scales,
                          DeviceSpan source) {
  std::mt19937_64 random(1);
  std::vector<uint64_t> bits(1 << 17);
  for (uint64_t& word : bits) {
    word = random() & 0xbfffbfffbfffbfffu;
  }
  const std::vector<float> some_scales(1 << 18, 0.01f);
  const std::vector<float> ones(1 << 18, 1.0f);
  Queue& queue = *subject.bench.queue;
  absl::Status status = FillWith(queue, std::as_bytes(std::span(bits)), codes);
  status.Update(FillWith(queue, std::as_bytes(std::span(some_scales)), scales));
  status.Update(FillWith(queue, std::as_bytes(std::span(ones)), source));
  status.Update(queue.Synchronize());
  return status;
}

absl::StatusOr<LinearSubject> MakeSubject(const BenchLinearOptions& options) {
  constexpr int64_t kRowsMax = kRowCounts[std::size(kRowCounts) - 1];
  MatrixShape shape;
  shape.format = kFormats[options.format];
  shape.rows = options.output_features;
  shape.columns = options.input_features;
  shape.block_size = options.block_size;
  const bool four_bit = IsFourBit(shape.format);
  const int64_t elements = shape.element_count();
  const int64_t data_bytes = four_bit ? CodeBytes(elements) : 2 * elements;
  const int64_t scale_bytes = four_bit ? ScaleBytes(elements, shape.block_size) : 0;
  LinearSubject subject;
  subject.matrix_bytes = data_bytes + scale_bytes;
  const int64_t count = CeilDivide(kMatrixBytesMin, subject.matrix_bytes);
  const int64_t data_all = RoundUp(count * RoundUp(data_bytes, 256), 256);
  const int64_t scales_all = RoundUp(count * RoundUp(scale_bytes, 256), 256);
  const int64_t source_bytes = RoundUp(kRowsMax * shape.columns * 4, 256);
  const int64_t target_bytes = RoundUp(kRowsMax * shape.rows * 4, 256);
  const int64_t total = data_all + scales_all + source_bytes + target_bytes + 256;
  absl::StatusOr<BenchMemory> bench = OpenBenchMemory(options.device, total);
  if (!bench.ok()) {
    return bench.status();
  }
  subject.bench = *std::move(bench);
  const DeviceSpan all = subject.bench.memory.span();
  const DeviceSpan scales = all.Slice(data_all, scales_all);
  const DeviceSpan source = all.Slice(data_all + scales_all, source_bytes);
  const DeviceSpan target = all.Slice(data_all + scales_all + source_bytes, target_bytes);
  subject.live = all.Slice(data_all + scales_all + source_bytes + target_bytes, 4);
  for (int64_t index = 0; index < count; ++index) {
    LinearArgs args;
    args.weight.shape = shape;
    args.weight.planes.data =
        all.address() + static_cast<uint64_t>(index * RoundUp(data_bytes, 256));
    args.weight.planes.scales =
        four_bit ? scales.address() + static_cast<uint64_t>(index * RoundUp(scale_bytes, 256)) : 0;
    args.source = DenseRows(source, shape.columns);
    args.target = DenseRows(target, shape.rows);
    args.products = options.products;
    subject.products.push_back(args);
  }
  if (absl::Status status = FillMatrices(subject, all.Slice(0, data_all), scales, source);
      !status.ok()) {
    return status;
  }
  return subject;
}

// Multiplies with every matrix once.
absl::StatusOr<absl::Duration> TimeProducts(LinearSubject& subject, int64_t row_count) {
  const auto live = static_cast<int32_t>(row_count);
  absl::Status status =
      subject.bench.queue->CopyToDevice(std::as_bytes(std::span(&live, 1)), subject.live);
  status.Update(subject.bench.queue->Synchronize());
  const absl::Time start = absl::Now();
  for (LinearArgs& args : subject.products) {
    args.rows = {row_count, subject.live};
    status.Update(subject.bench.device->step_ops().Linear(*subject.bench.queue, args));
  }
  status.Update(subject.bench.queue->Synchronize());
  const absl::Duration time = absl::Now() - start;
  if (!status.ok()) {
    return status;
  }
  return time;
}

// Of one number of rows, one figure a run.
struct LinearFigures {
  int64_t row_count = 0;
  std::vector<double> microseconds;  // Of one product.
  std::vector<double> read_shares;   // Of the rate at which the machine reads memory.
};

absl::StatusOr<std::vector<LinearFigures>> Measure(LinearSubject& subject,
                                                   const BenchLinearOptions& options) {
  const MemoryReader reader(kMatrixBytesMin, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<LinearFigures> table;
  for (const int64_t row_count : kRowCounts) {
    table.push_back({row_count, {}, {}});
  }
  for (int64_t run = 0; run <= options.runs; ++run) {
    for (LinearFigures& figures : table) {
      const absl::StatusOr<absl::Duration> time = TimeProducts(subject, figures.row_count);
      if (!time.ok()) {
        return time.status();
      }
      const absl::Duration read_time = reader.TimeRead();
      if (run == 0) {
        continue;  // Only warms up.
      }
      const auto count = static_cast<double>(subject.products.size());
      const double seconds = absl::ToDoubleSeconds(*time) / count;
      const double read_rate =
          static_cast<double>(reader.bytes()) / absl::ToDoubleSeconds(read_time);
      figures.microseconds.push_back(seconds * 1e6);
      figures.read_shares.push_back(static_cast<double>(subject.matrix_bytes) / seconds /
                                    read_rate);
    }
  }
  return table;
}

void PrintTable(const BenchLinearOptions& options, const LinearSubject& subject,
                const std::vector<LinearFigures>& figures) {
  using Align = TextTable::Align;
  TextTable table({Align::kRight, Align::kRight, Align::kRight, Align::kRight, Align::kRight,
                   Align::kRight, Align::kRight});
  table.AddRow({"M", "US", "MIN", "MAX", "GB/S", "OF READ", "GFLOP/S"});
  for (const LinearFigures& row : figures) {
    const Spread time = SpreadOf(row.microseconds);
    const double operations = 2.0 * static_cast<double>(row.row_count) *
                              static_cast<double>(options.output_features) *
                              static_cast<double>(options.input_features);
    table.AddRow(
        {absl::StrCat(row.row_count), absl::StrFormat("%.1f", time.median),
         absl::StrFormat("%.1f", time.least), absl::StrFormat("%.1f", time.most),
         absl::StrFormat("%.2f", static_cast<double>(subject.matrix_bytes) / time.median * 1e-3),
         absl::StrFormat("%.2f", SpreadOf(row.read_shares).median),
         absl::StrFormat("%.0f", operations / time.median * 1e-3)});
  }
  std::printf(
      "products with a matrix of %lld x %lld in %s on %s (%s), %s each, %zu of them from memory\n"
      "medians and spread of %lld runs; GB/s of weights; OF READ: of the rate at which all cores "
      "read\n%s",
      static_cast<long long>(options.output_features),
      static_cast<long long>(options.input_features), kFormatNames[options.format],
      subject.bench.device->name().c_str(), subject.bench.device->description().c_str(),
      FormatData(subject.matrix_bytes).c_str(), subject.products.size(),
      static_cast<long long>(options.runs), table.Render("  ").c_str());
}

void PrintJson(const BenchLinearOptions& options, const LinearSubject& subject,
               const std::vector<LinearFigures>& figures) {
  std::string rows;
  for (const LinearFigures& row : figures) {
    const Spread time = SpreadOf(row.microseconds);
    absl::StrAppend(
        &rows, rows.empty() ? "" : ", ",
        absl::StrFormat("{\"m\": %d, \"microseconds\": {\"median\": %.6g, \"min\": %.6g, "
                        "\"max\": %.6g}, \"share_of_read\": %.6g}",
                        row.row_count, time.median, time.least, time.most,
                        SpreadOf(row.read_shares).median));
  }
  std::printf(
      "{\"bench\": \"linear\", \"device\": \"%s\", \"format\": \"%s\", \"n\": %lld, \"k\": %lld, "
      "\"matrix_bytes\": %lld, \"runs\": %lld, \"rows\": [%s]}\n",
      subject.bench.device->name().c_str(), kFormatNames[options.format],
      static_cast<long long>(options.output_features),
      static_cast<long long>(options.input_features), static_cast<long long>(subject.matrix_bytes),
      static_cast<long long>(options.runs), rows.c_str());
}

int RunBenchLinear(const BenchLinearOptions& options) {
  absl::StatusOr<LinearSubject> subject = MakeSubject(options);
  if (!subject.ok()) {
    return ReportFailure(subject.status());
  }
  const absl::StatusOr<std::vector<LinearFigures>> figures = Measure(*subject, options);
  if (!figures.ok()) {
    return ReportFailure(figures.status());
  }
  (options.json ? PrintJson : PrintTable)(options, *subject, *figures);
  return kExitDone;
}

}  // namespace

Command BenchLinearCommand() {
  auto options = std::make_shared<BenchLinearOptions>();
  BenchLinearOptions* raw = options.get();
  Command command;
  command.name = "bench linear";
  command.summary = "times products with weight matrices beside the machine's memory";
  command.description =
      "Multiplies 1 to 512 rows of activations with matrices that lie in memory, as a model's "
      "layers do, and between them reads memory with all cores. Prints the time of a product, the "
      "rate at which weights are read, and its share of the machine's.";
  command.examples = {"nibble bench linear", "nibble bench linear --n 28672 --k 8192",
                      "nibble bench linear --format BF16 --n 32000"};
  command.groups = {
      {"What to measure",
       {ChoiceSetting("format", "The format of the matrices.", {"NF4", "FP4", "BF16", "F16"}, 0,
                      [raw](size_t index) { raw->format = index; }),
        CountSetting("n", "Output features.", "8192", 1, 1 << 20,
                     [raw](int64_t count) { raw->output_features = count; }),
        CountSetting("k", "Input features.", "2048", 1, 1 << 20,
                     [raw](int64_t count) { raw->input_features = count; }),
        CountSetting("block-size", "Weights that share a scale.", "64", kBlockSizeMin,
                     kBlockSizeMax, [raw](int64_t size) { raw->block_size = size; }),
        ChoiceSetting("arithmetic", "As of `nibble serve`.", {"fp32", "bf16"}, 1,
                      [raw](size_t index) {
                        raw->products.arithmetic =
                            index == 0 ? Arithmetic::kFp32 : Arithmetic::kBf16;
                      }),
        SwitchSetting("batch-invariant", "As of `nibble serve`.",
                      &options->products.batch_invariant),
        CountSetting("runs", "Runs of each.", "9", 1, 1000,
                     [raw](int64_t runs) { raw->runs = runs; }),
        DeviceSetting("The device to run on.", &options->device), JsonSetting(&options->json)}},
  };
  command.run = [options] { return RunBenchLinear(*options); };
  return command;
}

}  // namespace nibble
