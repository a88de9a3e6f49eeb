#include "loader/open_beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

constexpr int kLinksMax = 40;     // MAXSYMLINKS of Linux.
constexpr int kAttemptsMax = 16;  // When a directory is renamed while ".." is resolved.
constexpr size_t kLinkBytesMax = 4096;
constexpr size_t kPendingMax = 4096;  // Components, of a path and of the links it leads through.

// errno of a descriptor that could not be had.
struct Opened {
  FileDescriptor fd;
  int error = 0;
};

Opened Open(int directory_fd, const char* name, int flags) {
  int fd = -1;
  do {
    fd = openat(directory_fd, name, flags | O_CLOEXEC);
  } while (fd < 0 && errno == EINTR);
  return {FileDescriptor(fd), fd < 0 ? errno : 0};
}

Opened OpenByKernel(int root_fd, bool root_is_slash, const std::string& path, int flags) {
  open_how how = {};
  how.flags = static_cast<unsigned>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_NO_MAGICLINKS | (root_is_slash ? 0 : RESOLVE_BENEATH);
  long fd = -1;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    fd = syscall(SYS_openat2, root_fd, path.c_str(), &how, sizeof(how));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) {
      break;
    }
  }
  return {FileDescriptor(static_cast<int>(fd)), fd < 0 ? errno : 0};
}

// Resolves a path one component at a time, holding a descriptor of each directory on the way, so
// that ".." is a step back and not a look at the disk.
class Walk {
 public:
  Walk(int root_fd, bool root_is_slash) : root_fd_(root_fd), root_is_slash_(root_is_slash) {}

  Opened Open(const std::string& path, int flags) {
    Push(path);
    while (!pending_.empty()) {
      const std::string name = std::move(pending_.front());
      pending_.pop_front();
      if (name == "..") {
        if (directories_.empty()) {
          return {FileDescriptor(), EXDEV};
        }
        directories_.pop_back();
        continue;
      }
      Opened found = nibble::Open(here(), name.c_str(), O_PATH | O_NOFOLLOW);
      struct stat info = {};
      if (!found.fd.valid() || fstat(found.fd.get(), &info) != 0) {
        return {FileDescriptor(), found.fd.valid() ? errno : found.error};
      }
      if (S_ISLNK(info.st_mode)) {
        if (const int error = FollowLink(found.fd.get()); error != 0) {
          return {FileDescriptor(), error};
        }
      } else if (pending_.empty()) {
        return nibble::Open(here(), name.c_str(), flags | O_NOFOLLOW);
      } else if (S_ISDIR(info.st_mode)) {
        directories_.push_back(std::move(found.fd));
      } else {
        return {FileDescriptor(), ENOTDIR};
      }
    }
    return nibble::Open(here(), ".", flags);
  }

 private:
  int here() const { return directories_.empty() ? root_fd_ : directories_.back().get(); }

  void Push(absl::string_view path) {
    const std::vector<std::string> components = absl::StrSplit(path, '/');
    std::deque<std::string> next;
    for (const std::string& component : components) {
      if (!component.empty() && component != ".") {
        next.push_back(component);
      }
    }
    pending_.insert(pending_.begin(), next.begin(), next.end());
  }

  // Returns errno; 0 if done.
  int FollowLink(int link_fd) {
    std::array<char, kLinkBytesMax> target;
    const ssize_t bytes = readlinkat(link_fd, "", target.data(), target.size());
    if (bytes < 0) {
      return errno;
    }
    const absl::string_view path(target.data(), static_cast<size_t>(bytes));
    if (++links_ > kLinksMax || path.size() == target.size() || pending_.size() > kPendingMax) {
      return ELOOP;
    }
    if (path.empty()) {
      return ENOENT;
    }
    if (path[0] == '/') {
      if (!root_is_slash_) {
        return EXDEV;
      }
      directories_.clear();
    }
    Push(path);
    return 0;
  }

  const int root_fd_;
  const bool root_is_slash_;
  std::deque<std::string> pending_;  // Components still to be resolved.
  std::vector<FileDescriptor> directories_;
  int links_ = 0;
};

// `path` without `root` before it; "." for the root itself; nothing if it lies elsewhere. By the
// letters alone: what ".." and links do is decided when the path is opened.
std::optional<std::string> StripRoot(absl::string_view root, absl::string_view path) {
  root = absl::StripSuffix(root, "/");
  if (root.empty() || !absl::ConsumePrefix(&path, root) || (!path.empty() && path[0] != '/')) {
    return std::nullopt;
  }
  path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
  return path.empty() ? "." : std::string(path);
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

std::optional<std::string> PathBelow(const std::string& root, bool root_is_slash,
                                     absl::string_view path) {
  if (root_is_slash) {
    path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
    return path.empty() ? "." : std::string(path);
  }
  std::optional<std::string> below = StripRoot(root, path);
  if (!below.has_value()) {
    const std::unique_ptr<char, void (*)(void*)> resolved(realpath(root.c_str(), nullptr), free);
    below = resolved == nullptr ? std::nullopt : StripRoot(resolved.get(), path);
  }
  return below;
}

bool IsSlash(int fd) {
  struct stat info = {};
  struct stat slash = {};
  return fstat(fd, &info) == 0 && stat("/", &slash) == 0 && info.st_dev == slash.st_dev &&
         info.st_ino == slash.st_ino;
}

absl::Status ErrnoStatus(int error, absl::string_view what) {
  const std::string message = absl::StrCat(what, ": ",
                                           error == EXDEV ? std::string("leads out of its root")
                                                          : std::generic_category().message(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EXDEV:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ENXIO:  // A socket, or a device that nothing drives.
    case EINVAL:
      return absl::InvalidArgumentError(message);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<FileDescriptor> OpenBeneath(int root_fd, bool root_is_slash, const std::string& path,
                                           int flags, absl::string_view what, Resolver resolver) {
  Opened opened;
  if (resolver == Resolver::kKernelOrWalk) {
    opened = OpenByKernel(root_fd, root_is_slash, path, flags);
  }
  const bool walk = resolver == Resolver::kWalk || opened.error == ENOSYS ||
                    opened.error == EPERM || opened.error == EAGAIN;
  if (walk) {
    opened = Walk(root_fd, root_is_slash).Open(path, flags);
  }
  if (!opened.fd.valid()) {
    return ErrnoStatus(opened.error, what);
  }
  return std::move(opened.fd);
}

}  // namespace nibble
