#include "loader/new_directory.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

absl::Status DiskFull(const std::string& path, std::string message) {
  ErrorDetails details;
  details.reason = "DISK_FULL";
  details.resource = path;
  return WithDetails(absl::ResourceExhaustedError(absl::StrCat(path, ": ", message)), details);
}

absl::Status ErrnoError(int error, const std::string& path, const char* what) {
  // A limit of the file's size is a full disk to the one who asked.
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return DiskFull(path, absl::StrCat("no space left while ", what));
  }
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": ", what));
}

}  // namespace

absl::StatusOr<NewFile> NewFile::Create(std::string path) {
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) {
    return ErrnoError(errno, path, "creating it");
  }
  return NewFile(std::move(path), descriptor);
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

NewFile::~NewFile() {
  if (descriptor_ >= 0) {
    close(descriptor_);
  }
}

absl::Status NewFile::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      return ErrnoError(count < 0 ? errno : ENOSPC, path_, "writing");
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status NewFile::Append(absl::string_view text) {
  return Append(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

absl::Status NewFile::AppendHole(int64_t bytes) {
  const off_t end = lseek(descriptor_, 0, SEEK_END);
  if (end < 0 || ftruncate(descriptor_, end + bytes) != 0 || lseek(descriptor_, 0, SEEK_END) < 0) {
    return ErrnoError(errno, path_, "making a sparse file");
  }
  return absl::OkStatus();
}

absl::Status NewFile::Close() {
  return close(std::exchange(descriptor_, -1)) == 0 ? absl::OkStatus()
                                                    : ErrnoError(errno, path_, "closing");
}

NewDirectory::~NewDirectory() {
  if (kept_) {
    return;
  }
  for (const std::string& made : made_) {
    unlink(made.c_str());
  }
  // One that somebody else has put something into meanwhile stays: rmdir sees to that.
  for (auto made = made_directories_.rbegin(); made != made_directories_.rend(); ++made) {
    rmdir(made->c_str());
  }
}

absl::Status NewDirectory::Make() {
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
  return empty ? absl::OkStatus()
               : absl::AlreadyExistsError(absl::StrCat(
                     path_, ": expected no directory or an empty one, found files in it"));
}

absl::Status NewDirectory::CheckSpace(int64_t needed_bytes) const {
  struct statvfs info = {};
  if (statvfs(path_.c_str(), &info) != 0) {
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
  absl::StatusOr<NewFile> file = NewFile::Create(path);
  if (file.ok()) {
    made_.push_back(std::move(path));
  }
  return file;
}

absl::Status NewDirectory::WriteText(const std::string& file_name, absl::string_view text) {
  absl::StatusOr<NewFile> file = Create(file_name);
  if (!file.ok()) {
    return file.status();
  }
  absl::Status status = file->Append(text);
  return status.ok() ? file->Close() : status;
}

}  // namespace nibble
