// Running the operations of a step on a device under test: activations with gaps between their rows
// and groups, which must stay as they were, and counts that are read from device memory.

#pragma once

#include <bit>
#include <cmath>
#include <random>

#include "kernels/step_ops.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {

inline constexpr double kUnit = 0x1p-24;  // Half an ulp of 1: what one fp32 operation may lose.

// A NaN that no operation makes: in a source it spoils what reads it, in a target it shows what was
// not written.
inline constexpr uint32_t kUntouched = 0x7fc5a5a5;

// Numbers between rows and between groups, and in front of both. All 0: without gaps.
struct Gaps {
  int64_t rows = 0;
  int64_t groups = 0;
  int64_t front = 0;
};

// Uniform in [-1, 1), the same on every machine.
class RandomNumbers {
 public:
  explicit RandomNumbers(uint32_t seed) : random_(seed) {}

  float Next() { return static_cast<float>(static_cast<int32_t>(random_()) >> 8) * 0x1p-23f; }
  int64_t Below(int64_t end) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(end));
  }
  std::vector<float> Vector(int64_t count, float largest = 1) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) {
      value = Next() * largest;
    }
    return values;
  }

 private:
  std::mt19937 random_;
};

class StepTest : public DeviceTest {
 protected:
  StepOps& ops() { return device_->step_ops(); }

  template <typename T>
  DeviceSpan UploadVector(const std::vector<T>& values, int64_t skew_bytes = 0) {
    const DeviceSpan span =
        CutGuarded(std::ssize(values) * static_cast<int64_t>(sizeof(T)), skew_bytes);
    Upload(std::as_bytes(std::span(values)), span);
    return span;
  }

  // `count` integers: those given, then some that lead nowhere.
  DeviceSpan UploadIndices(std::vector<int32_t> values, int64_t count) {
    values.resize(static_cast<size_t>(count), 0x7ffffff0);
    return UploadVector(values);
  }

  DeviceSpan UploadCount(int64_t count) {
    return UploadVector(std::vector<int32_t>{static_cast<int32_t>(count)});
  }
  RowCount UploadRowCount(int64_t bound, int64_t live) { return {bound, UploadCount(live)}; }

  // Activations whose numbers all are kUntouched.
  Activations CutRows(int64_t rows, int64_t groups, int64_t width, Gaps gaps = {}) {
    const int64_t group_stride = width + gaps.groups;
    const int64_t row_stride = groups * group_stride + gaps.rows;
    const int64_t count = (rows - 1) * row_stride + (groups - 1) * group_stride + width;
    const std::vector<uint32_t> numbers(static_cast<size_t>(count), kUntouched);
    return {UploadVector(numbers, gaps.front * 4), width, row_stride, groups, group_stride};
  }

  // Activations of `bound` rows, the first of which hold `values` [rows, groups, width].
  Activations UploadRows(int64_t bound, int64_t groups, int64_t width,
                         const std::vector<float>& values, Gaps gaps = {}) {
    const Activations activations = CutRows(bound, groups, width, gaps);
    std::vector<float> numbers = Download<float>(activations.span);
    for (size_t i = 0; i < values.size(); ++i) {
      numbers[PlaceOf(activations, static_cast<int64_t>(i))] = values[i];
    }
    Upload(std::as_bytes(std::span(numbers)), activations.span);
    return activations;
  }

  // The first `live` rows [live, groups, width]. Nothing else of the span may have been written.
  std::vector<float> DownloadRows(const Activations& activations, int64_t live) {
    std::vector<float> numbers = Download<float>(activations.span);
    std::vector<float> values(static_cast<size_t>(live * activations.groups * activations.width));
    for (size_t i = 0; i < values.size(); ++i) {
      float& number = numbers[PlaceOf(activations, static_cast<int64_t>(i))];
      values[i] = number;
      number = std::bit_cast<float>(kUntouched);
    }
    for (const float number : numbers) {
      if (std::bit_cast<uint32_t>(number) != kUntouched) {
        ADD_FAILURE() << "a gap or a row beyond the live ones was written";
        break;
      }
    }
    return values;
  }

  void ExpectOk(const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; }

 private:
  static size_t PlaceOf(const Activations& activations, int64_t index) {
    const int64_t i = index % activations.width;
    const int64_t group = index / activations.width % activations.groups;
    const int64_t row = index / activations.width / activations.groups;
    return static_cast<size_t>(row * activations.row_stride + group * activations.group_stride + i);
  }
};

// What a test expects of a number.
struct Expected {
  double value = 0;
  double tolerance = 0;
};

inline void ExpectNear(const std::vector<float>& found, const std::vector<Expected>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(double{found[i]}, expected[i].value, expected[i].tolerance) << "number " << i;
  }
}

// Rows `from` on of [.., width].
inline std::vector<float> RowsOf(const std::vector<float>& values, int64_t width, int64_t from,
                                 int64_t count) {
  return {values.begin() + from * width, values.begin() + (from + count) * width};
}

}  // namespace nibble
