// A checkpoint directory that remembers what was read, for tests of what is not.

#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/mutex.h"
#include "loader/checkpoint_directory.h"

namespace nibble {

// Reads of one or several directories. Thread-safe.
class ReadRecord {
 public:
  struct Read {
    std::string file_name;
    int64_t offset_bytes = 0;
    int64_t bytes = 0;
  };

  void Add(Read read) {
    MutexLock lock(mutex_);
    reads_.push_back(std::move(read));
  }

  std::vector<Read> reads() const {
    MutexLock lock(mutex_);
    return reads_;
  }

  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const Read& read : reads()) {
      names.insert(read.file_name);
    }
    return names;
  }

 private:
  mutable Mutex mutex_;
  std::vector<Read> reads_ ABSL_GUARDED_BY(mutex_);
};

// Passes every call on, and notes each Read in `record`.
class RecordingDirectory final : public CheckpointDirectory {
 public:
  RecordingDirectory(std::shared_ptr<const CheckpointDirectory> directory,
                     std::shared_ptr<ReadRecord> record)
      : directory_(std::move(directory)), record_(std::move(record)) {}

  std::string name() const override { return directory_->name(); }
  std::string canonical_name() const override { return directory_->canonical_name(); }
  absl::StatusOr<std::vector<std::string>> List() const override { return directory_->List(); }

  absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const override {
    absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory_->Open(file_name);
    if (!file.ok()) {
      return file.status();
    }
    return std::make_unique<RecordingFile>(*std::move(file), std::string(file_name), record_);
  }

 private:
  class RecordingFile final : public ReadOnlyFile {
   public:
    RecordingFile(std::unique_ptr<ReadOnlyFile> file, std::string name,
                  std::shared_ptr<ReadRecord> record)
        : file_(std::move(file)), name_(std::move(name)), record_(std::move(record)) {}

    absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const override {
      record_->Add({name_, offset_bytes, std::ssize(target)});
      return file_->Read(offset_bytes, target);
    }
    absl::StatusOr<FileIdentity> Identify() const override { return file_->Identify(); }

   private:
    const std::unique_ptr<ReadOnlyFile> file_;
    const std::string name_;
    const std::shared_ptr<ReadRecord> record_;
  };

  const std::shared_ptr<const CheckpointDirectory> directory_;
  const std::shared_ptr<ReadRecord> record_;
};

}  // namespace nibble
