// Files of a checkpoint, as the loader sees them: a flat directory that nothing leads out of.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Tells whether a file is still the one that was planned for. All from fstat.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

// An open regular file, closed on destruction. Thread-safe.
class ReadOnlyFile {
 public:
  virtual ~ReadOnlyFile() = default;

  // Fills `target` from `offset_bytes` on.
  //
  // Errors: DATA_LOSS if the file ends before; INTERNAL or what errno says if the read fails. Both
  //   name the file.
  virtual absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const = 0;

  // The file as it is now.
  virtual absl::StatusOr<FileIdentity> Identify() const = 0;
};

// A directory of plain files. Thread-safe. The seam at which tests make reads fail.
class CheckpointDirectory {
 public:
  virtual ~CheckpointDirectory() = default;

  // For messages: the source as the client named it.
  virtual std::string name() const = 0;

  // Equal for the same directory, however it was named; for comparison, never for clients.
  virtual std::string canonical_name() const { return name(); }

  // Names of the entries, sorted.
  virtual absl::StatusOr<std::vector<std::string>> List() const = 0;

  // Errors: NOT_FOUND; PERMISSION_DENIED (unreadable); INVALID_ARGUMENT if `file_name` is no plain
  //   file name, leads out of the model root, or names something that is not a regular file.
  virtual absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const = 0;
};

// Opens the directory `path`, which must lie beneath `root` with every symbolic link resolved;
// links within the directory must stay beneath `root` too, and be relative (those of the Hugging
// Face cache are). With the root "/" nothing can lead out and any link is followed. An absolute
// `path` begins with `root`, as given or with its own links resolved. `name` is for messages;
// `path` if empty.
//
// Errors: NOT_FOUND; PERMISSION_DENIED; INVALID_ARGUMENT if it leads out of `root` or is no
//   directory.
absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> OpenCheckpointDirectory(
    absl::string_view root, absl::string_view path, absl::string_view name = "");

// Finds `source`, a path or `hf:org/name[@revision]`, beneath one of `roots`, tried in order. An
// absolute path must lie beneath a root; a relative one is looked up in each. A root of `hf:` is
// the hub cache (".../huggingface/hub") or its parent; the revision is a branch, a tag or a commit,
// "main" by default.
//
// Errors: NOT_FOUND names the roots' count, never paths outside the request; INVALID_ARGUMENT as
//   above or for control characters. The field is "source".
absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> ResolveSource(
    const std::vector<std::string>& roots, absl::string_view source);

}  // namespace nibble
