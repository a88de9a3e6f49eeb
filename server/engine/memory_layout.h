// Cuts a region of device memory into pieces, or only counts how large it must be.

#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/bytes.h"
#include "kernels/device.h"

namespace nibble {

// The same calls give the same places, whether there is memory or not: a plan counts with what the
// engine later cuts.
class MemoryLayout {
 public:
  static constexpr int64_t kAlignmentBytes = 256;

  MemoryLayout() = default;  // Counts.
  explicit MemoryLayout(DeviceSpan memory) : memory_(memory) {}

  // The next `bytes`; an empty span when only counting.
  DeviceSpan Take(int64_t bytes) {
    const int64_t offset = used_bytes_;
    used_bytes_ = RoundUp(offset + bytes, kAlignmentBytes);
    highest_bytes_ = std::max(highest_bytes_, used_bytes_);
    return memory_.empty() ? DeviceSpan() : memory_.Slice(offset, bytes);
  }
  DeviceSpan TakeFloats(int64_t count) { return Take(count * 4); }

  // For pieces that are never used at once: what is taken after Rewind overlaps what was taken
  // since Mark.
  int64_t Mark() const { return used_bytes_; }
  void Rewind(int64_t mark) { used_bytes_ = mark; }

  int64_t bytes() const { return highest_bytes_; }

 private:
  DeviceSpan memory_;
  int64_t used_bytes_ = 0;
  int64_t highest_bytes_ = 0;
};

}  // namespace nibble
