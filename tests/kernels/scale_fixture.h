// Double quantization on a device under test.

#pragma once

#include <bit>
#include <cmath>
#include <functional>
#include <random>

#include "kernels/scale_format.h"
#include "tests/kernels/block_fixture.h"

namespace nibble {

struct ScalePlanes {
  std::vector<uint8_t> codes;
  std::vector<float> absmax2;
};

inline std::vector<float> StandardMap() { return {kScaleMap.begin(), kScaleMap.end()}; }

inline size_t Blocks(size_t scale_count) {
  return static_cast<size_t>(ScaleBlockCount(static_cast<int64_t>(scale_count)));
}

inline std::vector<float> Generate(int64_t count, const std::function<float(int64_t)>& value) {
  std::vector<float> scales(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    scales[static_cast<size_t>(i)] = value(i);
  }
  return scales;
}

// As the scales of weights are: positive, around a mean.
inline std::vector<float> LikeScales(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::lognormal_distribution<float> lognormal(-3.0f, 0.3f);
  return Generate(count, [&](int64_t) { return lognormal(random); });
}

// `skew` is how far, in elements, planes lie beyond 256 bytes.
class ScaleTest : public BlockTest {
 protected:
  float MeanScale(const std::vector<float>& scales, int64_t skew = 0) {
    ForgetCuts();
    const DeviceSpan source = CutWith(scales, skew);
    const DeviceSpan offset = CutGuarded(4, 4 * skew);
    const absl::Status status =
        device_->ops().MeanScale(*queue_, {std::ssize(scales), source, offset});
    EXPECT_TRUE(status.ok()) << status;
    const float mean = Download<float>(offset).front();
    ExpectGuardsIntact();
    return mean;
  }

  ScalePlanes QuantizeScales(const std::vector<float>& scales, float offset, int64_t skew = 0) {
    ForgetCuts();
    const QuantizeScalesArgs args = {std::ssize(scales), CutWith(scales, skew),
                                     CutWith(std::vector<float>{offset}, skew),
                                     CutGuarded(std::ssize(scales), skew),
                                     CutGuarded(ScaleBlockCount(std::ssize(scales)) * 4, 4 * skew)};
    const absl::Status status = device_->ops().QuantizeScales(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    ScalePlanes planes = {Download<uint8_t>(args.scale_codes), Download<float>(args.absmax2)};
    ExpectGuardsIntact();
    return planes;
  }

  std::vector<float> DequantizeScales(const ScalePlanes& planes, float offset,
                                      const std::vector<float>& map, int64_t skew = 0) {
    ForgetCuts();
    const int64_t count = std::ssize(planes.codes);
    const DequantizeScalesArgs args = {count,
                                       CutWith(planes.codes, skew),
                                       CutWith(planes.absmax2, skew),
                                       CutWith(std::vector<float>{offset}, skew),
                                       CutWith(map, skew),
                                       CutGuarded(count * 4, 4 * skew)};
    const absl::Status status = device_->ops().DequantizeScales(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> scales = Download<float>(args.scales);
    ExpectGuardsIntact();
    return scales;
  }

  // Counts the codes that differ; each must be explained by an x so near a threshold that the last
  // bit of 1 / absmax2 decides, the one documented difference.
  static int64_t CountCodesAtThresholds(const std::vector<float>& scales, float offset,
                                        const ScalePlanes& found, const ScalePlanes& expected) {
    int64_t differing = 0;
    for (size_t i = 0; i < scales.size(); ++i) {
      if (found.codes[i] != expected.codes[i]) {
        const double x = static_cast<double>(scales[i] - offset) /
                         static_cast<double>(expected.absmax2[i / kScaleBlockSize]);
        EXPECT_TRUE(std::any_of(kScaleThresholds.begin(), kScaleThresholds.end(),
                                [&](double threshold) {  // 1.5 ulp at least, and one of the tie.
                                  return std::fabs(x - threshold) <=
                                         std::fabs(threshold) * 5 * 0x1p-24;
                                }))
            << "scale " << i << ": " << x << " has code " << int{found.codes[i]} << ", expected "
            << int{expected.codes[i]};
        EXPECT_EQ(std::abs(found.codes[i] - expected.codes[i]), 1);
        ++differing;
      }
    }
    return differing;
  }

 private:
  template <typename T>
  DeviceSpan CutWith(const std::vector<T>& values, int64_t skew) {
    const auto bytes = std::as_bytes(std::span(values));
    const DeviceSpan span = Cut(std::ssize(bytes), skew * static_cast<int64_t>(sizeof(T)));
    Upload(bytes, span);
    return span;
  }
};

}  // namespace nibble
