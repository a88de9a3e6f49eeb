// How fast this machine reads memory: what bounds products with few rows.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"

namespace nibble {

// A buffer far beyond the caches, read from end to end by several threads again and again.
class MemoryReader {
 public:
  MemoryReader(int64_t bytes, int thread_count);

  int64_t bytes() const { return static_cast<int64_t>(words_.size()) * 8; }

  // Every thread reads its share once.
  absl::Duration TimeRead() const;

 private:
  const int thread_count_;
  std::vector<uint64_t> words_;
};

}  // namespace nibble
