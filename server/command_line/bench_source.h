// The checkpoint that a benchmark reads: one that is there, or a synthetic one for as long as it
// runs.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/setting.h"

namespace nibble {

class BenchSource {
 public:
  struct Options {
    std::string shape = "llama-1b";
    std::string directory;  // Given: this one, and no shape is written.
  };

  // Writes the shape to a directory under $TMPDIR where no directory is given. `quiet`: without
  // progress.
  //
  // Errors: those of writing it; CANCELLED when interrupted.
  static absl::StatusOr<std::unique_ptr<BenchSource>> Make(const Options& options, bool quiet,
                                                           const InterruptGuard& interrupt);

  // Removes what was written.
  ~BenchSource();

  BenchSource(const BenchSource&) = delete;
  BenchSource& operator=(const BenchSource&) = delete;

  const std::string& path() const { return path_; }
  const std::string& name() const { return name_; }  // For people: the shape, or the directory.

 private:
  BenchSource(std::string path, std::string name, bool is_ours);

  const std::string path_;
  const std::string name_;
  const bool is_ours_;
};

// --shape and --source; `options` must outlive them.
std::vector<Setting> BenchSourceSettings(BenchSource::Options* options);

}  // namespace nibble
