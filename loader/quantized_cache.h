// The directory that keeps results of loads, so that the next load of the same spec reads 4-bit
// weights instead of the source.
//
//   DIR/nibble-cache-lock                   locked by whoever writes
//   DIR/0123456789abcdef0123456789abcdef/   an entry, named by its key: files of a bitsandbytes
//                                           checkpoint, and its manifest
//   DIR/0123...cdef.partial-89abcdef/       one that is being written, or was when its writer died
//
// Several daemons may share a directory. An entry appears by one rename, with everything in it on
// the disk, and ends with its manifest: a directory without one is no entry. What is not an entry
// yet or any more holds the file nibble-cache-leftover; nothing else is ever removed, whatever it
// is called.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "loader/cache_entry.h"
#include "loader/cache_key.h"
#include "loader/load_plan.h"
#include "loader/new_directory.h"
#include "loader/open_beneath.h"

namespace nibble {

// The first file of a directory that is written, dropped at its end; what the manifest of one that
// goes is renamed to.
inline constexpr absl::string_view kLeftoverFileName = "nibble-cache-leftover";

// How much the entries of a cache may take together.
struct CacheLimit {
  std::optional<int64_t> bytes = std::nullopt;
  double disk_ratio = 0.5;  // Else: of what is free on the disk and what the entries take.
};

struct CacheUsage {
  int64_t entry_count = 0;
  int64_t bytes = 0;
};

// An entry that is not evicted while this lives.
struct HeldEntry {
  CacheEntry entry;
  FileDescriptor hold;  // A shared lock on the manifest.
};

// The right to change what is in the directory. One lives at a time, over all processes.
class CacheLock {
 private:
  friend class QuantizedCache;
  explicit CacheLock(FileDescriptor file) : file_(std::move(file)) {}

  FileDescriptor file_;
};

// Immutable; thread-safe.
class QuantizedCache {
 public:
  // Errors: what the system says about `path`, which must be a directory.
  static absl::StatusOr<std::unique_ptr<QuantizedCache>> Open(const std::string& path,
                                                              const CacheLimit& limit);

  const std::string& path() const { return path_; }

  // OK, or why nothing can be written here; entries are read all the same.
  absl::Status CheckWritable() const;

  // The entry of a load, checked as OpenCacheEntry does, and marked as used.
  //
  // Errors: NOT_FOUND if there is none, or it is just being evicted; those of OpenCacheEntry, one
  // of which is for a manifest that is no regular file.
  absl::StatusOr<HeldEntry> Find(const CacheKey& key, const LoadPlan& plan) const;

  // Whether there is an entry, sound or not: a directory with a file for a manifest.
  bool Contains(const CacheKey& key) const;

  // Makes an entry that cannot be used none, so that it can be written anew.
  //
  // Errors: what the system says; the entry is left to be found again.
  absl::Status Discard(const CacheKey& key) const;

  // Errors: UNAVAILABLE while somebody else holds it; what the system says.
  absl::StatusOr<CacheLock> Lock() const;

  // Removes what killed writers and evictions have left behind: what has a name of ours and
  // kLeftoverFileName in it. Returns how many directories.
  int64_t RemoveLeftovers(const CacheLock& lock) const;

  // Evicts entries, the least recently used first, until `bytes` more fit on the disk and into the
  // limit. Entries that are held stay. Returns how many went.
  //
  // Errors: RESOURCE_EXHAUSTED with reason CACHE_FULL and the figures; nothing is evicted then.
  absl::StatusOr<int64_t> MakeRoom(const CacheLock& lock, int64_t bytes) const;

  // Where to write an entry; not made yet.
  //
  // Errors: what the system says.
  absl::StatusOr<std::unique_ptr<NewDirectory>> NewEntry(const CacheLock& lock,
                                                         const CacheKey& key) const;

  CacheUsage Measure() const;

 private:
  struct StoredEntry {
    std::string name;
    int64_t bytes = 0;
    int64_t used_ns = 0;
  };

  QuantizedCache(std::string path, FileDescriptor directory, const CacheLimit& limit)
      : path_(std::move(path)), directory_(std::move(directory)), limit_(limit) {}

  std::vector<std::string> List() const;
  std::vector<StoredEntry> Entries() const;
  bool Remove(const std::string& name) const;

  const std::string path_;
  const FileDescriptor directory_;
  const CacheLimit limit_;
};

}  // namespace nibble
