#include "loader/new_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/bytes.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

// How far the disk may lag behind a durable file: bounds how long Close() waits, and the memory of
// the system that a slow disk takes.
constexpr int64_t kWriteBackBytes = 32_MiB;

// Names that are tried for a directory aside; each is free but for 1 in 2^32.
constexpr int kPartialNamesMax = 16;

absl::Status DiskFull(const std::string& path, absl::string_view message) {
  ErrorDetails details;
  details.reason = "DISK_FULL";
  details.resource = path;
  return WithDetails(absl::ResourceExhaustedError(absl::StrCat(path, ": ", message)), details);
}

absl::Status ErrnoError(int error, const std::string& path, absl::string_view what) {
  // A limit of the file's size is a full disk to the one who asked.
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return DiskFull(path, absl::StrCat("no space left while ", what));
  }
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": ", what));
}

absl::Status InUse(const std::string& path, absl::string_view found) {
  return absl::AlreadyExistsError(
      absl::StrCat(path, ": expected no directory or an empty one, found ", found));
}

absl::StatusOr<bool> IsEmpty(const FileDescriptor& parent, const std::string& name,
                             const std::string& path) {
  const int fd =
      openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (stream == nullptr) {
    const int error = errno;
    if (fd >= 0) {
      close(fd);
    }
    return ErrnoError(error, path, "listing the directory");
  }
  while (const dirent* entry = readdir(stream.get())) {
    const absl::string_view found = entry->d_name;
    if (found != "." && found != "..") {
      return false;
    }
  }
  return true;
}

// Whether the directory `parent` has no entry `name`, or an empty directory of that name.
//
// Errors: ALREADY_EXISTS for anything else, links included: one could lead anywhere.
absl::Status CheckFree(const FileDescriptor& parent, const std::string& name,
                       const std::string& path) {
  struct stat info = {};
  if (fstatat(parent.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoError(errno, path, "looking at it");
  }
  if (!S_ISDIR(info.st_mode)) {
    return InUse(path, S_ISLNK(info.st_mode) ? "a symbolic link" : "a file");
  }
  const absl::StatusOr<bool> empty = IsEmpty(parent, name, path);
  if (!empty.ok()) {
    return empty.status();
  }
  return *empty ? absl::OkStatus() : InUse(path, "files in it");
}

}  // namespace

absl::Status NewFile::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor_.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return ErrnoError(
          count < 0 ? errno : ENOSPC, path_,
          absl::StrCat("writing ", bytes.size(), " bytes after the first ", written_bytes_));
    }
    written_bytes_ += count;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  if (durable_ && written_bytes_ - sent_bytes_ >= kWriteBackBytes) {
    WriteBack();
  }
  return absl::OkStatus();
}

absl::Status NewFile::Append(absl::string_view text) {
  return Append(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

// Sends what was written since the last time to the disk, and waits for what was sent then. Without
// consequence where it fails: Close() asks again, and reports.
void NewFile::WriteBack() {
  static_cast<void>(
      sync_file_range(descriptor_.get(), 0, sent_bytes_, SYNC_FILE_RANGE_WAIT_BEFORE));
  static_cast<void>(sync_file_range(descriptor_.get(), sent_bytes_, written_bytes_ - sent_bytes_,
                                    SYNC_FILE_RANGE_WRITE));
  sent_bytes_ = written_bytes_;
}

absl::Status NewFile::AppendHole(int64_t bytes) {
  const int file = descriptor_.get();
  const off_t end = lseek(file, 0, SEEK_END);
  if (end < 0 || ftruncate(file, end + bytes) != 0 || lseek(file, 0, SEEK_END) < 0) {
    return ErrnoError(errno, path_, "making a sparse file");
  }
  written_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status NewFile::Close() {
  if (durable_ && fsync(descriptor_.get()) != 0) {
    return ErrnoError(errno, path_, "waiting for the disk");
  }
  return close(descriptor_.Release()) == 0 ? absl::OkStatus() : ErrnoError(errno, path_, "closing");
}

NewDirectory::~NewDirectory() {
  if (kept_) {
    return;
  }
  for (const std::string& made : made_) {
    unlinkat(directory_.get(), made.c_str(), 0);
  }
  if (made_partial_) {
    unlinkat(parent_.get(), partial_name_.c_str(), AT_REMOVEDIR);
  }
  // One that somebody else has put something into meanwhile stays: rmdir sees to that.
  for (auto made = made_directories_.rbegin(); made != made_directories_.rend(); ++made) {
    rmdir(made->c_str());
  }
}

absl::Status NewDirectory::Make() { return aside() ? MakeAside() : MakeInPlace(); }

absl::Status NewDirectory::MakeInPlace() {
  std::error_code error;
  std::filesystem::path reached;
  for (const std::filesystem::path& step : std::filesystem::path(path_)) {
    reached /= step;
    if (std::filesystem::create_directory(reached, error)) {
      made_directories_.push_back(reached.string());
    } else if (error) {
      return ErrnoError(error.value(), path_, "making the directory");
    }
  }
  const bool empty = std::filesystem::is_empty(path_, error);
  if (error) {
    return ErrnoError(error.value(), path_, "listing the directory");
  }
  if (!empty) {
    return InUse(path_, "files in it");
  }
  directory_ = FileDescriptor(open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return directory_.valid() ? absl::OkStatus() : ErrnoError(errno, path_, "opening the directory");
}

absl::Status NewDirectory::MakeAside() {
  if (absl::Status status = CheckFree(parent_, name_, path_); !status.ok()) {
    return status;
  }
  std::random_device random;
  for (int attempt = 0; attempt < kPartialNamesMax && !made_partial_; ++attempt) {
    partial_name_ = absl::StrFormat("%s.partial-%08x", name_, random());
    made_partial_ = mkdirat(parent_.get(), partial_name_.c_str(), 0777) == 0;
    if (!made_partial_ && errno != EEXIST) {
      return ErrnoError(errno, path_, absl::StrCat("making the directory ", partial_name_));
    }
  }
  if (!made_partial_) {
    return absl::InternalError(absl::StrCat(path_, ": no free name beside it"));
  }
  directory_ = FileDescriptor(openat(parent_.get(), partial_name_.c_str(),
                                     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return directory_.valid() ? absl::OkStatus()
                            : ErrnoError(errno, path_, "opening the new directory");
}

absl::Status NewDirectory::CheckSpace(int64_t needed_bytes) const {
  struct statvfs info = {};
  if (fstatvfs(directory_.get(), &info) != 0) {
    return ErrnoError(errno, path_, "asking for free space");
  }
  const double free_bytes = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  if (static_cast<double>(needed_bytes) <= free_bytes) {
    return absl::OkStatus();
  }
  return DiskFull(
      path_, absl::StrFormat("needs %d bytes of disk, %.0f are free", needed_bytes, free_bytes));
}

absl::StatusOr<NewFile> NewDirectory::Create(const std::string& file_name) {
  std::string path = absl::StrCat(path_, "/", file_name);
  FileDescriptor file(
      openat(directory_.get(), file_name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.valid()) {
    return ErrnoError(errno, path, "creating it");
  }
  made_.push_back(file_name);
  return NewFile(std::move(path), std::move(file), aside());
}

absl::Status NewDirectory::WriteText(const std::string& file_name, absl::string_view text) {
  absl::StatusOr<NewFile> file = Create(file_name);
  if (!file.ok()) {
    return file.status();
  }
  absl::Status status = file->Append(text);
  return status.ok() ? file->Close() : status;
}

absl::Status NewDirectory::Drop(const std::string& file_name) {
  return unlinkat(directory_.get(), file_name.c_str(), 0) == 0
             ? absl::OkStatus()
             : ErrnoError(errno, absl::StrCat(path_, "/", file_name), "removing it");
}

absl::Status NewDirectory::Keep() {
  if (!aside()) {
    kept_ = true;
    return absl::OkStatus();
  }
  if (fsync(directory_.get()) != 0) {
    return ErrnoError(errno, path_, "waiting for the disk");
  }
  // Takes the place of an empty directory, and of nothing else.
  if (renameat(parent_.get(), partial_name_.c_str(), parent_.get(), name_.c_str()) != 0) {
    const int error = errno;
    return error == ENOTEMPTY || error == EEXIST || error == ENOTDIR
               ? InUse(path_, "what was put there meanwhile")
               : ErrnoError(error, path_, absl::StrCat("renaming ", partial_name_));
  }
  kept_ = true;
  return fsync(parent_.get()) == 0 ? absl::OkStatus()
                                   : ErrnoError(errno, path_, "waiting for the disk");
}

}  // namespace nibble
