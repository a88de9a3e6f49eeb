#include "loader/synthetic_values.h"

#include <algorithm>

#include "kernels/block_quantize_ref.h"
#include "loader/quantization_policy.h"

namespace nibble {
namespace {

// Where a chunk may begin in the pattern. 2^20 beginnings make equal neighbours unlikely, and the
// pattern (6 MiB with a whole chunk after the last beginning) is made in milliseconds.
constexpr uint64_t kBeginnings = uint64_t{1} << 20;
constexpr int64_t kChunkElements = kSyntheticChunkBytes / 2;

// SplitMix64: a counter-based generator, so that any value can be had without those before it.
uint64_t Mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// The sum of four uniform numbers looks normal enough for a quantizer: bell-shaped, within 3.5
// deviations, and exact integer arithmetic until the last step, so equal on every machine.
float NearlyNormal(uint64_t random) {
  constexpr float kDeviation = 0.02F;        // The initializer_range of most configs.
  constexpr float kSumDeviation = 37837.0F;  // sqrt(4 / 12) * 65536
  constexpr int64_t kSumMean = 2 * 65535;
  int64_t sum = -kSumMean;
  for (int part = 0; part < 4; ++part) {
    sum += static_cast<int64_t>(random >> (16 * part) & 0xffff);
  }
  return static_cast<float>(sum) * (kDeviation / kSumDeviation);
}

}  // namespace

SyntheticValues::SyntheticValues(uint64_t seed)
    : seed_(Mix(seed)), pattern_(kBeginnings + kChunkElements) {
  auto* const bytes = reinterpret_cast<std::byte*>(pattern_.data());
  for (size_t index = 0; index < pattern_.size(); ++index) {
    StoreElement(FloatType::kBf16, NearlyNormal(Mix(seed_ + index)), bytes,
                 static_cast<int64_t>(index));
  }
}

std::span<const std::byte> SyntheticValues::Chunk(const SyntheticTensor& tensor,
                                                  uint64_t tensor_index, int64_t chunk_index) {
  const FloatType type = *AsFloatType(tensor.dtype);
  const int64_t element_bytes = BytesPerElement(type);
  const int64_t chunk_elements = kSyntheticChunkBytes / element_bytes;
  const int64_t count =
      std::min(chunk_elements, ElementCount(tensor) - chunk_index * chunk_elements);
  const uint64_t random = Mix(Mix(seed_ ^ tensor_index) + static_cast<uint64_t>(chunk_index));
  const auto* const values =
      reinterpret_cast<const std::byte*>(pattern_.data() + random % kBeginnings);
  if (type == FloatType::kBf16 && tensor.mean == 0) {
    return {values, static_cast<size_t>(count * element_bytes)};
  }
  scratch_.resize(static_cast<size_t>(count * element_bytes));
  for (int64_t index = 0; index < count; ++index) {
    StoreElement(type, tensor.mean + LoadElement(FloatType::kBf16, values, index), scratch_.data(),
                 index);
  }
  return scratch_;
}

}  // namespace nibble
