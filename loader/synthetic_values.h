// Values of synthetic tensors at the speed of the disk: normal-looking, finite, and different from
// chunk to chunk, but cut from one pattern that is made once.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "loader/synthetic_shapes.h"

namespace nibble {

inline constexpr int64_t kSyntheticChunkBytes = 4'194'304;

// Immutable. Equal seeds give equal values.
class SyntheticValues {
 public:
  explicit SyntheticValues(uint64_t seed);

  // The bytes of chunk `chunk_index` (kSyntheticChunkBytes each, the last one shorter) of a tensor.
  // Valid until the next call or the end of this object.
  std::span<const std::byte> Chunk(const SyntheticTensor& tensor, uint64_t tensor_index,
                                   int64_t chunk_index);

 private:
  const uint64_t seed_;
  std::vector<uint16_t> pattern_;   // bf16, normal-looking with a deviation of 0.02.
  std::vector<std::byte> scratch_;  // For what is not bf16 around 0.
};

}  // namespace nibble
