// Data for the block quantizers: what weights are like, and what they are not.

#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/block_quantize_ref.h"
#include "tests/kernels/block_fixture.h"

namespace nibble {

inline constexpr Codebook kCodebooks[] = {Codebook::kNf4, Codebook::kFp4};
inline constexpr FloatType kTypes[] = {FloatType::kBf16, FloatType::kF16, FloatType::kF32};
inline constexpr int64_t kBlockSizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};

inline std::string Describe(const BlockCase& c) {
  const char* const type = c.type == FloatType::kBf16  ? "bf16"
                           : c.type == FloatType::kF16 ? "f16"
                                                       : "f32";
  return std::string(c.codebook == Codebook::kNf4 ? "nf4 " : "fp4 ") + type + " block " +
         std::to_string(c.block_size) + " n " + std::to_string(c.element_count());
}

inline std::vector<std::byte> Elements(FloatType type, int64_t count,
                                       const std::function<float(int64_t)>& value) {
  std::vector<std::byte> bytes(static_cast<size_t>(count * BytesPerElement(type)));
  for (int64_t index = 0; index < count; ++index) {
    StoreElement(type, value(index), bytes.data(), index);
  }
  return bytes;
}

inline std::vector<std::byte> Normal(FloatType type, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  return Elements(type, count, [&](int64_t) { return normal(random); });
}

inline std::vector<std::byte> RandomBits(int64_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> values(static_cast<size_t>(bytes));
  std::generate(values.begin(), values.end(),
                [&] { return static_cast<std::byte>(random() & 255); });
  return values;
}

// Data as weights are not: what a fast path might take for granted.
inline std::vector<std::function<float(int64_t)>> Structures() {
  return {
      [](int64_t) { return 0.0f; },
      [](int64_t) { return -0.0f; },
      [](int64_t) { return 0.0123f; },                                      // Flat.
      [](int64_t i) { return static_cast<float>(i % 257 - 128) * 0.01f; },  // Ramp.
      [](int64_t i) { return i / 40 % 2 == 0 ? 0.5f : -0.125f; },           // Plateaus.
      [](int64_t i) { return i % 64 == 17 ? 1000.0f : static_cast<float>(i % 7 - 3) * 0.01f; },
      [](int64_t i) { return static_cast<float>(i % 5 - 2) * 1e-41f; },  // Subnormal.
      [](int64_t i) { return i % 64 == 3 ? FLT_MIN : static_cast<float>(i % 9 - 4) * 2e-39f; },
      [](int64_t i) { return i % 64 == 3 ? 2e-38f : static_cast<float>(i % 9 - 4) * 3e-39f; },
      [](int64_t i) { return i % 2 == 0 ? FLT_MAX : -1e38f; },  // Largest.
      [](int64_t i) {
        return i % 64 == 5 ? 0x1p126f : 0x1p126f * static_cast<float>(i % 9 - 4) / 9;
      },
      [](int64_t i) { return i % 64 == 5 ? 0x1.02p126f : static_cast<float>(i % 9 - 4) * 1e37f; },
      [](int64_t i) { return i % 64 == 5 ? 0x1p125f : static_cast<float>(i % 9 - 4) * 1e-3f; },
      [](int64_t i) { return i % 100 == 50 ? NAN : static_cast<float>(i % 9 - 4); },
      [](int64_t i) { return i % 100 == 50 ? -INFINITY : static_cast<float>(i % 9 - 4); },
      [](int64_t) { return NAN; },
      [](int64_t i) { return i % 3 == 0 ? INFINITY : NAN; },
  };
}

}  // namespace nibble
