#include "loader/checkpoint_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/nested_directory.h"
#include "loader/open_beneath.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr size_t kEntriesMax = 65'536;  // Far beyond any checkpoint; bounds what List() holds.

constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

int64_t Nanoseconds(const timespec& time) {
  return time.tv_sec * kNanosecondsPerSecond + time.tv_nsec;
}

absl::StatusOr<struct stat> Stat(int fd, absl::string_view what) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) {
    return ErrnoStatus(errno, what);
  }
  return info;
}

class PosixFile : public ReadOnlyFile {
 public:
  PosixFile(FileDescriptor fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  absl::Status Read(int64_t offset_bytes, std::span<std::byte> target) const override {
    size_t done = 0;
    while (done < target.size()) {
      const ssize_t bytes = pread(fd_.get(), target.data() + done, target.size() - done,
                                  offset_bytes + static_cast<int64_t>(done));
      if (bytes < 0 && errno == EINTR) {
        continue;
      }
      if (bytes < 0) {
        return ErrnoStatus(errno, absl::StrCat(name_, ": reading at byte ",
                                               offset_bytes + static_cast<int64_t>(done)));
      }
      if (bytes == 0) {
        return absl::DataLossError(absl::StrCat(name_, ": truncated: expected ", target.size(),
                                                " bytes at byte ", offset_bytes, ", found ", done));
      }
      done += static_cast<size_t>(bytes);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FileIdentity> Identify() const override {
    const absl::StatusOr<struct stat> info = Stat(fd_.get(), name_);
    if (!info.ok()) {
      return info.status();
    }
    return FileIdentity{.device = info->st_dev,
                        .inode = info->st_ino,
                        .bytes = info->st_size,
                        .modified_ns = Nanoseconds(info->st_mtim),
                        .changed_ns = Nanoseconds(info->st_ctim)};
  }

 private:
  const FileDescriptor fd_;
  const std::string name_;
};

class PosixDirectory : public CheckpointDirectory {
 public:
  // `path` is relative to the root; files are resolved from there, because links of the Hugging
  // Face cache lead from one directory beneath it to another.
  PosixDirectory(FileDescriptor root_fd, bool root_is_slash, std::string path, std::string name,
                 std::string canonical_name)
      : root_fd_(std::move(root_fd)),
        root_is_slash_(root_is_slash),
        path_(std::move(path)),
        name_(std::move(name)),
        canonical_name_(std::move(canonical_name)) {}

  std::string name() const override { return name_; }
  std::string canonical_name() const override { return canonical_name_; }

  absl::StatusOr<std::vector<std::string>> List() const override {
    absl::StatusOr<FileDescriptor> fd = OpenBeneath(root_fd_.get(), root_is_slash_, path_,
                                                    O_RDONLY | O_DIRECTORY, Printable(name_));
    if (!fd.ok()) {
      return fd.status();
    }
    // The stream closes its descriptor, so it gets one of its own.
    const int stream_fd = fcntl(fd->get(), F_DUPFD_CLOEXEC, 0);
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(stream_fd < 0 ? nullptr : fdopendir(stream_fd),
                                                     closedir);
    if (stream == nullptr) {
      const int error = errno;
      if (stream_fd >= 0) {
        close(stream_fd);
      }
      return ErrnoStatus(error, Printable(name_));
    }
    return ReadEntries(stream.get());
  }

  absl::StatusOr<std::unique_ptr<ReadOnlyFile>> Open(absl::string_view file_name) const override {
    if (!IsPlainFileName(file_name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected a plain file name, found ", Printable(file_name)));
    }
    // Without O_NONBLOCK a FIFO would wait for its writer for ever.
    absl::StatusOr<FileDescriptor> fd =
        OpenBeneath(root_fd_.get(), root_is_slash_, absl::StrCat(path_, "/", file_name),
                    O_RDONLY | O_NONBLOCK | O_NOCTTY, file_name);
    if (!fd.ok()) {
      return fd.status();
    }
    const absl::StatusOr<struct stat> info = Stat(fd->get(), file_name);
    if (!info.ok()) {
      return info.status();
    }
    if (!S_ISREG(info->st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_name, ": expected a regular file, found ", KindOf(info->st_mode)));
    }
    return std::make_unique<PosixFile>(*std::move(fd), std::string(file_name));
  }

  absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> OpenDirectory(
      absl::string_view directory_name) const {
    if (!IsPlainFileName(directory_name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected a plain directory name, found ", Printable(directory_name)));
    }
    std::string path = absl::StrCat(path_, "/", directory_name);
    const absl::StatusOr<FileDescriptor> fd =
        OpenBeneath(root_fd_.get(), root_is_slash_, path, O_RDONLY | O_DIRECTORY, directory_name);
    if (!fd.ok()) {
      return fd.status();
    }
    FileDescriptor root_fd(fcntl(root_fd_.get(), F_DUPFD_CLOEXEC, 0));
    if (!root_fd.valid()) {
      return ErrnoStatus(errno, directory_name);
    }
    return std::make_shared<const PosixDirectory>(
        std::move(root_fd), root_is_slash_, std::move(path),
        absl::StrCat(name_, "/", directory_name),
        absl::StrCat(canonical_name_, "/", directory_name));
  }

 private:
  static absl::string_view KindOf(mode_t mode) {
    if (S_ISDIR(mode)) {
      return "a directory";
    }
    return S_ISFIFO(mode) ? "a FIFO" : "a device";
  }

  absl::StatusOr<std::vector<std::string>> ReadEntries(DIR* stream) const {
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(stream)) {
      const absl::string_view entry_name = entry->d_name;
      if (entry_name == "." || entry_name == "..") {
        continue;
      }
      if (names.size() == kEntriesMax) {
        return absl::ResourceExhaustedError(absl::StrCat(
            Printable(name_), ": expected a checkpoint of at most ", kEntriesMax, " files"));
      }
      names.emplace_back(entry_name);
    }
    if (errno != 0) {
      return ErrnoStatus(errno, Printable(name_));
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  const FileDescriptor root_fd_;
  const bool root_is_slash_;
  const std::string path_;
  const std::string name_;
  const std::string canonical_name_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> OpenNestedDirectory(
    const CheckpointDirectory& directory, absl::string_view directory_name) {
  const auto* const opened = dynamic_cast<const PosixDirectory*>(&directory);
  return opened == nullptr ? absl::NotFoundError(Printable(directory_name))
                           : opened->OpenDirectory(directory_name);
}

absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> OpenCheckpointDirectory(
    absl::string_view root, absl::string_view path, absl::string_view name) {
  const std::string shown(name.empty() ? path : name);
  const std::string what = Printable(shown);
  constexpr char kNul = 0;
  if (path.empty() || path.find(kNul) != path.npos || root.find(kNul) != root.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": expected a path that is not empty and holds no NUL"));
  }
  const std::string root_path(root);
  FileDescriptor root_fd(open(root_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.valid()) {
    return ErrnoStatus(errno, absl::StrCat(what, ": the model root"));
  }
  const bool root_is_slash = IsSlash(root_fd.get());
  std::string relative(path);
  if (path[0] == '/') {
    std::optional<std::string> below = PathBelow(root_path, root_is_slash, path);
    if (!below.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": lies outside the model root"));
    }
    relative = *std::move(below);
  }
  const absl::StatusOr<FileDescriptor> directory =
      OpenBeneath(root_fd.get(), root_is_slash, relative, O_RDONLY | O_DIRECTORY, what);
  if (!directory.ok()) {
    return directory.status();
  }
  const absl::StatusOr<struct stat> info = Stat(directory->get(), what);
  if (!info.ok()) {
    return info.status();
  }
  // However many names and links lead to it, a directory has one inode.
  return std::make_shared<PosixDirectory>(std::move(root_fd), root_is_slash, std::move(relative),
                                          shown, absl::StrCat(info->st_dev, ":", info->st_ino));
}

}  // namespace nibble
