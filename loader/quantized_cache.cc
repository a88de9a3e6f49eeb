#include "loader/quantized_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/error_details.h"
#include "loader/cache_manifest.h"
#include "loader/checksum.h"

namespace nibble {
namespace {

constexpr char kLockFileName[] = "nibble-cache-lock";
constexpr absl::string_view kPartialInfix = ".partial-";  // NewDirectory's.
constexpr size_t kPartialDigits = 8;
constexpr int64_t kNanosecondsPerSecond = 1'000'000'000;

std::string ManifestPath(const std::string& entry_name) {
  return absl::StrCat(entry_name, "/", kManifestFileName);
}

// Whether a directory of ours is called so while it is written.
bool IsPartialName(absl::string_view name) {
  if (name.size() != kDigestCharacters + kPartialInfix.size() + kPartialDigits ||
      !IsDigest(name.substr(0, kDigestCharacters))) {
    return false;
  }
  name.remove_prefix(kDigestCharacters);
  return absl::ConsumePrefix(&name, kPartialInfix) &&
         std::all_of(name.begin(), name.end(), absl::ascii_isxdigit);
}

// A directory that is no link, or an invalid descriptor.
FileDescriptor OpenDirectory(const FileDescriptor& parent, const std::string& name) {
  return FileDescriptor(
      openat(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

// Whether `path` is there, a regular file and no link.
bool IsFile(const FileDescriptor& parent, const std::string& path) {
  struct stat info = {};
  return fstatat(parent.get(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISREG(info.st_mode);
}

bool IsThere(const FileDescriptor& parent, const std::string& path) {
  struct stat info = {};
  return fstatat(parent.get(), path.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

// Without O_NONBLOCK a FIFO in its place would wait for a writer for ever.
FileDescriptor OpenManifest(const FileDescriptor& parent, const std::string& entry_name) {
  return FileDescriptor(openat(parent.get(), ManifestPath(entry_name).c_str(),
                               O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC));
}

// True where a file system has no locks, too: there an entry may be evicted from under a load,
// which then reads the source.
bool TryFlock(int fd, int operation) {
  return flock(fd, operation | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

// Sets the time by which evictions go. Not possible where entries are only read, nor needed there.
void MarkAsUsed(int manifest) {
  timespec times[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {}};
  // What a file system takes for now may be some milliseconds ago, before an entry was written.
  clock_gettime(CLOCK_REALTIME, &times[1]);
  if (futimens(manifest, times) != 0) {
    times[1].tv_nsec = UTIME_NOW;  // All that is allowed to whoever is not the owner.
    static_cast<void>(futimens(manifest, times));
  }
}

int64_t FreeBytes(int directory) {
  struct statvfs info = {};
  if (fstatvfs(directory, &info) != 0) {
    return 0;
  }
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace

absl::StatusOr<std::unique_ptr<QuantizedCache>> QuantizedCache::Open(const std::string& path,
                                                                     const CacheLimit& limit) {
  FileDescriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    return ErrnoStatus(errno, path);
  }
  return std::unique_ptr<QuantizedCache>(new QuantizedCache(path, std::move(directory), limit));
}

absl::Status QuantizedCache::CheckWritable() const {
  return faccessat(directory_.get(), ".", W_OK | X_OK, AT_EACCESS) == 0 ? absl::OkStatus()
                                                                        : ErrnoStatus(errno, path_);
}

absl::StatusOr<HeldEntry> QuantizedCache::Find(const CacheKey& key, const LoadPlan& plan) const {
  if (IsThere(directory_, ManifestPath(key.entry_name)) && !Contains(key)) {
    return CacheFailure(kCacheManifestBroken,
                        absl::StrCat(kManifestFileName, ": expected a regular file"));
  }
  HeldEntry held;
  held.hold = OpenManifest(directory_, key.entry_name);
  struct stat info = {};
  // An eviction locks, then unlinks: whoever gets the lock after it sees that the file is no more.
  const bool found = held.hold.valid() && TryFlock(held.hold.get(), LOCK_SH) &&
                     fstat(held.hold.get(), &info) == 0 && S_ISREG(info.st_mode) &&
                     info.st_nlink > 0;
  if (!found) {
    return absl::NotFoundError(absl::StrCat(path_, ": no entry ", key.entry_name));
  }
  auto directory = OpenCheckpointDirectory(path_, key.entry_name);
  if (!directory.ok()) {
    return AsCacheFailure(directory.status());
  }
  absl::StatusOr<CacheEntry> entry = OpenCacheEntry(*std::move(directory), key, plan);
  if (!entry.ok()) {
    return entry.status();
  }
  held.entry = *std::move(entry);
  MarkAsUsed(held.hold.get());
  return held;
}

bool QuantizedCache::Contains(const CacheKey& key) const {
  return IsFile(directory_, ManifestPath(key.entry_name));
}

// One step makes it no entry and says whose it was, whatever stands in the manifest's place.
absl::Status QuantizedCache::Discard(const CacheKey& key) const {
  const FileDescriptor entry = OpenDirectory(directory_, key.entry_name);
  if (entry.valid() &&
      renameat(entry.get(), kManifestFileName.data(), entry.get(), kLeftoverFileName.data()) == 0) {
    return absl::OkStatus();
  }
  return errno == ENOENT ? absl::OkStatus()
                         : ErrnoStatus(errno, absl::StrCat(path_, "/", key.entry_name));
}

absl::StatusOr<CacheLock> QuantizedCache::Lock() const {
  FileDescriptor file(
      openat(directory_.get(), kLockFileName, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (file.valid() && flock(file.get(), LOCK_EX | LOCK_NB) == 0) {
    return CacheLock(std::move(file));
  }
  return errno == EWOULDBLOCK
             ? absl::UnavailableError(absl::StrCat(path_, ": another writer is at work"))
             : ErrnoStatus(errno, absl::StrCat(path_, "/", kLockFileName));
}

std::vector<std::string> QuantizedCache::List() const {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path_, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

int64_t QuantizedCache::RemoveLeftovers(const CacheLock&) const {
  int64_t count = 0;
  for (const std::string& name : List()) {
    const bool marked = IsThere(directory_, absl::StrCat(name, "/", kLeftoverFileName));
    const bool has_manifest = IsFile(directory_, ManifestPath(name));
    bool removed = false;
    if (IsPartialName(name)) {
      // Its writer may have been killed before it could put anything into it.
      removed = marked || has_manifest
                    ? Remove(name)
                    : unlinkat(directory_.get(), name.c_str(), AT_REMOVEDIR) == 0;
    } else if (IsDigest(name) && marked && !has_manifest) {
      removed = Remove(name);
    }
    count += removed ? 1 : 0;
  }
  return count;
}

// Removes a directory of ours. Its manifest becomes the mark of a leftover first, and that goes
// last: whoever finds a part of it knows whose it is. We make no directories in it, so one with
// something in it is somebody else's, and stays.
bool QuantizedCache::Remove(const std::string& name) const {
  FileDescriptor entry = OpenDirectory(directory_, name);
  if (!entry.valid()) {
    return false;
  }
  renameat(entry.get(), kManifestFileName.data(), entry.get(), kLeftoverFileName.data());
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(entry.get()), closedir);
  if (stream == nullptr) {
    return false;
  }
  const int fd = entry.Release();  // The stream's.
  while (const dirent* found = readdir(stream.get())) {
    const absl::string_view file_name = found->d_name;
    if (file_name != "." && file_name != ".." && file_name != kLeftoverFileName &&
        unlinkat(fd, found->d_name, 0) != 0 && unlinkat(fd, found->d_name, AT_REMOVEDIR) != 0) {
      return false;
    }
  }
  return (unlinkat(fd, kLeftoverFileName.data(), 0) == 0 ||
          unlinkat(fd, kLeftoverFileName.data(), AT_REMOVEDIR) == 0) &&
         unlinkat(directory_.get(), name.c_str(), AT_REMOVEDIR) == 0;
}

std::vector<QuantizedCache::StoredEntry> QuantizedCache::Entries() const {
  std::vector<StoredEntry> entries;
  for (const std::string& name : List()) {
    struct stat info = {};
    const bool found = IsDigest(name) && fstatat(directory_.get(), ManifestPath(name).c_str(),
                                                 &info, AT_SYMLINK_NOFOLLOW) == 0;
    if (!found || !S_ISREG(info.st_mode)) {
      continue;
    }
    StoredEntry stored{name, 0, info.st_mtim.tv_sec * kNanosecondsPerSecond + info.st_mtim.tv_nsec};
    std::error_code error;
    for (std::filesystem::directory_iterator file(absl::StrCat(path_, "/", name), error), end;
         !error && file != end; file.increment(error)) {
      std::error_code ignored;  // One that goes meanwhile.
      const auto bytes = file->file_size(ignored);
      stored.bytes += ignored ? 0 : static_cast<int64_t>(bytes);
    }
    entries.push_back(std::move(stored));
  }
  return entries;
}

CacheUsage QuantizedCache::Measure() const {
  CacheUsage usage;
  for (const StoredEntry& entry : Entries()) {
    ++usage.entry_count;
    usage.bytes += entry.bytes;
  }
  return usage;
}

absl::StatusOr<int64_t> QuantizedCache::MakeRoom(const CacheLock&, int64_t bytes) const {
  std::vector<StoredEntry> entries = Entries();
  std::sort(entries.begin(), entries.end(), [](const StoredEntry& a, const StoredEntry& b) {
    return std::pair(a.used_ns, a.name) < std::pair(b.used_ns, b.name);
  });
  int64_t used_bytes = 0;
  for (const StoredEntry& entry : entries) {
    used_bytes += entry.bytes;
  }
  int64_t free_bytes = FreeBytes(directory_.get());
  const int64_t limit_bytes = limit_.bytes.value_or(
      static_cast<int64_t>(limit_.disk_ratio * static_cast<double>(free_bytes + used_bytes)));
  const auto fits = [&] { return bytes <= limit_bytes - used_bytes && bytes <= free_bytes; };
  // First is seen whether it can be done, so that nothing is evicted in vain.
  std::vector<std::pair<std::string, FileDescriptor>> evicted;
  for (const StoredEntry& entry : entries) {
    if (fits()) {
      break;
    }
    FileDescriptor manifest = OpenManifest(directory_, entry.name);
    if (manifest.valid() && TryFlock(manifest.get(), LOCK_EX)) {
      used_bytes -= entry.bytes;
      free_bytes += entry.bytes;
      evicted.emplace_back(entry.name, std::move(manifest));
    }
  }
  if (!fits()) {
    ErrorDetails details;
    details.reason = "CACHE_FULL";
    details.resource = path_;
    return WithDetails(absl::ResourceExhaustedError(absl::StrCat(
                           path_, ": an entry of ", bytes, " bytes does not fit: ", used_bytes,
                           " of ", limit_bytes, " are taken by what cannot be evicted, ",
                           free_bytes, " are free on the disk")),
                       details);
  }
  for (const auto& [name, manifest] : evicted) {
    Remove(name);
  }
  return std::ssize(evicted);
}

absl::StatusOr<std::unique_ptr<NewDirectory>> QuantizedCache::NewEntry(const CacheLock&,
                                                                       const CacheKey& key) const {
  FileDescriptor parent(openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid()) {
    return ErrnoStatus(errno, path_);
  }
  return std::make_unique<NewDirectory>(std::move(parent), key.entry_name,
                                        absl::StrCat(path_, "/", key.entry_name));
}

}  // namespace nibble
