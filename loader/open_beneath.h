// Opens a path that must not lead out of a directory, whatever symbolic links lie on the way.

#pragma once

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// A file descriptor, closed on destruction. Move-only.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives the descriptor away.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Which way the path is resolved. The kernel does it without races and at once, but only since
// Linux 5.6, and some container sandboxes forbid the call; the walk, step by step, works anywhere.
enum class Resolver { kKernelOrWalk, kWalk };

// Opens `path`, relative to the directory `root_fd`, with `flags` (O_CLOEXEC is added). Symbolic
// links are followed while they stay beneath the root: relative ones whose ".." never climb above
// it. With `root_is_slash` nothing can lead out, and absolute links are followed too.
//
// Requires: `path` is relative, not empty and without NUL.
// Errors: as ErrnoStatus, about `what`.
absl::StatusOr<FileDescriptor> OpenBeneath(int root_fd, bool root_is_slash, const std::string& path,
                                           int flags, absl::string_view what,
                                           Resolver resolver = Resolver::kKernelOrWalk);

// The part of the absolute `path` below the directory `root`, which itself is ".";  nothing if it
// lies elsewhere. By the letters of the root, as given or with its links resolved, alone: what ".."
// and links do is decided when the path is opened. With `root_is_slash` everything lies below it.
std::optional<std::string> PathBelow(const std::string& root, bool root_is_slash,
                                     absl::string_view path);

// Whether the open directory is the system's root.
bool IsSlash(int fd);

// What a failed system call says about `what`, in the codes that clients see: NOT_FOUND;
// PERMISSION_DENIED; INVALID_ARGUMENT (leads out, too many links, name too long, no directory);
// RESOURCE_EXHAUSTED (descriptors, memory); else INTERNAL.
absl::Status ErrnoStatus(int error, absl::string_view what);

}  // namespace nibble
