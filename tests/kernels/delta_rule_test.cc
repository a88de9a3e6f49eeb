// The gated delta rule on every device against double precision, and a step against several.

#include "tests/kernels/state_fixture.h"

namespace nibble {
namespace {

struct DeltaCase {
  int64_t key_heads;
  int64_t value_heads;
  int64_t key_size;
  int64_t value_size;
};

// What the rule reads of some rows.
struct DeltaRows {
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;
  std::vector<float> decay_gate;
  std::vector<float> write_gate;

  DeltaRows Slice(const DeltaCase& c, int64_t from, int64_t count) const {
    return {RowsOf(queries, c.key_heads * c.key_size, from, count),
            RowsOf(keys, c.key_heads * c.key_size, from, count),
            RowsOf(values, c.value_heads * c.value_size, from, count),
            RowsOf(decay_gate, c.value_heads, from, count),
            RowsOf(write_gate, c.value_heads, from, count)};
  }
};

DeltaRows MakeDeltaRows(const DeltaCase& c, int64_t count, uint32_t seed) {
  RandomNumbers random(seed);
  return {random.Vector(count * c.key_heads * c.key_size),
          random.Vector(count * c.key_heads * c.key_size),
          random.Vector(count * c.value_heads * c.value_size),
          random.Vector(count * c.value_heads, 3), random.Vector(count * c.value_heads, 3)};
}

class DeltaRuleTest : public StateTest {
 protected:
  void MakeWeights(const DeltaCase& c) {
    RandomNumbers random(60);
    decay_ = random.Vector(c.value_heads);
    bias_ = random.Vector(c.value_heads);
    bias_[0] = 25;  // Where softplus is the identity, with every gate here.
  }

  std::vector<float> Apply(const DeltaCase& c, const std::vector<Piece>& pieces,
                           const DeltaRows& rows, DeviceSpan state) {
    const int64_t live = RowCountOf(pieces);
    const int64_t bound = live + 2;
    DeltaRuleArgs args;
    args.rows = UploadRowCount(bound, live);
    args.sequences = UploadSequences(pieces);
    args.key_heads = c.key_heads;
    args.value_heads = c.value_heads;
    args.key_size = c.key_size;
    args.value_size = c.value_size;
    args.queries = UploadRows(bound, c.key_heads, c.key_size, rows.queries, {.rows = 5});
    args.keys = UploadRows(bound, c.key_heads, c.key_size, rows.keys, {.groups = 1});
    args.values = UploadRows(bound, c.value_heads, c.value_size, rows.values, {.front = 1});
    args.decay_gate = UploadRows(bound, 1, c.value_heads, rows.decay_gate, {.rows = 2});
    args.write_gate = UploadRows(bound, 1, c.value_heads, rows.write_gate);
    args.decay = {FloatType::kF32, UploadVector(decay_)};
    args.bias = {FloatType::kF32, UploadVector(bias_)};
    args.target = CutRows(bound, c.value_heads, c.value_size, {.rows = 1, .groups = 2});
    args.slot_count = kSlots;
    args.state = state;
    ExpectOk(ops().DeltaRule(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, live);
    ExpectGuardsIntact();
    return found;
  }

  // A token's sums lose key_size units of the column's length and of the value, and its functions
  // 32 more (the decay's exponent is at most 28 e, of which softplus loses a few units); the rule
  // shortens what was lost before, because keys have length 1 and both factors are at most 1. The
  // query is shorter than 1.
  std::vector<Expected> DeltaOf(const DeltaCase& c, const DeltaRows& rows, int64_t row_count) {
    const auto key_size = static_cast<size_t>(c.key_size);
    std::vector<Expected> expected(rows.values.size());
    for (int64_t head = 0; head < c.value_heads; ++head) {
      const int64_t key_head = head / (c.value_heads / c.key_heads);
      const auto h = static_cast<size_t>(head);
      for (int64_t v = 0; v < c.value_size; ++v) {
        std::vector<double> state(key_size, 0.0);
        double largest = 0;
        for (int64_t t = 0; t < row_count; ++t) {
          const auto gate = static_cast<size_t>(t * c.value_heads + head);
          const int64_t place = (t * c.key_heads + key_head) * c.key_size;
          const std::vector<double> key = Normalized(rows.keys.data() + place, key_size);
          const std::vector<double> query = Normalized(rows.queries.data() + place, key_size);
          const double softplus =
              std::log1p(std::exp(double{rows.decay_gate[gate]} + double{bias_[h]}));
          const double factor = std::exp(-std::exp(double{decay_[h]}) * softplus);
          const double beta = 1 / (1 + std::exp(-double{rows.write_gate[gate]}));
          const size_t number = gate * static_cast<size_t>(c.value_size) + static_cast<size_t>(v);
          double delta = double{rows.values[number]};
          for (size_t k = 0; k < key_size; ++k) {
            state[k] *= factor;
            delta -= key[k] * state[k];
          }
          double result = 0;
          double squares = 0;
          for (size_t k = 0; k < key_size; ++k) {
            state[k] += key[k] * beta * delta;
            result += state[k] * query[k] / std::sqrt(static_cast<double>(c.key_size));
            squares += state[k] * state[k];
          }
          largest = std::max(largest, std::sqrt(squares) + std::fabs(double{rows.values[number]}));
          const double units = static_cast<double>((t + 1) * (c.key_size + 32));
          expected[number] = {result, units * largest * kUnit};
        }
      }
    }
    return expected;
  }

  std::vector<float> decay_;
  std::vector<float> bias_;

 private:
  static std::vector<double> Normalized(const float* source, size_t size) {
    double squares = 1e-6;
    for (size_t i = 0; i < size; ++i) {
      squares += double{source[i]} * double{source[i]};
    }
    std::vector<double> target(size);
    for (size_t i = 0; i < size; ++i) {
      target[i] = double{source[i]} / std::sqrt(squares);
    }
    return target;
  }
};
INSTANTIATE_TEST_SUITE_P(Host, DeltaRuleTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, DeltaRuleTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

constexpr DeltaCase kDeltaCases[] = {{1, 1, 4, 3},    {2, 4, 64, 32},  {2, 2, 128, 128},
                                     {1, 3, 100, 33}, {1, 2, 200, 40}, {1, 1, 300, 5}};

TEST_P(DeltaRuleTest, FollowsTheTokensOfEachSequence) {
  for (const DeltaCase& c : kDeltaCases) {
    SCOPED_TRACE(testing::Message() << "key size " << c.key_size);
    ForgetCuts();
    MakeWeights(c);
    const DeltaRows rows = MakeDeltaRows(c, 8, 61);
    const DeviceSpan state = UploadState(c.value_heads * c.key_size * c.value_size);
    std::vector<Expected> expected = DeltaOf(c, rows.Slice(c, 0, 5), 5);
    const std::vector<Expected> more = DeltaOf(c, rows.Slice(c, 5, 3), 3);
    expected.insert(expected.end(), more.begin(), more.end());
    ExpectNear(Apply(c, {{5, 3, 0}, {3, 1, 0}}, rows, state), expected);
    ExpectOtherSlotsUntouched(state, {1, 3});
  }
}

TEST_P(DeltaRuleTest, GivesTheSameBitsInOneStepAndInSeveral) {
  for (const DeltaCase& c : kDeltaCases) {
    SCOPED_TRACE(testing::Message() << "key size " << c.key_size);
    ForgetCuts();
    MakeWeights(c);
    const DeltaRows rows = MakeDeltaRows(c, 9, 62);
    const DeviceSpan whole_state = UploadState(c.value_heads * c.key_size * c.value_size);
    const DeviceSpan state = UploadState(c.value_heads * c.key_size * c.value_size);
    const std::vector<float> whole = Apply(c, {{9, 2, 0}}, rows, whole_state);
    int64_t begin = 0;
    for (const int64_t count : {4, 1, 1, 3}) {
      const std::vector<float> found =
          Apply(c, {{count, 2, begin}}, rows.Slice(c, begin, count), state);
      EXPECT_EQ(FirstDifference(found, RowsOf(whole, c.value_heads * c.value_size, begin, count)),
                -1)
          << begin;
      begin += count;
    }
    EXPECT_EQ(FirstDifference(Download<float>(state), Download<float>(whole_state)), -1);
  }
}

}  // namespace
}  // namespace nibble
