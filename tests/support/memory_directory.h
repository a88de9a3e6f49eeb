// A checkpoint directory in memory.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "loader/checkpoint_directory.h"
#include "tests/support/memory_file.h"

namespace nibble {

class MemoryDirectory : public CheckpointDirectory {
 public:
  // Content by file name.
  explicit MemoryDirectory(std::map<std::string, std::string> files) : files_(std::move(files)) {}

  std::string name() const override { return "memory"; }

  absl::StatusOr<std::vector<std::string>> List() const override {
    std::vector<std::string> names;
    for (const auto& [name, content] : files_) {
      names.push_back(name);
    }
    return names;
  }

  absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const override {
    const auto found = files_.find(std::string(file_name));
    if (found == files_.end()) {
      return absl::NotFoundError(absl::StrCat(file_name, ": not there"));
    }
    return std::make_unique<MemoryFile>(found->first, found->second);
  }

 private:
  const std::map<std::string, std::string> files_;
};

}  // namespace nibble
