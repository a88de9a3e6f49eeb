// Operations at once do what they do one after the other, on every device.

#include "tests/kernels/step_fixture.h"

namespace nibble {
namespace {

class FusedOpsTest : public StepTest {};
INSTANTIATE_TEST_SUITE_P(Host, FusedOpsTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, FusedOpsTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// What is compared may round otherwise in a last bit or two, of numbers up to `largest`.
void ExpectAlike(const std::vector<float>& found, const std::vector<float>& expected,
                 double largest) {
  std::vector<Expected> numbers;
  for (const float number : expected) {
    numbers.push_back({double{number}, 4 * kUnit * largest});
  }
  ExpectNear(found, numbers);
}

// `gap` is what lies between rows: 1 and a width of 33 are not for loads of four numbers.
TEST_P(FusedOpsTest, AddsAndNorms) {
  for (const int64_t width : {33, 512, 4096, 5000, 8196}) {
    for (const int64_t gap : {1, 4}) {
      for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
        SCOPED_TRACE(testing::Message() << width << " with gaps of " << gap);
        ForgetCuts();
        const std::vector<float> hidden = RandomNumbers(1).Vector(2 * width);
        const std::vector<float> source = RandomNumbers(2).Vector(2 * width);
        const std::vector<float> weights = RandomNumbers(3).Vector(width);
        AddNormArgs args;
        args.add.rows = UploadRowCount(3, 2);
        args.add.source = UploadRows(3, 1, width, source, {.rows = 2 * gap});
        args.add.target = UploadRows(3, 1, width, hidden, {.rows = gap});
        args.norm.rows = args.add.rows;
        args.norm.kind = kind;
        args.norm.epsilon = 1e-5f;
        args.norm.weight = {FloatType::kF32, UploadVector(weights)};
        args.norm.source = args.add.target;
        args.norm.target = CutRows(3, 1, width, {.rows = 3 * gap});
        ExpectOk(ops().AddNorm(*queue_, args));
        const std::vector<float> sums = DownloadRows(args.add.target, 2);
        for (size_t i = 0; i < sums.size(); ++i) {
          ASSERT_EQ(sums[i], hidden[i] + source[i]) << i;
        }
        EXPECT_EQ(DownloadRows(args.add.source, 2), source);
        const std::vector<float> normed = DownloadRows(args.norm.target, 2);
        args.norm.target = CutRows(3, 1, width, {.rows = 3 * gap});
        ExpectOk(ops().Norm(*queue_, args.norm));
        // Numbers are at most 2 over a root of their mean square of some 0.8.
        ExpectAlike(normed, DownloadRows(args.norm.target, 2), 4);
        ExpectGuardsIntact();
      }
    }
  }
}

TEST_P(FusedOpsTest, AddsToOneAndNormsAnother) {
  AddNormArgs args;
  args.add.rows = UploadRowCount(1, 1);
  args.add.source = UploadRows(1, 1, 4, {1, 2, 3, 4});
  args.add.target = UploadRows(1, 1, 4, {10, 10, 10, 10});
  args.norm.rows = args.add.rows;
  args.norm.weight = {FloatType::kF32, UploadVector(std::vector<float>{1, 2, 1, 1})};
  args.norm.source = UploadRows(1, 1, 4, {2, 2, 2, 2});
  args.norm.target = CutRows(1, 1, 4);
  ExpectOk(ops().AddNorm(*queue_, args));
  EXPECT_EQ(DownloadRows(args.add.target, 1), (std::vector<float>{11, 12, 13, 14}));
  EXPECT_EQ(DownloadRows(args.norm.target, 1), (std::vector<float>{1, 2, 1, 1}));
}

class RopeStoreKvTest : public FusedOpsTest {
 protected:
  static constexpr int64_t kHeads = 6;
  static constexpr int64_t kKeyHeads = 2;
  static constexpr int64_t kSlots = 5;

  struct Result {
    std::vector<float> queries;
    std::vector<float> keys;
    std::vector<float> cached_keys;
    std::vector<float> cached_values;
  };

  // Three live rows of four, one of which goes nowhere.
  RopeStoreKvArgs MakeArgs(bool interleaved, int64_t size, int64_t count) {
    ForgetCuts();
    RandomNumbers random(7);
    RopeStoreKvArgs args;
    args.queries.rows = UploadRowCount(4, 3);
    args.queries.positions = UploadIndices({0, 3, 131071}, 4);
    std::vector<float> frequencies;
    for (int64_t i = 0; i < count; ++i) {
      frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(count)));
    }
    args.queries.frequencies = UploadVector(frequencies);
    args.queries.frequency_count = count;
    args.queries.interleaved = interleaved;
    args.queries.magnitude = 1.25f;
    args.keys = args.queries;
    args.queries.heads = UploadRows(4, kHeads, size, random.Vector(3 * kHeads * size),
                                    {.rows = 5, .groups = 3, .front = 1});
    args.keys.heads =
        UploadRows(4, kKeyHeads, size, random.Vector(3 * kKeyHeads * size), {.rows = 1});
    args.store.rows = args.queries.rows;
    args.store.keys = args.keys.heads;
    args.store.values = UploadRows(4, kKeyHeads, size, random.Vector(3 * kKeyHeads * size),
                                   {.rows = 2, .groups = 1});
    args.store.slots = UploadIndices({4, -1, 1}, 4);
    const std::vector<float> untouched(static_cast<size_t>(kSlots * kKeyHeads * size), 77.0f);
    args.store.cache = {KvType::kF32,           kSlots, kKeyHeads, size, UploadVector(untouched),
                        UploadVector(untouched)};
    return args;
  }

  Result ResultOf(const RopeStoreKvArgs& args) {
    ExpectGuardsIntact();
    return {DownloadRows(args.queries.heads, 3), DownloadRows(args.keys.heads, 3),
            Download<float>(args.store.cache.keys), Download<float>(args.store.cache.values)};
  }

  Result OneByOne(const RopeStoreKvArgs& args) {
    ExpectOk(ops().Rope(*queue_, args.queries));
    ExpectOk(ops().Rope(*queue_, args.keys));
    ExpectOk(ops().StoreKv(*queue_, args.store));
    return ResultOf(args);
  }

  static void ExpectSame(const Result& found, const Result& expected) {
    ExpectAlike(found.queries, expected.queries, 2);
    ExpectAlike(found.keys, expected.keys, 2);
    ExpectAlike(found.cached_keys, expected.cached_keys, 2);
    EXPECT_EQ(found.cached_values, expected.cached_values);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, RopeStoreKvTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, RopeStoreKvTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

TEST_P(RopeStoreKvTest, TurnsAndStores) {
  for (const bool interleaved : {false, true}) {
    for (const auto& [size, count] :
         {std::pair<int64_t, int64_t>{128, 64}, {64, 16}, {101, 50}, {2, 1}, {300, 1}}) {
      SCOPED_TRACE(testing::Message() << size << ", " << count << " turned");
      const Result expected = OneByOne(MakeArgs(interleaved, size, count));
      const RopeStoreKvArgs args = MakeArgs(interleaved, size, count);
      ExpectOk(ops().RopeStoreKv(*queue_, args));
      ExpectSame(ResultOf(args), expected);
    }
  }
}

TEST_P(RopeStoreKvTest, TurnsQueriesOtherwiseThanKeys) {
  const auto other = [this] {
    RopeStoreKvArgs args = MakeArgs(false, 64, 32);
    args.queries.magnitude = 0.5f;
    return args;
  };
  const Result expected = OneByOne(other());
  const RopeStoreKvArgs args = other();
  ExpectOk(ops().RopeStoreKv(*queue_, args));
  ExpectSame(ResultOf(args), expected);
}

TEST_P(RopeStoreKvTest, NarrowsWhatIsTurned) {
  RopeStoreKvArgs args = MakeArgs(false, 64, 32);
  args.store.cache.type = KvType::kF16;  // The half of its spans.
  ExpectOk(ops().RopeStoreKv(*queue_, args));
  const std::vector<float> keys = DownloadRows(args.keys.heads, 3);
  const std::vector<uint16_t> cached = Download<uint16_t>(args.store.cache.keys);
  const size_t row = kKeyHeads * 64;
  for (size_t i = 0; i < row; ++i) {
    // Row 2 lies in slot 1. f16: a sign, five bits of exponent from 15, ten of the rest.
    const uint16_t bits = cached[row + i];
    const double magnitude = (bits >> 10 & 31) == 0
                                 ? std::ldexp(bits & 1023, -24)
                                 : std::ldexp(1024 + (bits & 1023), (bits >> 10 & 31) - 25);
    const double value = (bits & 0x8000) != 0 ? -magnitude : magnitude;
    const double key = double{keys[2 * row + i]};
    ASSERT_NEAR(value, key, std::fabs(key) * 0x1p-11 + 0x1p-25) << i;
  }
}

}  // namespace
}  // namespace nibble
