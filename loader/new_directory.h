// A directory that is written whole or not at all.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// A file that did not exist before, closed on destruction. Move-only; one thread. Errors are
// RESOURCE_EXHAUSTED with reason DISK_FULL if there is no space, otherwise what errno says; all
// name the file.
class NewFile {
 public:
  static absl::StatusOr<NewFile> Create(std::string path);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(absl::string_view text);

  // Lengthens the file by a hole, which reads as zeros and takes no disk space.
  absl::Status AppendHole(int64_t bytes);

  // Some file systems tell only now that the disk was full.
  absl::Status Close();

 private:
  NewFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_;
};

// The directory. What was made in it, and the directory itself and those above it where they did
// not exist, goes again on destruction unless Keep() was called. One thread.
class NewDirectory {
 public:
  explicit NewDirectory(std::string path) : path_(std::move(path)) {}
  ~NewDirectory();
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;

  // Makes it, and those above it, if need be.
  //
  // Errors: ALREADY_EXISTS if it is not empty; what errno says.
  absl::Status Make();

  // Errors: RESOURCE_EXHAUSTED with both figures if the disk has less free space.
  absl::Status CheckSpace(int64_t needed_bytes) const;

  absl::StatusOr<NewFile> Create(const std::string& file_name);
  absl::Status WriteText(const std::string& file_name, absl::string_view text);

  void Keep() { kept_ = true; }

 private:
  const std::string path_;
  bool kept_ = false;
  std::vector<std::string> made_directories_;  // The outermost first.
  std::vector<std::string> made_;              // Files.
};

}  // namespace nibble
