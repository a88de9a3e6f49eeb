#include <sched.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "kernels/ops.h"
#include "server/command_line/bench_device.h"
#include "server/command_line/bench_figures.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/local_source.h"

namespace nibble {
namespace {

struct BenchQuantizeOptions {
  std::string device = "host";
  size_t format = 0;  // Index into kFormats.
  int64_t block_size = kBlockSizeDefault;
  int64_t source_bytes = 256_MiB;
  int64_t runs = 9;
  bool json = false;
};

constexpr Codebook kCodebooks[] = {Codebook::kNf4, Codebook::kFp4};

// Source, its copy, and the planes, in device memory under one reservation.
struct QuantizeSubject {
  BenchMemory bench;
  DeviceSpan copy;
  QuantizeArgs args;
};

// Keeps this thread, and the device's threads that it starts, on one core, so that the figure is
// one core's.
absl::Status StayOnOneCore() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return absl::ErrnoToStatus(errno, "sched_getaffinity");
  }
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(core, &one);
      return sched_setaffinity(0, sizeof(one), &one) == 0
                 ? absl::OkStatus()
                 : absl::ErrnoToStatus(errno, "sched_setaffinity");
    }
  }
  return absl::InternalError("this process may run on no core");
}

// Normal values in bf16, as weights are. A million of them, repeated: the quantizer's speed does
// not depend on what stands far apart.
absl::Status FillSource(Queue& queue, DeviceSpan source) {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<uint16_t> values(1 << 20);
  for (uint16_t& value : values) {
    const float number = normal(random);
    uint32_t bits = 0;
    std::memcpy(&bits, &number, sizeof(bits));
    value = static_cast<uint16_t>(bits >> 16);
  }
  absl::Status status = FillWith(queue, std::as_bytes(std::span(values)), source);
  status.Update(queue.Synchronize());
  return status;
}

absl::StatusOr<QuantizeSubject> MakeSubject(const BenchQuantizeOptions& options) {
  const int64_t elements = options.source_bytes / 2;
  const int64_t source_bytes = RoundUp(options.source_bytes, 256);
  const int64_t code_bytes = RoundUp(CodeBytes(elements), 256);
  const int64_t scale_bytes = RoundUp(ScaleBytes(elements, options.block_size), 256);
  const int64_t total = 2 * source_bytes + code_bytes + scale_bytes + 256;
  QuantizeSubject subject;
  absl::StatusOr<BenchMemory> bench = OpenBenchMemory(options.device, total);
  if (!bench.ok()) {
    return bench.status();
  }
  subject.bench = *std::move(bench);
  const DeviceSpan all = subject.bench.memory.span();
  subject.copy = all.Slice(source_bytes, 2 * elements);
  subject.args = {
      .codebook = kCodebooks[options.format],
      .block_size = options.block_size,
      .source_type = FloatType::kBf16,
      .element_count = elements,
      .source = all.Slice(0, 2 * elements),
      .codes = all.Slice(2 * source_bytes, CodeBytes(elements)),
      .scales = all.Slice(2 * source_bytes + code_bytes, ScaleBytes(elements, options.block_size)),
      .first_non_finite = all.Slice(2 * source_bytes + code_bytes + scale_bytes, sizeof(uint64_t))};
  if (absl::Status status = FillSource(*subject.bench.queue, subject.args.source); !status.ok()) {
    return status;
  }
  return subject;
}

template <typename Work>
absl::Status Time(Queue& queue, const Work& work, std::vector<double>& seconds) {
  const absl::Time start = absl::Now();
  absl::Status status = work();
  if (status.ok()) {
    status = queue.Synchronize();
  }
  seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  return status;
}

// Quantizes and copies in turn; the first of each is not counted, it only warms up.
absl::StatusOr<std::vector<BenchRow>> Measure(QuantizeSubject& subject,
                                              const BenchQuantizeOptions& options) {
  std::vector<BenchRow> rows = {
      {"quantize", "bf16 to 4 bits and scales, NaN and Inf looked for", {}},
      {"copy", "the same bytes of source, memory to memory", {}}};
  for (int64_t run = 0; run <= options.runs; ++run) {
    absl::Status status = Time(
        *subject.bench.queue,
        [&] { return subject.bench.device->ops().Quantize(*subject.bench.queue, subject.args); },
        rows[0].seconds);
    if (status.ok()) {
      status = Time(
          *subject.bench.queue,
          [&] { return subject.bench.queue->CopyOnDevice(subject.args.source, subject.copy); },
          rows[1].seconds);
    }
    if (!status.ok()) {
      return status;
    }
  }
  for (BenchRow& row : rows) {
    row.seconds.erase(row.seconds.begin());
  }
  return rows;
}

int RunBenchQuantize(const BenchQuantizeOptions& options) {
  if (absl::Status status = StayOnOneCore(); !status.ok()) {
    return ReportFailure(status);
  }
  absl::StatusOr<QuantizeSubject> subject = MakeSubject(options);
  if (!subject.ok()) {
    return ReportFailure(subject.status());
  }
  const absl::StatusOr<std::vector<BenchRow>> rows = Measure(*subject, options);
  if (!rows.ok()) {
    return ReportFailure(rows.status());
  }
  const auto bytes = static_cast<double>(subject->args.source.bytes());
  const char* format = options.format == 0 ? "NF4" : "FP4";
  if (options.json) {
    std::fputs(BenchJson(*rows, bytes,
                         absl::StrFormat("\"bench\": \"quantize\", \"device\": \"%s\", \"format\": "
                                         "\"%s\", \"block_size\": %d, ",
                                         subject->bench.device->name(), format, options.block_size))
                   .c_str(),
               stdout);
    return kExitDone;
  }
  std::printf(
      "%s from bf16 on %s (%s), %s of source, one core, blocks of %lld\n"
      "GB/s of source, %lld runs of each in turn\n%s",
      format, subject->bench.device->name().c_str(), subject->bench.device->description().c_str(),
      FormatData(subject->args.source.bytes()).c_str(), static_cast<long long>(options.block_size),
      static_cast<long long>(options.runs), RenderBench(*rows, bytes).c_str());
  return kExitDone;
}

}  // namespace

Command BenchQuantizeCommand() {
  auto options = std::make_shared<BenchQuantizeOptions>();
  BenchQuantizeOptions* raw = options.get();
  Command command;
  command.name = "bench quantize";
  command.summary = "times 4-bit quantization on one core beside memcpy";
  command.description =
      "Quantizes bf16 weights that lie in memory, on one core (or a GPU), and between the runs "
      "copies "
      "the same bytes. Prints GB/s of source, medians and spread, and which share of the copy's "
      "rate "
      "quantization reaches.";
  command.examples = {"nibble bench quantize",
                      "nibble bench quantize --format FP4 --block-size 128"};
  command.groups = {
      {"What to measure",
       {ChoiceSetting("format", "The format to quantize to.", {"NF4", "FP4"}, 0,
                      [raw](size_t index) { raw->format = index; }),
        CountSetting("block-size", "Weights that share a scale.", "64", kBlockSizeMin,
                     kBlockSizeMax, [raw](int64_t size) { raw->block_size = size; }),
        SizeSetting("bytes", "Source to quantize in each run; beyond the caches is honest.",
                    "256MiB",
                    [raw](int64_t bytes) {
                      raw->source_bytes = std::clamp<int64_t>(bytes / 2 * 2, 4_KiB, 64_GiB);
                    }),
        CountSetting("runs", "Runs of each.", "9", 1, 1000,
                     [raw](int64_t runs) { raw->runs = runs; }),
        DeviceSetting("The device to run on.", &options->device), JsonSetting(&options->json)}},
  };
  command.run = [options] { return RunBenchQuantize(*options); };
  return command;
}

}  // namespace nibble
