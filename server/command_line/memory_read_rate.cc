#include "server/command_line/memory_read_rate.h"

#include <atomic>
#include <thread>

#include "absl/time/clock.h"

namespace nibble {
namespace {

// Ahead of what is read, which a processor's own prefetching does too late: with it one core of a
// Xeon read 20 GB/s, without 17.
constexpr size_t kAheadWords = 4096 / 8;
constexpr size_t kLineWords = 8;

uint64_t ReadWords(const uint64_t* words, size_t count) {
  uint64_t sums[kLineWords] = {};
  for (size_t i = 0; i + kLineWords <= count; i += kLineWords) {
    __builtin_prefetch(words + i + kAheadWords);
    for (size_t j = 0; j < kLineWords; ++j) {
      sums[j] ^= words[i + j];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) {
    sum ^= part;
  }
  return sum;
}

}  // namespace

MemoryReader::MemoryReader(int64_t bytes, int thread_count)
    : thread_count_(thread_count), words_(static_cast<size_t>(bytes / 8), 1) {}

absl::Duration MemoryReader::TimeRead() const {
  static std::atomic<uint64_t> sum = 0;  // Keeps the reads from being left out.
  const size_t share = words_.size() / static_cast<size_t>(thread_count_);
  const auto work = [&](int index) {
    sum += ReadWords(words_.data() + share * static_cast<size_t>(index), share);
  };
  std::vector<std::thread> threads;
  const absl::Time start = absl::Now();
  for (int index = 1; index < thread_count_; ++index) {
    threads.emplace_back(work, index);
  }
  work(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
  return absl::Now() - start;
}

}  // namespace nibble
