// Expanding 8-bit floats on every device: values from the definition of the types, scales by the
// place of an element in its matrix.

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "kernels/expand_f8_ref.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {
namespace {

class ExpandF8Test : public DeviceTest {
 protected:
  // `skew` is how far, in elements, planes lie beyond 256 bytes.
  std::vector<float> Expand(const F8Range& range, const std::vector<uint8_t>& source,
                            const std::vector<std::byte>& scales, int64_t skew = 0) {
    ForgetCuts();
    const ExpandF8Args args = {range, Cut(range.element_count, skew),
                               Cut(std::ssize(scales), skew * BytesPerElement(range.scale_type)),
                               CutGuarded(range.element_count * 4, skew * 4)};
    Upload(std::as_bytes(std::span(source)), args.source);
    Upload(scales, args.scales);
    const absl::Status status = device_->ops().ExpandF8(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<float> values = Download<float>(args.target);
    ExpectGuardsIntact();
    return values;
  }

  void ExpectAsReference(const F8Range& range, const std::vector<uint8_t>& source,
                         const std::vector<std::byte>& scales, int64_t skew = 0);
};
INSTANTIATE_TEST_SUITE_P(Host, ExpandF8Test, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ExpandF8Test, testing::ValuesIn(CudaDevices()), DeviceTestName);

constexpr F8Type kTypes[] = {F8Type::kE4M3, F8Type::kE5M2};
constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
constexpr FloatType kScaleTypes[] = {FloatType::kF32, FloatType::kBf16, FloatType::kF16};

// The same number; which NaN a NaN is does not matter.
void ExpectEqual(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (!(std::isnan(found[i]) && std::isnan(expected[i]))) {
      ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected[i]))
          << "element " << i << ": " << found[i] << ", expected " << expected[i];
    }
  }
}

void ExpandF8Test::ExpectAsReference(const F8Range& range, const std::vector<uint8_t>& source,
                                     const std::vector<std::byte>& scales, int64_t skew) {
  std::vector<float> expected(source.size());
  ExpandF8Ref(range, source.data(), scales.data(), expected.data());
  ExpectEqual(Expand(range, source, scales, skew), expected);
}

// sign * 1.mantissa * 2^(exponent - bias), or 0.mantissa with the smallest exponent.
float ValueByDefinition(F8Type type, int bits) {
  const int mantissa_bits = type == F8Type::kE4M3 ? 3 : 2;
  const int bias = type == F8Type::kE4M3 ? 7 : 15;
  const int exponent = (bits & 0x7f) >> mantissa_bits;
  const double mantissa = static_cast<double>(bits & ((1 << mantissa_bits) - 1)) /
                          static_cast<double>(1 << mantissa_bits);
  const double sign = bits < 128 ? 1 : -1;
  if (type == F8Type::kE4M3 && (bits & 0x7f) == 0x7f) {
    return NAN;
  }
  if (type == F8Type::kE5M2 && exponent == 31) {
    return mantissa == 0 ? static_cast<float>(sign) * INFINITY : NAN;
  }
  const double value =
      exponent == 0 ? std::ldexp(mantissa, 1 - bias) : std::ldexp(1 + mantissa, exponent - bias);
  return static_cast<float>(sign * value);
}

std::vector<std::byte> Scales(FloatType type, int64_t count,
                              const std::function<float(int64_t)>& value) {
  std::vector<std::byte> scales(static_cast<size_t>(count * BytesPerElement(type)));
  for (int64_t i = 0; i < count; ++i) {
    StoreElement(type, value(i), scales.data(), i);
  }
  return scales;
}

std::vector<uint8_t> RandomBytes(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<uint8_t>(random()); });
  return bytes;
}

// How a matrix is laid out; a range of it is cut by Range().
struct Matrix {
  int64_t rows, columns, block_rows, block_columns;

  F8Range Range(int64_t begin, int64_t end, FloatType scale_type = FloatType::kF32) const {
    return {F8Type::kE4M3, scale_type, begin, end - begin, columns, block_rows, block_columns};
  }
  int64_t scale_columns() const { return (columns + block_columns - 1) / block_columns; }
};

constexpr Matrix kMatrices[] = {
    {300, 200, 128, 128},  // Blocks at both edges are cut.
    {256, 256, 128, 128},  // None is.
    {40, 1000, 1, 1000},   // A scale a row.
    {40, 1000, 40, 1000},  // One for the tensor.
    {40, 1000, 64, 4096},  // The same, in a block that is larger.
    {7, 300, 1, 1},        // One for each element.
    {1000, 1, 3, 1},       // One column.
    {1, 1000, 1, 7},       // One row.
    {50, 333, 16, 31},     // Nothing is even.
    {100, 3, 1, 2},        // Rows shorter than a vector.
};

// A scale that tells its place; exact in bf16.
float ScaleAt(int64_t scale_row, int64_t scale_column) {
  return static_cast<float>(1 + (scale_row * 17 + scale_column) % 127);
}

TEST_P(ExpandF8Test, ExpandsEveryByteOfBothTypes) {
  for (const F8Type type : kTypes) {
    std::vector<uint8_t> source;
    std::vector<float> expected;
    for (int bits = 0; bits < 256; ++bits) {
      source.push_back(static_cast<uint8_t>(bits));
      expected.push_back(ValueByDefinition(type, bits));
    }
    const F8Range range = {type, FloatType::kF32, 0, 256, 256, 1, 256};
    const auto one = Scales(FloatType::kF32, 1, [](int64_t) { return 1.0f; });
    ExpectEqual(Expand(range, source, one), expected);
    ExpectEqual(Expand(range, source, one, 3), expected);
  }
}

TEST_P(ExpandF8Test, ExpandsKnownBytes) {
  const auto two = Scales(FloatType::kF32, 1, [](int64_t) { return 2.0f; });
  const F8Range range = {F8Type::kE4M3, FloatType::kF32, 0, 6, 6, 1, 6};
  ExpectEqual(Expand(range, {0x38, 0xb8, 0x7e, 0x08, 0x01, 0x80}, two),
              {2.0f, -2.0f, 896.0f, 0x1p-5f, 0x1p-8f, -0.0f});
  F8Range wide = range;
  wide.type = F8Type::kE5M2;
  ExpectEqual(Expand(wide, {0x3c, 0xbc, 0x7b, 0x04, 0x01, 0xfc}, two),
              {2.0f, -2.0f, 114688.0f, 0x1p-13f, 0x1p-15f, -INFINITY});
}

TEST_P(ExpandF8Test, GivesEachElementTheScaleOfItsBlockWhereverARangeBegins) {
  for (const Matrix& matrix : kMatrices) {
    const int64_t count = matrix.rows * matrix.columns;
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, count},
                                     {1, count},
                                     {count / 2 - 3, count - 1},
                                     {count / 3, count / 3 + 1},
                                     {count - 9, count},
                                     {count / 7, count / 2}}) {
      SCOPED_TRACE(testing::Message() << matrix.rows << " x " << matrix.columns << " in blocks of "
                                      << matrix.block_rows << " x " << matrix.block_columns
                                      << ", elements " << begin << " to " << end);
      const F8Range range = matrix.Range(begin, end, FloatType::kBf16);
      const int64_t first_row = begin / matrix.columns / matrix.block_rows;
      const int64_t last_row = (end - 1) / matrix.columns / matrix.block_rows;
      EXPECT_EQ(range.first_scale_row(), first_row);
      EXPECT_EQ(range.scale_row_count(), last_row - first_row + 1);
      const auto scales = Scales(
          FloatType::kBf16, (last_row - first_row + 1) * matrix.scale_columns(), [&](int64_t i) {
            return ScaleAt(first_row + i / matrix.scale_columns(), i % matrix.scale_columns());
          });
      std::vector<float> expected;
      for (int64_t i = begin; i < end; ++i) {
        expected.push_back(ScaleAt(i / matrix.columns / matrix.block_rows,
                                   i % matrix.columns / matrix.block_columns));
      }
      const std::vector<uint8_t> ones(static_cast<size_t>(end - begin), 0x38);  // 1.0
      ExpectEqual(Expand(range, ones, scales), expected);
    }
  }
}

TEST_P(ExpandF8Test, EqualsTheReferenceOnRandomBitsOfEveryType) {
  for (const F8Type type : kTypes) {
    for (const FloatType scale_type : kScaleTypes) {
      for (const int64_t skew : {0, 1, 8}) {
        F8Range range = kMatrices[0].Range(1003, 60000 - 77, scale_type);
        range.type = type;
        const auto bytes = RandomBytes(
            range.scale_row_count() * range.scale_columns() * BytesPerElement(scale_type), 3);
        const auto scales = std::as_bytes(std::span(bytes));
        ExpectAsReference(range, RandomBytes(range.element_count, 7),
                          {scales.begin(), scales.end()}, skew);
      }
    }
  }
}

TEST_P(ExpandF8Test, EqualsTheReferenceAtEveryLength) {
  for (int64_t count = 0; count < 70; ++count) {
    const F8Range range = kMatrices[8].Range(320, 320 + count);
    const auto scales = Scales(FloatType::kF32, range.scale_row_count() * range.scale_columns(),
                               [](int64_t i) { return 0.01f * static_cast<float>(i + 1); });
    SCOPED_TRACE(testing::Message() << count << " elements");
    ExpectAsReference(range, RandomBytes(count, 7), scales);
    ExpectAsReference(range, RandomBytes(count, 7), scales, 3);
  }
}

// Positions beyond 32 bits: of an element in its matrix, not in memory.
TEST_P(ExpandF8Test, FindsScalesFarIntoAMatrix) {
  const int64_t begin = 5'000'000'003;
  const F8Range range = {F8Type::kE4M3, FloatType::kF32, begin, 100000, 12345, 128, 128};
  const auto scales =
      Scales(FloatType::kF32, range.scale_row_count() * range.scale_columns(),
             [&](int64_t i) { return ScaleAt(range.first_scale_row() + i / 97, i % 97); });
  std::vector<float> expected;
  for (int64_t i = begin; i < begin + 100000; ++i) {
    expected.push_back(ScaleAt(i / 12345 / 128, i % 12345 / 128));
  }
  ExpectEqual(Expand(range, std::vector<uint8_t>(100000, 0x38), scales), expected);
}

TEST_P(ExpandF8Test, LeavesWhatIsNotFiniteForTheCheckThatFollows) {
  const auto scales = Scales(FloatType::kF32, 1, [](int64_t) { return 1e-3f; });
  for (const auto& [type, bits] : {std::pair{F8Type::kE4M3, 0x7f},
                                   {F8Type::kE4M3, 0xff},
                                   {F8Type::kE5M2, 0x7c},
                                   {F8Type::kE5M2, 0xfd}}) {
    std::vector<uint8_t> source(1000, 0x22);
    source[617] = static_cast<uint8_t>(bits);
    const std::vector<float> values =
        Expand({type, FloatType::kF32, 0, 1000, 1000, 1, 1000}, source, scales);
    const DeviceSpan span = Cut(4000);
    const DeviceSpan cell = Cut(8);
    Upload(std::as_bytes(std::span(values)), span);
    const FindNonFiniteArgs args = {FloatType::kF32, 1000, span, cell};
    ASSERT_TRUE(device_->ops().FindNonFinite(*queue_, args).ok());
    EXPECT_EQ(Download<uint64_t>(cell).front(), 617u);
  }
}

TEST_P(ExpandF8Test, RefusesSpansAndShapesThatDoNotFit) {
  const Matrix matrix = {300, 200, 128, 128};
  const ExpandF8Args good = {matrix.Range(100, 30000), Cut(29900), Cut(4 * 4), Cut(29900 * 4)};
  EXPECT_TRUE(CheckArgs(good).ok()) << CheckArgs(good);
  for (const auto& spoil : std::vector<std::function<void(ExpandF8Args&)>>{
           [](ExpandF8Args& args) { args.range.columns = 0; },
           [](ExpandF8Args& args) { args.range.columns = -200; },
           [](ExpandF8Args& args) { args.range.columns = kLargest; },
           [](ExpandF8Args& args) { args.range.block_rows = 0; },
           [](ExpandF8Args& args) { args.range.block_rows = -1; },
           [](ExpandF8Args& args) { args.range.block_columns = 0; },
           [](ExpandF8Args& args) { args.range.block_columns = 64; },
           [](ExpandF8Args& args) { args.range.first_index = -1; },
           [](ExpandF8Args& args) { args.range.first_index = kLargest; },
           [](ExpandF8Args& args) { args.range.element_count = -1; },
           [](ExpandF8Args& args) { args.range.element_count = kLargest; },
           [](ExpandF8Args& args) { args.range.element_count -= 1; },
           [](ExpandF8Args& args) { args.range.scale_type = FloatType::kF16; },
           [](ExpandF8Args& args) { args.scales = args.scales.Slice(0, 12); },
           [](ExpandF8Args& args) { args.target = DeviceSpan(args.target.address() + 1, 119600); },
       }) {
    ExpandF8Args bad = good;
    spoil(bad);
    EXPECT_TRUE(absl::IsInvalidArgument(device_->ops().ExpandF8(*queue_, bad)));
  }
}

}  // namespace
}  // namespace nibble
