#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "loader/synthetic_checkpoint.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/progress_bar.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

struct SynthOptions {
  std::string shape;
  std::string directory;
  bool list = false;
  SyntheticOptions synthetic;
};

// "8.03 B", as model names count.
std::string WeightCount(int64_t count) {
  const double billions = static_cast<double>(count) / 1e9;
  return billions < 0.1 ? absl::StrFormat("%.0f M", 1000 * billions)
                        : absl::StrFormat("%.2f B", billions);
}

int ListShapes() {
  TextTable table({TextTable::Align::kLeft, TextTable::Align::kRight, TextTable::Align::kRight,
                   TextTable::Align::kLeft});
  table.AddRow({"SHAPE", "WEIGHTS", "DATA", ""});
  for (const SyntheticShapeInfo& shape : ListSyntheticShapes()) {
    table.AddRow({shape.name, WeightCount(shape.parameter_count), FormatData(shape.data_bytes),
                  shape.description});
  }
  std::fputs(table.Render().c_str(), stdout);
  return kExitDone;
}

int RunSynth(const SynthOptions& options) {
  if (options.list) {
    return ListShapes();
  }
  if (options.shape.empty() || options.directory.empty()) {
    std::fputs("nibble synth: SHAPE and DIR are needed, or --list\nSee `nibble synth --help`.\n",
               stderr);
    return kExitUsage;
  }
  const InterruptGuard interrupt([] {});
  // Holes are written in no time, and at no rate that means anything.
  ProgressPrinter printer(stderr, options.shape, options.synthetic.sparse);
  const absl::Time start = absl::Now();
  int64_t total_bytes = 0;
  const absl::Status status =
      WriteSyntheticCheckpoint(options.shape, options.directory, options.synthetic,
                               [&](int64_t written_bytes, int64_t data_bytes) {
                                 total_bytes = data_bytes;
                                 printer.Update(written_bytes, data_bytes);
                                 return !interrupt.interrupted();
                               });
  printer.Finish();
  if (!status.ok()) {
    return ReportFailure(status);
  }
  std::printf("%s  %s in %s, %s%.2f s\n", options.shape.c_str(), FormatData(total_bytes).c_str(),
              options.directory.c_str(), options.synthetic.sparse ? "sparse, " : "",
              absl::ToDoubleSeconds(absl::Now() - start));
  return kExitDone;
}

}  // namespace

Command SynthCommand() {
  auto options = std::make_shared<SynthOptions>();
  SynthOptions* raw = options.get();
  Command command;
  command.name = "synth";
  command.summary = "writes a synthetic checkpoint, for budgets and benchmarks";
  command.description =
      "Writes a checkpoint with the shape of a well-known model and seeded random weights, in the "
      "Hugging Face layout (sharded safetensors, index, config, tokenizer). It answers nonsense, "
      "but "
      "plans, loads and takes memory as the real one does. With --sparse its data are holes: no "
      "disk "
      "space, for plans and budgets at full size.";
  command.examples = {"nibble synth --list", "nibble synth llama-1b /tmp/llama-1b",
                      "nibble synth dense-35b /tmp/dense-35b --sparse   # 67.5 GB on no disk"};
  command.positionals = {
      {"SHAPE", "One of `nibble synth --list`.", &options->shape, false},
      {"DIR", "Directory to write to; new or empty.", &options->directory, false}};
  command.groups = {
      {"What to write",
       {SwitchSetting("list", "Lists the shapes and their sizes.", &options->list),
        SwitchSetting("sparse", "Leaves the data as holes, which read as zeros.",
                      &options->synthetic.sparse),
        CountSetting("seed", "Equal seeds give equal files.", "0", 0, INT64_MAX,
                     [raw](int64_t seed) { raw->synthetic.seed = static_cast<uint64_t>(seed); })}},
  };
  command.run = [options] { return RunSynth(*options); };
  return command;
}

}  // namespace nibble
