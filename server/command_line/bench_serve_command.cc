#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/command_line/bench_figures.h"
#include "server/command_line/bench_source.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/local_source.h"
#include "server/command_line/serving_bench.h"
#include "server/engine/generation.h"

namespace nibble {
namespace {

constexpr int64_t kSequencesMax = 1024;

struct BenchServeOptions {
  BenchSource::Options source;
  std::string device = "host";
  ServingWork work;
  int64_t runs = 9;
  bool json = false;
};

// A way to ask, and how many at once.
struct Way {
  const char* name;
  absl::StatusOr<absl::Duration> (ServingBench::*time)(int64_t sequences);
};
constexpr Way kWays[] = {{"engine", &ServingBench::TimeEngine},
                         {"grpc", &ServingBench::TimeGrpc},
                         {"http", &ServingBench::TimeHttp}};

// All in turn, so that whatever else happens on the machine happens to all.
absl::StatusOr<std::vector<RateRow>> Measure(ServingBench& bench, const BenchServeOptions& options,
                                             const InterruptGuard& interrupt) {
  const int64_t counts[] = {1, options.work.sequences};
  std::vector<RateRow> rows;
  for (const Way& way : kWays) {
    for (const int64_t count : counts) {
      rows.push_back({absl::StrCat(way.name, "_", count),
                      absl::StrCat(count, count == 1 ? " sequence" : " sequences at once"),
                      {}});
    }
  }
  // The first turn warms up: page faults, connections, threads of gRPC.
  for (int64_t run = -1; run < options.runs; ++run) {
    auto row = rows.begin();
    for (const Way& way : kWays) {
      for (const int64_t count : counts) {
        const absl::StatusOr<absl::Duration> time = (bench.*way.time)(count);
        if (!time.ok() || interrupt.interrupted()) {
          return time.ok() ? absl::CancelledError("interrupted") : time.status();
        }
        const auto tokens = static_cast<double>(count * options.work.answer_tokens);
        if (run >= 0) {
          row->rates.push_back(tokens / absl::ToDoubleSeconds(*time));
        }
        ++row;
      }
    }
  }
  return rows;
}

int RunBenchServe(const BenchServeOptions& options) {
  const InterruptGuard interrupt([] {});
  const absl::StatusOr<std::unique_ptr<BenchSource>> source =
      BenchSource::Make(options.source, options.json, interrupt);
  if (!source.ok()) {
    return ReportFailure(source.status());
  }
  const absl::StatusOr<std::unique_ptr<ServingBench>> bench =
      ServingBench::Load((*source)->path(), options.device, options.work);
  if (!bench.ok()) {
    return ReportFailure(bench.status());
  }
  const absl::StatusOr<std::vector<RateRow>> rows = Measure(**bench, options, interrupt);
  if (!rows.ok()) {
    return ReportFailure(rows.status());
  }
  const ServingWork& work = options.work;
  if (options.json) {
    std::fputs(RatesJson(*rows, "tokens_per_second",
                         absl::StrFormat("\"bench\": \"serve\", \"device\": \"%s\", \"sequences\": "
                                         "%d, \"prompt_tokens\": %d, \"answer_tokens\": %d, ",
                                         options.device, work.sequences, work.prompt_tokens,
                                         work.answer_tokens))
                   .c_str(),
               stdout);
    return kExitDone;
  }
  std::printf(
      "answers of %s in NF4 on %s: %lld tokens to each prompt of %lld\n"
      "tokens a second of all sequences together, prompts included in the time, %lld runs of each "
      "in "
      "turn\n%s",
      (*source)->name().c_str(), (*bench)->device_description().c_str(),
      static_cast<long long>(work.answer_tokens), static_cast<long long>(work.prompt_tokens),
      static_cast<long long>(options.runs), RenderRates(*rows, "TOKENS/S").c_str());
  return kExitDone;
}

}  // namespace

Command BenchServeCommand() {
  auto options = std::make_shared<BenchServeOptions>();
  BenchServeOptions* raw = options.get();
  Command command;
  command.name = "bench serve";
  command.summary = "times answers, one and many at once: engine, gRPC and HTTP";
  command.description =
      "Loads a checkpoint in this process, within a budget of exactly its peak, and asks for "
      "answers: one at a time, and many at once; of the engine itself, and over gRPC and HTTP on "
      "loopback, whose clients are in this process too. Prints tokens a second, medians and "
      "spread, "
      "and each row beside the first (the median of the runs' own ratios).";
  command.examples = {"nibble bench serve",
                      "nibble bench serve --source /models/Llama-8B --sequences 8 --tokens 128",
                      "nibble bench serve --device cuda:0 --json"};
  std::vector<Setting> settings = BenchSourceSettings(&raw->source);
  for (Setting& setting : std::vector<Setting>{
           CountSetting("sequences", "How many at once.", "32", 1, kSequencesMax,
                        [raw](int64_t count) { raw->work.sequences = count; }),
           CountSetting("prompt-tokens", "Tokens of each prompt.", "16", 1, 1 << 20,
                        [raw](int64_t count) { raw->work.prompt_tokens = count; }),
           CountSetting("tokens", "Tokens of each answer.", "32", 1,
                        static_cast<int64_t>(kGenerationQueueMax),
                        [raw](int64_t count) { raw->work.answer_tokens = count; }),
           CountSetting("runs", "Runs of each.", "9", 1, 1000,
                        [raw](int64_t runs) { raw->runs = runs; }),
           DeviceSetting("The device to run on.", &options->device), JsonSetting(&options->json)}) {
    settings.push_back(std::move(setting));
  }
  command.groups = {{"What to measure", std::move(settings)}};
  command.run = [options] { return RunBenchServe(*options); };
  return command;
}

}  // namespace nibble
