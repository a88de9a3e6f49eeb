#include "server/command_line/bench_source.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/synthetic_checkpoint.h"
#include "server/command_line/progress_bar.h"

namespace nibble {

namespace fs = std::filesystem;

absl::StatusOr<std::unique_ptr<BenchSource>> BenchSource::Make(const Options& options, bool quiet,
                                                               const InterruptGuard& interrupt) {
  if (!options.directory.empty()) {
    return std::unique_ptr<BenchSource>(
        new BenchSource(options.directory, options.directory, false));
  }
  std::error_code error;
  std::string path = (fs::temp_directory_path(error) / "nibble-bench-XXXXXX").string();
  if (error || mkdtemp(path.data()) == nullptr) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be made"));
  }
  auto source = std::unique_ptr<BenchSource>(new BenchSource(std::move(path), options.shape, true));
  ProgressPrinter printer(stderr, absl::StrCat("writing ", options.shape), quiet);
  absl::Status status = WriteSyntheticCheckpoint(options.shape, source->path(), {},
                                                 [&](int64_t written_bytes, int64_t data_bytes) {
                                                   printer.Update(written_bytes, data_bytes);
                                                   return !interrupt.interrupted();
                                                 });
  if (!status.ok()) {
    return status;
  }
  return source;
}

BenchSource::BenchSource(std::string path, std::string name, bool is_ours)
    : path_(std::move(path)), name_(std::move(name)), is_ours_(is_ours) {}

BenchSource::~BenchSource() {
  if (is_ours_) {
    std::error_code error;
    fs::remove_all(path_, error);
  }
}

std::vector<Setting> BenchSourceSettings(BenchSource::Options* options) {
  return {
      TextSetting("shape", "SHAPE",
                  "Synthetic checkpoint to write to $TMPDIR, load and remove (see `nibble synth "
                  "--list`).",
                  &options->shape),
      TextSetting("source", "DIR", "Directory of a checkpoint to load instead.",
                  &options->directory)};
}

}  // namespace nibble
