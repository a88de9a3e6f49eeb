#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "loader/load_plan.h"
#include "loader/quantizing_loader.h"
#include "loader/staging_ring.h"
#include "server/command_line/bench_device.h"
#include "server/command_line/bench_figures.h"
#include "server/command_line/bench_source.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/local_source.h"
#include "server/command_line/machine_rates.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

struct BenchLoadOptions {
  BenchSource::Options source;
  std::string device = "host";
  int64_t staging_bytes = kStagingBytesDefault;
  int64_t runs = 9;
  int64_t reader_threads = 0;
  bool json = false;
};

// Watches for Ctrl-C; a benchmark has no other use for progress.
class BenchObserver final : public LoadObserver {
 public:
  explicit BenchObserver(const InterruptGuard& interrupt) : interrupt_(interrupt) {}

  void OnProgress(const LoadProgress&) override {}
  bool cancelled() const override { return interrupt_.interrupted(); }

 private:
  const InterruptGuard& interrupt_;
};

// What is measured, and with what.
struct LoadSubject {
  Checkpoint checkpoint;
  std::shared_ptr<const LoadPlan> plan;
  std::vector<std::string> paths;  // Of the shards.
  std::unique_ptr<Device> device;
  int reader_count = 0;
};

absl::StatusOr<LoadSubject> OpenSubject(const BenchLoadOptions& options,
                                        const std::string& source) {
  LoadSubject subject;
  absl::StatusOr<Checkpoint> checkpoint = OpenLocalCheckpoint(source);
  if (!checkpoint.ok()) {
    return checkpoint.status();
  }
  subject.checkpoint = *std::move(checkpoint);
  ServingSpec serving;
  serving.weights_only = true;
  const DeviceTraits traits = *TraitsOf(options.device);
  absl::StatusOr<LoadPlan> plan =
      MakeLoadPlan(subject.checkpoint, {}, serving, traits, options.staging_bytes);
  if (!plan.ok()) {
    return plan.status();
  }
  subject.plan = std::make_shared<const LoadPlan>(*std::move(plan));
  for (const Shard& shard : subject.checkpoint.shards) {
    subject.paths.push_back((fs::absolute(source) / shard.file_name).string());
  }
  absl::StatusOr<std::unique_ptr<Device>> device =
      OpenBenchDevice(options.device, subject.plan->peak_bytes());
  if (!device.ok()) {
    return device.status();
  }
  subject.device = *std::move(device);
  subject.reader_count =
      ShapeStaging(traits, options.staging_bytes, static_cast<int>(options.reader_threads),
                   static_cast<int>(std::thread::hardware_concurrency()))
          .reader_count;
  return subject;
}

// One load within a budget of exactly its peak.
absl::StatusOr<absl::Duration> TimeLoad(const LoadSubject& subject,
                                        const InterruptGuard& interrupt) {
  VramBudget budget(subject.plan->peak_bytes());
  absl::StatusOr<VramBudget::Reservation> reservation =
      budget.Reserve("bench", subject.plan->peak());
  if (!reservation.ok()) {
    return reservation.status();
  }
  BenchObserver observer(interrupt);
  LoaderOptions loader;
  loader.reader_count = subject.reader_count;
  const absl::Time start = absl::Now();
  const LoadSource source{&subject.checkpoint, subject.plan};
  const absl::StatusOr<std::unique_ptr<Weights>> weights = LoadWeights(
      *subject.device, std::span(&source, 1), *std::move(reservation), loader, observer);
  const absl::Duration time = absl::Now() - start;
  if (!weights.ok()) {
    return weights.status();
  }
  return time;
}

absl::StatusOr<absl::Duration> TimeCopy(const LoadSubject& subject) {
  return subject.plan->traits.kind == DeviceKind::kCuda
             ? TimeDeviceCopy(*subject.device, subject.plan->source_bytes)
             : TimeMemoryCopy(subject.plan->source_bytes, subject.reader_count);
}

// Runs load, read and copy in turn, so that whatever else happens on the machine happens to all.
absl::StatusOr<std::vector<BenchRow>> Measure(const LoadSubject& subject, int64_t runs,
                                              const InterruptGuard& interrupt) {
  const bool cuda = subject.plan->traits.kind == DeviceKind::kCuda;
  std::vector<BenchRow> rows = {
      {"load", "read, quantized, resident", {}},
      {"read", absl::StrCat("pread alone, ", subject.reader_count, " threads"), {}},
      {"copy",
       cuda ? "host to device alone, page-locked"
            : absl::StrCat("memcpy alone, ", subject.reader_count, " threads"),
       {}}};
  for (int64_t run = 0; run < runs; ++run) {
    const absl::StatusOr<absl::Duration> times[] = {TimeLoad(subject, interrupt),
                                                    TimeRead(subject.paths, subject.reader_count),
                                                    TimeCopy(subject)};
    for (size_t index = 0; index < rows.size(); ++index) {
      if (!times[index].ok()) {
        return times[index].status();
      }
      rows[index].seconds.push_back(absl::ToDoubleSeconds(*times[index]));
    }
    if (interrupt.interrupted()) {
      return absl::CancelledError("interrupted");
    }
  }
  return rows;
}

int Print(const BenchLoadOptions& options, const std::string& source, const LoadSubject& subject,
          double resident, const std::vector<BenchRow>& rows) {
  const auto bytes = static_cast<double>(subject.plan->source_bytes);
  if (options.json) {
    std::fputs(
        BenchJson(rows, bytes,
                  absl::StrFormat("\"bench\": \"load\", \"device\": \"%s\", \"threads\": %d, "
                                  "\"peak_bytes\": %d, \"page_cache_share\": %.6g, ",
                                  subject.device->name(), subject.reader_count,
                                  subject.plan->peak_bytes(), resident))
            .c_str(),
        stdout);
    return kExitDone;
  }
  std::printf(
      "load of %s on %s (%s): %s of source, peak %s, %d threads, %.1f %% in the page cache\n"
      "GB/s of source, %zu runs of each in turn\n%s",
      source.c_str(), subject.device->name().c_str(), subject.device->description().c_str(),
      FormatData(subject.plan->source_bytes).c_str(),
      FormatMemory(subject.plan->peak_bytes()).c_str(), subject.reader_count, 100 * resident,
      rows.front().seconds.size(), RenderBench(rows, bytes).c_str());
  if (resident < 1) {
    std::puts("warning: not all of the source was in the page cache, so the disk was measured too");
  }
  return kExitDone;
}

int RunBenchLoad(const BenchLoadOptions& options) {
  const InterruptGuard interrupt([] {});
  const absl::StatusOr<std::unique_ptr<BenchSource>> source =
      BenchSource::Make(options.source, options.json, interrupt);
  if (!source.ok()) {
    return ReportFailure(source.status());
  }
  const absl::StatusOr<LoadSubject> subject = OpenSubject(options, (*source)->path());
  if (!subject.ok()) {
    return ReportFailure(subject.status());
  }
  // Brings the files into the page cache, and the first load's page faults out of the figures.
  absl::StatusOr<absl::Duration> warm = TimeRead(subject->paths, subject->reader_count);
  if (warm.ok()) {
    warm = TimeLoad(*subject, interrupt);
  }
  const absl::StatusOr<double> resident = ResidentShare(subject->paths);
  if (!warm.ok() || !resident.ok()) {
    return ReportFailure(warm.ok() ? resident.status() : warm.status());
  }
  const absl::StatusOr<std::vector<BenchRow>> rows = Measure(*subject, options.runs, interrupt);
  if (!rows.ok()) {
    return ReportFailure(rows.status());
  }
  return Print(options, (*source)->name(), *subject, *resident, *rows);
}

}  // namespace

Command BenchLoadCommand() {
  auto options = std::make_shared<BenchLoadOptions>();
  BenchLoadOptions* raw = options.get();
  Command command;
  command.name = "bench load";
  command.summary = "times loads from the page cache beside the machine's own rates";
  command.description =
      "Loads a checkpoint from the page cache again and again, in this process and within a budget "
      "of "
      "exactly its peak, and between the loads reads the same files and copies as many bytes with "
      "as "
      "many threads: what the machine could do at best. Prints GB/s of source, medians and spread, "
      "and which share of each rate the load reaches (the median of the runs' own ratios).";
  command.examples = {"nibble bench load", "nibble bench load --source /models/Llama-8B --runs 15",
                      "TMPDIR=/dev/shm nibble bench load --shape llama-8b --device cuda:0"};
  std::vector<Setting> settings = BenchSourceSettings(&raw->source);
  for (Setting& setting : std::vector<Setting>{
           CountSetting("runs", "Runs of each.", "9", 1, 1000,
                        [raw](int64_t runs) { raw->runs = runs; }),
           DeviceSetting("The device to load to.", &options->device),
           SizeSetting("staging", "Staging memory of the loads.", "128MiB",
                       [raw](int64_t bytes) { raw->staging_bytes = bytes; }),
           CountSetting("reader-threads", "Threads of each load.", "as many as suit the device", 0,
                        1024, [raw](int64_t count) { raw->reader_threads = count; }),
           JsonSetting(&options->json)}) {
    settings.push_back(std::move(setting));
  }
  command.groups = {{"What to measure", std::move(settings)}};
  command.run = [options] { return RunBenchLoad(*options); };
  return command;
}

}  // namespace nibble
