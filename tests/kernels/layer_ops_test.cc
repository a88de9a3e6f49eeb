// What a layer does between its matrices, on every device, against double precision.

#include "tests/kernels/matrix_fixture.h"

namespace nibble {
namespace {

class LayerOpsTest : public MatrixTest {};
INSTANTIATE_TEST_SUITE_P(Host, LayerOpsTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, LayerOpsTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// An exponential of the GPU is within 2 ulps, what follows it within as many again.
constexpr double kFunctionError = 8 * kUnit;

// An element is exact and its product with the scale rounded once: the same bits everywhere.
TEST_P(LayerOpsTest, EmbedReadsRowsOfEveryFormat) {
  for (const int64_t columns : {1, 64, 75, 300}) {
    for (const MatrixShape& shape : AllFormats(50, columns, 32)) {
      SCOPED_TRACE(Describe(shape));
      ForgetCuts();
      const TestMatrix table = MakeMatrix(shape, 3, 1);
      const std::vector<int32_t> ids = {49, 0, 7, 7, 31};
      EmbedArgs args;
      args.rows = UploadRowCount(8, 5);
      args.table = table.matrix;
      args.ids = UploadIndices(ids, 8);
      args.scale = 1.7f;
      args.target = CutRows(8, 1, columns, {.rows = 2, .front = 1});
      ExpectOk(ops().Embed(*queue_, args));
      std::vector<float> expected;
      for (const int32_t id : ids) {
        for (int64_t k = 0; k < columns; ++k) {
          expected.push_back(static_cast<float>(table.At(id, k)) * 1.7f);
        }
      }
      EXPECT_EQ(FirstDifference(DownloadRows(args.target, 5), expected), -1);
      ExpectGuardsIntact();
    }
  }
}

TEST_P(LayerOpsTest, EmbedMakesARowNanIfItsIdIsOutsideTheTable) {
  const TestMatrix table = MakeMatrix(ShapeOf(MatrixFormat::kNf4, 10, 64), 3);
  EmbedArgs args;
  args.rows = UploadRowCount(4, 4);
  args.table = table.matrix;
  args.ids = UploadIndices({-1, 9, 10, 0x7fffffff}, 4);
  args.target = CutRows(4, 1, 64);
  ExpectOk(ops().Embed(*queue_, args));
  const std::vector<float> found = DownloadRows(args.target, 4);
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(std::isnan(found[i]), i / 64 != 1) << i;
  }
}

struct NormCase {
  NormKind kind;
  int64_t groups;
  int64_t width;
  bool shared;
  int64_t gap = 1;  // Where it is a multiple of four, so may all places be.
};

// A sum of n squares loses n units of itself, a mean n units of the mean magnitude; the root halves
// what it gets. Eight units for the rest.
std::vector<Expected> NormOf(const NormCase& c, const float* x, const float* weights,
                             double epsilon) {
  const auto width = static_cast<double>(c.width);
  double mean = 0;
  double magnitude = 0;
  for (int64_t i = 0; i < c.width; ++i) {
    mean += c.kind == NormKind::kLayer ? double{x[i]} / width : 0;
    magnitude += c.kind == NormKind::kLayer ? std::fabs(double{x[i]}) / width : 0;
  }
  double variance = 0;
  for (int64_t i = 0; i < c.width; ++i) {
    variance += (double{x[i]} - mean) * (double{x[i]} - mean) / width;
  }
  const double factor = 1 / std::sqrt(variance + epsilon);
  const double mean_error = (width + 2) * kUnit * magnitude;
  const double factor_error = mean_error * factor + (width / 2 + 8) * kUnit;
  std::vector<Expected> expected;
  for (int64_t i = 0; i < c.width; ++i) {
    const double weight = double{weights[i]} + (c.kind == NormKind::kZeroCentredRms ? 1 : 0);
    const double distance = double{x[i]} - mean;
    expected.push_back(
        {distance * factor * weight,
         std::fabs(factor * weight) * (mean_error + std::fabs(distance) * factor_error)});
  }
  return expected;
}

TEST_P(LayerOpsTest, NormsEveryGroupOfEveryRow) {
  RandomNumbers random(4);
  for (const NormKind kind : {NormKind::kRms, NormKind::kZeroCentredRms, NormKind::kLayer}) {
    for (const NormCase& c : {NormCase{kind, 1, 1, true},
                              {kind, 1, 33, true},
                              {kind, 3, 128, true},
                              {kind, 3, 128, false},
                              {kind, 1, 5000, true},
                              {kind, 1, 256, true, 4},
                              {kind, 3, 128, false, 4},
                              {kind, 1, 4096, true, 4},
                              {kind, 1, 5000, true, 8},
                              {kind, 1, 8196, true, 4}}) {
      SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << " width " << c.width);
      ForgetCuts();
      std::vector<float> source = random.Vector(2 * c.groups * c.width, 3);
      source[0] += 1;  // A group of one number is not the mean of its own everywhere.
      const std::vector<float> weights = random.Vector(c.width * (c.shared ? 1 : c.groups));
      NormArgs args;
      args.rows = UploadRowCount(3, 2);
      args.kind = kind;
      args.epsilon = 1e-5f;
      args.weight = {FloatType::kF32, UploadVector(weights)};
      args.source = UploadRows(3, c.groups, c.width, source, {.rows = 3 * c.gap, .groups = c.gap});
      args.target = CutRows(3, c.groups, c.width, {.rows = c.gap, .groups = 2 * c.gap});
      ExpectOk(ops().Norm(*queue_, args));
      std::vector<Expected> expected;
      for (int64_t group = 0; group < 2 * c.groups; ++group) {
        const std::vector<Expected> some =
            NormOf(c, source.data() + group * c.width,
                   weights.data() + (c.shared ? 0 : group % c.groups * c.width), 1e-5);
        expected.insert(expected.end(), some.begin(), some.end());
      }
      const std::vector<float> found = DownloadRows(args.target, 2);
      ExpectNear(found, expected);
      args.target = args.source;
      ExpectOk(ops().Norm(*queue_, args));
      EXPECT_EQ(FirstDifference(DownloadRows(args.source, 2), found), -1) << "in place";
      ExpectGuardsIntact();
    }
  }
}

struct RopeCase {
  bool interleaved;
  int64_t width;
  int64_t count;
};

// The angle is a product that loses a unit of itself; sine, cosine and what follows six.
TEST_P(LayerOpsTest, RopeTurnsPairs) {
  RandomNumbers random(5);
  for (const RopeCase& c : {RopeCase{false, 64, 32},
                            {true, 64, 32},
                            {false, 100, 10},
                            {true, 101, 50},
                            {false, 2, 1},
                            {true, 600, 300}}) {
    SCOPED_TRACE(testing::Message() << "width " << c.width << " interleaved " << c.interleaved);
    ForgetCuts();
    const std::vector<int32_t> positions = {0, 1, 131071};
    std::vector<float> frequencies;
    for (int64_t i = 0; i < c.count; ++i) {
      frequencies.push_back(
          std::pow(10000.0f, -static_cast<float>(i) / static_cast<float>(c.count)));
    }
    const std::vector<float> source = random.Vector(3 * 2 * c.width);
    RopeArgs args;
    args.rows = UploadRowCount(5, 3);
    args.positions = UploadIndices(positions, 5);
    args.frequencies = UploadVector(frequencies);
    args.frequency_count = c.count;
    args.interleaved = c.interleaved;
    args.magnitude = 1.25f;
    args.heads = UploadRows(5, 2, c.width, source, {.rows = 5, .groups = 3, .front = 1});
    ExpectOk(ops().Rope(*queue_, args));
    std::vector<Expected> expected;
    for (const float value : source) {
      expected.push_back({double{value}, 0});
    }
    for (size_t head = 0; head < 6; ++head) {
      for (size_t i = 0; i < frequencies.size(); ++i) {
        const size_t one = head * static_cast<size_t>(c.width) + (c.interleaved ? 2 * i : i);
        const size_t other = one + (c.interleaved ? 1 : frequencies.size());
        const double angle = double{frequencies[i]} * positions[head / 2];
        const double x = double{source[one]};
        const double y = double{source[other]};
        const double tolerance = 1.25 * (std::fabs(x) + std::fabs(y)) * (angle + 6) * kUnit;
        expected[one] = {1.25 * (x * std::cos(angle) - y * std::sin(angle)), tolerance};
        expected[other] = {1.25 * (y * std::cos(angle) + x * std::sin(angle)), tolerance};
      }
    }
    ExpectNear(DownloadRows(args.heads, 3), expected);
    ExpectGuardsIntact();
  }
}

Expected GateOf(Activation activation, double gate, double value) {
  const double sigmoid = 1 / (1 + std::exp(-gate));
  if (activation == Activation::kSigmoid) {
    return {sigmoid * value, std::fabs(sigmoid * value) * kFunctionError};
  }
  if (activation == Activation::kSilu) {
    // The gate's own units pass through the exponential.
    return {gate * sigmoid * value, std::fabs(gate * sigmoid * value) * kFunctionError};
  }
  const double inner = std::sqrt(2 / std::acos(-1.0)) * (gate + 0.044715 * gate * gate * gate);
  // 1 + tanh() may cancel: what the function and its argument lose is absolute.
  return {0.5 * gate * (1 + std::tanh(inner)) * value,
          std::fabs(gate * value) * (2 + std::fabs(inner)) * kFunctionError};
}

TEST_P(LayerOpsTest, GateMultipliesByTheActivation) {
  RandomNumbers random(6);
  for (const Activation activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kSigmoid}) {
    for (const bool one_gate : {false, true}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(activation) << " " << one_gate);
      ForgetCuts();
      const int64_t groups = 3;
      const int64_t width = 101;
      const std::vector<float> value = random.Vector(2 * groups * width);
      const std::vector<float> gate = random.Vector(one_gate ? 2 : 2 * groups * width, 9);
      GateArgs args;
      args.rows = UploadRowCount(4, 2);
      args.activation = activation;
      args.gate = one_gate ? UploadRows(4, 1, 1, gate, {.rows = 2})
                           : UploadRows(4, groups, width, gate, {.rows = 7, .groups = 1});
      args.value = UploadRows(4, groups, width, value, {.groups = 2});
      args.target = CutRows(4, groups, width, {.rows = 1});
      ExpectOk(ops().Gate(*queue_, args));
      std::vector<Expected> expected;
      for (size_t i = 0; i < value.size(); ++i) {
        const size_t row = i / static_cast<size_t>(groups * width);
        expected.push_back(GateOf(activation, double{gate[one_gate ? row : i]}, double{value[i]}));
      }
      const std::vector<float> found = DownloadRows(args.target, 2);
      ExpectNear(found, expected);
      args.target = args.value;
      ExpectOk(ops().Gate(*queue_, args));
      EXPECT_EQ(FirstDifference(DownloadRows(args.value, 2), found), -1) << "in place";
      ExpectGuardsIntact();
    }
  }
}

TEST_P(LayerOpsTest, AddRoundsOnce) {
  RandomNumbers random(7);
  const std::vector<float> left = random.Vector(3 * 333);
  const std::vector<float> right = random.Vector(3 * 333);
  AddArgs args;
  args.rows = UploadRowCount(5, 3);
  args.source = UploadRows(5, 1, 333, left, {.rows = 1});
  args.target = UploadRows(5, 1, 333, right, {.rows = 4});
  ExpectOk(ops().Add(*queue_, args));
  std::vector<float> expected;
  for (size_t i = 0; i < left.size(); ++i) {
    expected.push_back(left[i] + right[i]);
  }
  EXPECT_EQ(FirstDifference(DownloadRows(args.target, 3), expected), -1);
  ExpectGuardsIntact();
}

TEST_P(LayerOpsTest, GatherRowsCopies) {
  RandomNumbers random(8);
  const std::vector<float> source = random.Vector(6 * 300);
  GatherRowsArgs args;
  args.rows = UploadRowCount(4, 3);
  args.row_indices = UploadIndices({5, 0, 5}, 4);
  args.source = UploadRows(6, 1, 300, source, {.rows = 9});
  args.target = CutRows(4, 1, 300, {.rows = 2});
  ExpectOk(ops().GatherRows(*queue_, args));
  std::vector<float> expected = RowsOf(source, 300, 5, 1);
  for (const int64_t row : {0, 5}) {
    const std::vector<float> numbers = RowsOf(source, 300, row, 1);
    expected.insert(expected.end(), numbers.begin(), numbers.end());
  }
  EXPECT_EQ(FirstDifference(DownloadRows(args.target, 3), expected), -1);
  ExpectGuardsIntact();
}

TEST_P(LayerOpsTest, GatherRowsMakesARowNanThatTheSourceHasNot) {
  if (is_host()) {
    GTEST_SKIP() << "the host device ends the process: its caller checks indices";
  }
  GatherRowsArgs args;
  args.rows = UploadRowCount(3, 3);
  args.row_indices = UploadIndices({-1, 6, 0x7fffffff}, 3);
  args.source = UploadRows(6, 1, 20, std::vector<float>(120, 1.0f));
  args.target = CutRows(3, 1, 20);
  ExpectOk(ops().GatherRows(*queue_, args));
  for (const float number : DownloadRows(args.target, 3)) {
    EXPECT_TRUE(std::isnan(number));
  }
  ExpectGuardsIntact();
}

TEST_P(LayerOpsTest, ScaleLogitsScalesThenCaps) {
  RandomNumbers random(9);
  for (const float softcap : {0.0f, 30.0f}) {
    ForgetCuts();
    const std::vector<float> source = random.Vector(2 * 1000, 300);
    ScaleLogitsArgs args;
    args.rows = UploadRowCount(3, 2);
    args.scale = 0.3f;
    args.softcap = softcap;
    args.logits = UploadRows(3, 1, 1000, source, {.rows = 3});
    ExpectOk(ops().ScaleLogits(*queue_, args));
    std::vector<Expected> expected;
    for (const float value : source) {
      const double x = double{value} * double{0.3f};
      const double capped = softcap == 0 ? x : double{softcap} * std::tanh(x / double{softcap});
      expected.push_back({capped, std::fabs(capped) * kFunctionError});
    }
    ExpectNear(DownloadRows(args.logits, 2), expected);
    ExpectGuardsIntact();
  }
}

}  // namespace
}  // namespace nibble
