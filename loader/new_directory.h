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
#include "loader/open_beneath.h"

namespace nibble {

// A file of a NewDirectory, closed on destruction. Move-only; one thread. Errors are
// RESOURCE_EXHAUSTED with reason DISK_FULL if there is no space, otherwise what errno says; all
// name the file.
class NewFile {
 public:
  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(absl::string_view text);

  // Lengthens the file by a hole, which reads as zeros and takes no disk space.
  absl::Status AppendHole(int64_t bytes);

  // Some file systems tell only now that the disk was full. Waits for the disk if the directory is
  // made aside.
  absl::Status Close();

 private:
  friend class NewDirectory;
  NewFile(std::string path, FileDescriptor descriptor, bool durable)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), durable_(durable) {}

  void WriteBack();

  std::string path_;
  FileDescriptor descriptor_;
  bool durable_;
  int64_t written_bytes_ = 0;
  int64_t sent_bytes_ = 0;  // On their way to the disk, or there.
};

// The directory. What was made in it, and the directory itself and those above it where they did
// not exist, goes again on destruction unless Keep() was called. One thread.
//
// In place, it is under its name from the start. Aside, it grows under another name (NAME.partial-
// and eight digits) and takes its own when all of it is on the disk: whoever looks sees nothing or
// all of it, whenever the power fails. What a killed process leaves behind has that other name.
class NewDirectory {
 public:
  // In place, at `path`.
  explicit NewDirectory(std::string path) : path_(std::move(path)) {}

  // Aside, to be the entry `name` of the directory `parent`. `path` is for messages.
  //
  // Requires: IsPlainFileName(name).
  NewDirectory(FileDescriptor parent, std::string name, std::string path)
      : path_(std::move(path)), parent_(std::move(parent)), name_(std::move(name)) {}

  ~NewDirectory();
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;

  // Makes it; in place those above it too, if need be.
  //
  // Errors: ALREADY_EXISTS if it is there and not an empty directory; what errno says.
  absl::Status Make();

  // Errors: RESOURCE_EXHAUSTED with both figures if the disk has less free space.
  absl::Status CheckSpace(int64_t needed_bytes) const;

  // The name under which an aside one grows, once it is made.
  const std::string& partial_name() const { return partial_name_; }

  absl::StatusOr<NewFile> Create(const std::string& file_name);
  absl::Status WriteText(const std::string& file_name, absl::string_view text);

  // Removes a file that was made in it.
  absl::Status Drop(const std::string& file_name);

  // Ends it well: nothing is removed any more. Aside, it is now under its name.
  //
  // Errors: ALREADY_EXISTS if something has taken the name meanwhile; what errno says.
  absl::Status Keep();

 private:
  bool aside() const { return parent_.valid(); }
  absl::Status MakeInPlace();
  absl::Status MakeAside();

  const std::string path_;
  const FileDescriptor parent_;  // Of an aside one.
  const std::string name_;       // Likewise.
  std::string partial_name_;     // Likewise, once made.
  bool made_partial_ = false;
  FileDescriptor directory_;  // Once made.
  bool kept_ = false;
  std::vector<std::string> made_directories_;  // Of one in place, the outermost first.
  std::vector<std::string> made_;              // Names of files.
};

}  // namespace nibble
