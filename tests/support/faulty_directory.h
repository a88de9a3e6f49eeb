// A checkpoint directory whose n-th call fails: for tests that go through every place where a file
// can let the loader down.

#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

// Counts the calls of Open, List, Read and Identify, over the directory and all files opened from
// it, and fails the one numbered `failing_call` (from 0; negative: none), and only that.
// Thread-safe.
class FaultyDirectory : public CheckpointDirectory {
 public:
  FaultyDirectory(std::shared_ptr<const CheckpointDirectory> directory, int64_t failing_call,
                  absl::Status failure = absl::InternalError("injected: the disk failed"))
      : directory_(std::move(directory)),
        fault_(std::make_shared<Fault>(failing_call, std::move(failure))) {}

  std::string name() const override { return directory_->name(); }
  std::string canonical_name() const override { return directory_->canonical_name(); }

  absl::StatusOr<std::vector<std::string>> List() const override {
    absl::Status status = fault_->Count();
    return status.ok() ? directory_->List() : std::move(status);
  }

  absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const override {
    if (absl::Status status = fault_->Count(); !status.ok()) {
      return status;
    }
    absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory_->Open(file_name);
    if (!file.ok()) {
      return file.status();
    }
    return std::make_unique<FaultyFile>(*std::move(file), fault_);
  }

  // Calls so far: once it stays at or below the number that was to fail, every place was tried.
  int64_t call_count() const { return fault_->call_count.load(); }

 private:
  struct Fault {
    Fault(int64_t call, absl::Status status) : failing_call(call), failure(std::move(status)) {}

    absl::Status Count() { return call_count++ == failing_call ? failure : absl::OkStatus(); }

    const int64_t failing_call;
    const absl::Status failure;
    std::atomic<int64_t> call_count = 0;
  };

  class FaultyFile : public ReadOnlyFile {
   public:
    FaultyFile(std::unique_ptr<ReadOnlyFile> file, std::shared_ptr<Fault> fault)
        : file_(std::move(file)), fault_(std::move(fault)) {}

    absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const override {
      absl::Status status = fault_->Count();
      return status.ok() ? file_->Read(offset_bytes, target) : status;
    }

    absl::StatusOr<FileIdentity> Identify() const override {
      absl::Status status = fault_->Count();
      return status.ok() ? file_->Identify() : std::move(status);
    }

   private:
    const std::unique_ptr<ReadOnlyFile> file_;
    const std::shared_ptr<Fault> fault_;
  };

  const std::shared_ptr<const CheckpointDirectory> directory_;
  const std::shared_ptr<Fault> fault_;
};

}  // namespace nibble
