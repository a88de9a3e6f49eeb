#include "kernels/block_quantize_ref.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "kernels/flush_subnormal.h"
#include "kernels/fp4_format.h"
#include "kernels/gpu_reciprocal.h"
#include "kernels/nf4_format.h"
#include "kernels/ops.h"

namespace nibble {
namespace {

float FloatFromHalf(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  if (exponent == 0) {  // Zero or subnormal: mantissa * 2^-24, exact in fp32.
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

uint16_t HalfFromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  if (std::isnan(value)) {
    return 0x7fff;  // What the GPU makes of every NaN.
  }
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0f) {  // Halfway between the largest half and 2^16 rounds to infinity.
    return static_cast<uint16_t>(sign | 0x7c00);
  }
  if (magnitude < 0x1p-14f) {  // Subnormal: whole multiples of 2^-24, rounded by the FPU.
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
  }
  const uint32_t rounded = (bits & 0x7fffffff) + 0xfff + ((bits >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - ((127u - 15u) << 23)) >> 13));
}

uint16_t Bf16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) {
    return 0x7fff;
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint8_t Nf4Code(float x) {
  uint8_t code = 0;
  for (const float threshold : kNf4Thresholds) {
    code = static_cast<uint8_t>(code + (x > threshold ? 1 : 0));
  }
  return code;
}

uint8_t Fp4Code(float x) {
  size_t rank = 0;
  for (const float threshold : kFp4Thresholds) {
    rank += std::fabs(x) > threshold ? 1 : 0;
  }
  return static_cast<uint8_t>(kFp4Order[rank] | (x < 0 ? 8 : 0));
}

// The largest magnitude as CUDA's fmaxf sees it, which ignores NaN.
float BlockScale(FloatType type, const std::byte* source, int64_t begin, int64_t end,
                 bool short_block) {
  // A short block is padded with zeros, which a full block of NaN has none of.
  float scale = short_block ? 0.0f : -FLT_MAX;
  for (int64_t index = begin; index < end; ++index) {
    const float magnitude = std::fabs(LoadElement(type, source, index));
    scale = magnitude > scale ? magnitude : scale;
  }
  return FlushSubnormal(scale);
}

}  // namespace

float LoadElement(FloatType type, const std::byte* source, int64_t index) {
  if (type == FloatType::kF32) {
    float value = 0;
    std::memcpy(&value, source + index * 4, sizeof(value));
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, source + index * 2, sizeof(bits));
  return type == FloatType::kF16 ? FloatFromHalf(bits)
                                 : std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

void StoreElement(FloatType type, float value, std::byte* target, int64_t index) {
  if (type == FloatType::kF32) {
    const uint32_t bits = std::isnan(value) ? 0x7fffffff : std::bit_cast<uint32_t>(value);
    std::memcpy(target + index * 4, &bits, sizeof(bits));
    return;
  }
  const uint16_t bits = type == FloatType::kF16 ? HalfFromFloat(value) : Bf16FromFloat(value);
  std::memcpy(target + index * 2, &bits, sizeof(bits));
}

void QuantizeRef(Codebook codebook, int64_t block_size, FloatType type, const std::byte* source,
                 int64_t element_count, uint8_t* codes, float* scales) {
  std::fill_n(codes, CodeBytes(element_count), uint8_t{0});
  for (int64_t block = 0; block * block_size < element_count; ++block) {
    const int64_t begin = block * block_size;
    const int64_t end = std::min(begin + block_size, element_count);
    const float scale = BlockScale(type, source, begin, end, end - begin < block_size);
    scales[block] = scale;
    const float reciprocal = GpuReciprocal(scale);
    // The pad of an odd tail is an element of 0.
    for (int64_t index = begin; index < end + (end & 1); ++index) {
      const float value = index < end ? LoadElement(type, source, index) : 0.0f;
      const float x = FlushSubnormal(FlushSubnormal(value) * reciprocal);
      const uint8_t code = codebook == Codebook::kNf4 ? Nf4Code(x) : Fp4Code(x);
      codes[index / 2] = static_cast<uint8_t>(codes[index / 2] | code << (index % 2 == 0 ? 4 : 0));
    }
  }
}

void DequantizeRef(Codebook codebook, int64_t block_size, FloatType type, const uint8_t* codes,
                   const float* scales, int64_t element_count, std::byte* target) {
  const auto& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
  for (int64_t index = 0; index < element_count; ++index) {
    const int code = codes[index / 2] >> (index % 2 == 0 ? 4 : 0) & 0xf;
    const float scale = FlushSubnormal(scales[index / block_size]);
    const float value = FlushSubnormal(values[static_cast<size_t>(code)] * scale);
    StoreElement(type, value, target, index);
  }
}

uint64_t FindNonFiniteRef(FloatType type, const std::byte* source, int64_t element_count) {
  for (int64_t index = 0; index < element_count; ++index) {
    if (!std::isfinite(LoadElement(type, source, index))) {
      return static_cast<uint64_t>(index);
    }
  }
  return kAllFinite;
}

}  // namespace nibble
