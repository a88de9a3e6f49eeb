// A file in memory that can say it is larger than it is.

#pragma once

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

class MemoryFile : public ReadOnlyFile {
 public:
  // `bytes_claimed` < 0: the content's own size.
  MemoryFile(std::string name, std::string content, int64_t bytes_claimed = -1)
      : name_(std::move(name)), content_(std::move(content)) {
    identity_.bytes = bytes_claimed < 0 ? static_cast<int64_t>(content_.size()) : bytes_claimed;
  }

  absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const override {
    const auto offset = static_cast<size_t>(offset_bytes);
    if (offset > content_.size() || target.size() > content_.size() - offset) {
      return absl::DataLossError(absl::StrCat(name_, ": ends too early"));
    }
    if (!target.empty()) {
      std::memcpy(target.data(), content_.data() + offset, target.size());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FileIdentity> Identify() const override { return identity_; }

 private:
  const std::string name_;
  const std::string content_;
  FileIdentity identity_;
};

}  // namespace nibble
