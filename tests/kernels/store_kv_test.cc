// Storing keys and values in every type of cache, against hand-derived bits.

#include <limits>

#include "tests/kernels/step_fixture.h"

namespace nibble {
namespace {

class StoreKvTest : public StepTest {
 protected:
  // Stores two heads of three numbers for each row, and returns the cache's bytes.
  template <typename T>
  std::vector<T> Store(KvType type, const std::vector<float>& keys,
                       const std::vector<int32_t>& slots) {
    const int64_t live = std::ssize(slots);
    const std::vector<T> untouched(static_cast<size_t>(kSlots * 6), T{0x1111});
    StoreKvArgs args;
    args.rows = UploadRowCount(live + 2, live);
    args.keys = UploadRows(live + 2, 2, 3, keys, {.rows = 4, .groups = 1, .front = 1});
    std::vector<float> values = keys;
    for (float& value : values) {
      value = -value;
    }
    args.values = UploadRows(live + 2, 2, 3, values, {.rows = 1});
    args.slots = UploadIndices(slots, live + 2);
    args.cache = {type, kSlots, 2, 3, UploadVector(untouched), UploadVector(untouched)};
    ExpectOk(ops().StoreKv(*queue_, args));
    const std::vector<T> found = Download<T>(args.cache.keys);
    std::vector<T> negated = Download<T>(args.cache.values);
    const T sign = static_cast<T>(T{1} << (8 * sizeof(T) - 1));
    for (size_t i = 0; i < negated.size(); ++i) {
      if (found[i] != T{0x1111} && !std::isnan(keys[0])) {  // A NaN has no sign there.
        negated[i] = static_cast<T>(negated[i] ^ sign);
      }
    }
    EXPECT_EQ(negated, found) << "values are not stored as keys are";
    ExpectGuardsIntact();
    return found;
  }

  std::vector<uint16_t> FirstSlot(KvType type, const std::vector<float>& keys) {
    const std::vector<uint16_t> found = Store<uint16_t>(type, keys, {0});
    return {found.begin(), found.begin() + 6};
  }

  static constexpr int32_t kSlots = 5;
};
INSTANTIATE_TEST_SUITE_P(Host, StoreKvTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, StoreKvTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

constexpr float kInf = std::numeric_limits<float>::infinity();

// 1 + 2^-11 and 1 + 3 * 2^-11 lie between two numbers of F16: the even one.
TEST_P(StoreKvTest, RoundsToNearestEvenAndSaturatesInF16) {
  const std::vector<float> numbers = {1 + 0x1p-11f, 1 + 3 * 0x1p-11f, 65519, 65520, -1e9f, kInf};
  const std::vector<uint16_t> found = Store<uint16_t>(KvType::kF16, numbers, {3});
  EXPECT_EQ(std::vector<uint16_t>(found.begin() + 18, found.begin() + 24),
            (std::vector<uint16_t>{0x3c00, 0x3c02, 0x7bff, 0x7bff, 0xfbff, 0x7bff}));
}

TEST_P(StoreKvTest, RoundsToNearestEvenInBf16) {
  const std::vector<float> numbers = {1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 65520, -2.5f, -1e30f, kInf};
  const std::vector<uint16_t> found = Store<uint16_t>(KvType::kBf16, numbers, {0});
  // 65520 = 1.99951 * 2^15 rounds up to 2^16; 1e30 is 0x7149f2ca.
  EXPECT_EQ(std::vector<uint16_t>(found.begin(), found.begin() + 6),
            (std::vector<uint16_t>{0x3f80, 0x3f82, 0x4780, 0xc020, 0xf14a, 0x7f80}));
}

TEST_P(StoreKvTest, KeepsF32) {
  const std::vector<float> numbers = {1 + 0x1p-23f, -3e38f, 0x1p-149f, 0.1f, 7, kInf};
  const std::vector<uint32_t> found = Store<uint32_t>(KvType::kF32, numbers, {2});
  for (size_t i = 0; i < numbers.size(); ++i) {
    EXPECT_EQ(found[12 + i], std::bit_cast<uint32_t>(numbers[i]));
  }
}

TEST_P(StoreKvTest, KeepsNanInEveryType) {
  const std::vector<float> numbers(6, std::numeric_limits<float>::quiet_NaN());
  for (const uint16_t found : FirstSlot(KvType::kF16, numbers)) {
    EXPECT_GT(found & 0x7fff, 0x7c00);
  }
  for (const uint16_t found : FirstSlot(KvType::kBf16, numbers)) {
    EXPECT_GT(found & 0x7fff, 0x7f80);
  }
}

TEST_P(StoreKvTest, PutsEachRowInItsSlotAndLeavesTheRest) {
  std::vector<float> numbers;
  for (int i = 0; i < 18; ++i) {
    numbers.push_back(static_cast<float>(i + 1));
  }
  const std::vector<uint32_t> found = Store<uint32_t>(KvType::kF32, numbers, {4, -1, 1});
  for (size_t i = 0; i < found.size(); ++i) {
    const uint32_t expected = i >= 24   ? std::bit_cast<uint32_t>(numbers[i - 24])
                              : i >= 12 ? 0x1111
                              : i >= 6  ? std::bit_cast<uint32_t>(numbers[12 + i - 6])
                                        : 0x1111;
    EXPECT_EQ(found[i], expected) << i;
  }
}

TEST_P(StoreKvTest, SkipsARowWhoseSlotThereIsNot) {
  if (is_host()) {
    GTEST_SKIP() << "the host device ends the process: its caller checks slots";
  }
  const std::vector<uint32_t> found =
      Store<uint32_t>(KvType::kF32, std::vector<float>(12, 1.0f), {kSlots, 0x7fffffff});
  EXPECT_EQ(found, std::vector<uint32_t>(kSlots * 6, 0x1111));
}

}  // namespace
}  // namespace nibble
