// Quantizing, dequantizing and measuring on a device under test.

#pragma once

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/fp4_format.h"
#include "kernels/nf4_format.h"
#include "kernels/scale_search_ref.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {

// A case: a tensor and how to quantize it.
struct BlockCase {
  Codebook codebook = Codebook::kNf4;
  int64_t block_size = 64;
  FloatType type = FloatType::kBf16;
  std::vector<std::byte> source;
  ScaleSearch scale_search = ScaleSearch::kNone;

  int64_t element_count() const { return std::ssize(source) / BytesPerElement(type); }
};

struct BlockPlanes {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  uint64_t first_non_finite = 0;
};

inline BlockPlanes QuantizeWithReference(const BlockCase& c) {
  BlockPlanes planes;
  planes.codes.resize(static_cast<size_t>(CodeBytes(c.element_count())));
  planes.scales.resize(static_cast<size_t>(BlockCount(c.element_count(), c.block_size)));
  ScaleSearchRef(c.scale_search, c.codebook, c.block_size, c.type, c.source.data(),
                 c.element_count(), planes.codes.data(), planes.scales.data());
  planes.first_non_finite = FindNonFiniteRef(c.type, c.source.data(), c.element_count());
  return planes;
}

// Where planes lie relative to 256 bytes: kernels have paths for aligned and unaligned ones.
struct Skew {
  int64_t elements = 0;  // Of the source or target, in elements.
  int64_t codes = 0;     // In bytes.
  int64_t scales = 0;    // In floats.
};

class BlockTest : public DeviceTest {
 protected:
  BlockPlanes Quantize(const BlockCase& c, Skew skew = {}) {
    ForgetCuts();
    const int64_t count = c.element_count();
    const DeviceSpan source =
        CutGuarded(std::ssize(c.source), skew.elements * BytesPerElement(c.type));
    const DeviceSpan codes = CutGuarded(CodeBytes(count), skew.codes);
    const DeviceSpan scales = CutGuarded(ScaleBytes(count, c.block_size), skew.scales * 4);
    const DeviceSpan cell = CutGuarded(8, 0);
    Upload(c.source, source);
    const QuantizeArgs args = {c.codebook, c.block_size, c.type, count,         source,
                               codes,      scales,       cell,   c.scale_search};
    const absl::Status status = device_->ops().Quantize(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    BlockPlanes planes = {Download<uint8_t>(codes), Download<float>(scales),
                          Download<uint64_t>(cell).front()};
    ExpectGuardsIntact();
    return planes;
  }

  std::vector<std::byte> Dequantize(const BlockCase& c, const BlockPlanes& planes, Skew skew = {}) {
    ForgetCuts();
    const int64_t count = c.element_count();
    const DeviceSpan codes = CutGuarded(CodeBytes(count), skew.codes);
    const DeviceSpan scales = CutGuarded(ScaleBytes(count, c.block_size), skew.scales * 4);
    const DeviceSpan target =
        CutGuarded(count * BytesPerElement(c.type), skew.elements * BytesPerElement(c.type));
    Upload(std::as_bytes(std::span(planes.codes)), codes);
    Upload(std::as_bytes(std::span(planes.scales)), scales);
    const DequantizeArgs args = {c.codebook, c.block_size, c.type, count, codes, scales, target};
    const absl::Status status = device_->ops().Dequantize(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<std::byte> values = Download<std::byte>(target);
    ExpectGuardsIntact();
    return values;
  }

  std::vector<ErrorSums> MeasureError(const BlockCase& c, const BlockPlanes& planes,
                                      Skew skew = {}) {
    ForgetCuts();
    const int64_t count = c.element_count();
    const int64_t sums_bytes = ErrorChunkCount(count) * static_cast<int64_t>(sizeof(ErrorSums));
    const MeasureErrorArgs args = {
        c.codebook,
        c.block_size,
        c.type,
        count,
        Cut(std::ssize(c.source), skew.elements * BytesPerElement(c.type)),
        Cut(CodeBytes(count), skew.codes),
        Cut(ScaleBytes(count, c.block_size), skew.scales * 4),
        CutGuarded(sums_bytes, 8)};
    Upload(c.source, args.source);
    Upload(std::as_bytes(std::span(planes.codes)), args.codes);
    Upload(std::as_bytes(std::span(planes.scales)), args.scales);
    const absl::Status status = device_->ops().MeasureError(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<ErrorSums> sums = Download<ErrorSums>(args.sums);
    ExpectGuardsIntact();
    return sums;
  }
};

inline uint8_t CodeAt(const std::vector<uint8_t>& codes, int64_t index) {
  return static_cast<uint8_t>(codes[static_cast<size_t>(index / 2)] >> (index % 2 == 0 ? 4 : 0) &
                              0xf);
}

// Whether an element lies so near a threshold that the last bit of 1 / scale decides its code: the
// one difference that is documented, for an fp32 scale whose reciprocal no table holds.
inline bool IsAtThreshold(Codebook codebook, float value, float scale) {
  const double x = static_cast<double>(value) / static_cast<double>(scale);
  const auto near = [&](double threshold) {
    return std::fabs(x - threshold) <= std::fabs(threshold) * 3 * 0x1p-24;  // 1.5 ulp at least.
  };
  if (codebook == Codebook::kNf4) {
    return std::any_of(kNf4Thresholds.begin(), kNf4Thresholds.end(), near);
  }
  return std::any_of(kFp4Thresholds.begin(), kFp4Thresholds.end(),
                     [&](double threshold) { return near(threshold) || near(-threshold); });
}

// Counts the bytes of codes that differ; each must be explained by IsAtThreshold.
inline int64_t CountBytesAtThresholds(const BlockCase& c, const BlockPlanes& found,
                                      const BlockPlanes& expected) {
  int64_t differing = 0;
  for (int64_t index = 0; index < c.element_count(); ++index) {
    if (CodeAt(found.codes, index) != CodeAt(expected.codes, index)) {
      const float value = LoadElement(c.type, c.source.data(), index);
      const float scale = expected.scales[static_cast<size_t>(index / c.block_size)];
      EXPECT_TRUE(IsAtThreshold(c.codebook, value, scale))
          << "element " << index << ": " << value << " under " << scale << " has code "
          << int{CodeAt(found.codes, index)} << ", expected " << int{CodeAt(expected.codes, index)};
      ++differing;
    }
  }
  return differing;
}

}  // namespace nibble
