// Mixture of experts on every device against double precision.

#include <numeric>

#include "tests/kernels/matrix_fixture.h"

namespace nibble {
namespace {

struct Routes {
  std::vector<int32_t> experts;  // [M, top_k]
  std::vector<float> weights;    // [M, top_k]
};

class ExpertsTest : public MatrixTest {
 protected:
  // What lies beyond the live rows of `span` must be as it was.
  template <typename T>
  std::vector<T> DownloadLive(DeviceSpan span, int64_t live_count) {
    std::vector<T> found = Download<T>(span);
    for (size_t i = static_cast<size_t>(live_count); i < found.size(); ++i) {
      EXPECT_EQ(std::bit_cast<uint32_t>(found[i]), kUntouched) << i;
    }
    found.resize(static_cast<size_t>(live_count));
    return found;
  }

  Routes Route(const std::vector<float>& logits, int64_t live, int64_t top_k, bool renormalize) {
    const int64_t bound = live + 3;
    const int64_t width = std::ssize(logits) / live;
    const std::vector<uint32_t> untouched(static_cast<size_t>(bound * top_k), kUntouched);
    RouteArgs args;
    args.rows = UploadRowCount(bound, live);
    args.logits = UploadRows(bound, 1, width, logits, {.rows = 5, .front = 1});
    args.top_k = top_k;
    args.renormalize = renormalize;
    args.experts = UploadVector(untouched);
    args.weights = UploadVector(untouched);
    ExpectOk(ops().Route(*queue_, args));
    Routes routes = {DownloadLive<int32_t>(args.experts, live * top_k),
                     DownloadLive<float>(args.weights, live * top_k)};
    ExpectGuardsIntact();
    return routes;
  }

  // A stack of experts, each with planes of its own; `skew` as in MakeMatrix().
  std::vector<TestMatrix> MakeExperts(const MatrixShape& shape, int64_t count, int64_t skew = 0) {
    std::vector<TestMatrix> experts;
    for (int64_t expert = 0; expert < count; ++expert) {
      experts.push_back(MakeMatrix(shape, static_cast<uint32_t>(expert + 40), skew * (expert % 2)));
    }
    return experts;
  }

  // `source` [M, K] or [M, top_k, K]; `choices` [M, top_k].
  std::vector<float> Multiply(const std::vector<TestMatrix>& experts,
                              const std::vector<int32_t>& choices, int64_t top_k, int64_t bound,
                              int64_t source_groups, const std::vector<float>& source,
                              const ProductOptions& products = {}) {
    const MatrixShape& shape = experts[0].matrix.shape;
    const int64_t live = std::ssize(choices) / top_k;
    std::vector<MatrixPlanes> table;
    for (const TestMatrix& expert : experts) {
      table.push_back(expert.matrix.planes);
    }
    ExpertLinearArgs args;
    args.rows = UploadRowCount(bound, live);
    args.shape = shape;
    args.expert_count = std::ssize(experts);
    args.table = UploadVector(table);
    args.top_k = top_k;
    args.experts = UploadIndices(choices, bound * top_k);
    args.source = UploadRows(bound, source_groups, shape.columns, source, {.rows = 4});
    args.target = CutRows(bound, top_k, shape.rows, {.rows = 1, .groups = 2});
    args.products = products;
    ExpectOk(ops().ExpertLinear(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, live);
    ExpectGuardsIntact();
    return found;
  }

  void ExpectProducts(const std::vector<TestMatrix>& experts, const std::vector<int32_t>& choices,
                      int64_t top_k, int64_t bound, int64_t source_groups,
                      const ProductOptions& products = {}) {
    const MatrixShape& shape = experts[0].matrix.shape;
    const int64_t live = std::ssize(choices) / top_k;
    const std::vector<float> source =
        RandomNumbers(31).Vector(live * source_groups * shape.columns);
    std::vector<Expected> expected;
    for (int64_t pair = 0; pair < std::ssize(choices); ++pair) {
      const int64_t row = source_groups == 1 ? pair / top_k : pair;
      const auto expert = static_cast<size_t>(choices[static_cast<size_t>(pair)]);
      for (int64_t n = 0; n < shape.rows; ++n) {
        expected.push_back(DotOf(experts[expert], n, source.data() + row * shape.columns));
        if (products.arithmetic == Arithmetic::kBf16) {
          // See LinearProductsTest::Bf16DotOf().
          const auto columns = static_cast<double>(shape.columns);
          const double magnitude = expected.back().tolerance / ((columns + 2) * kUnit);
          expected.back().tolerance =
              magnitude * (0x1p-7 + 0x1p-16 + (columns + columns / 16 + 16) * 0x1p-22);
        }
      }
    }
    SCOPED_TRACE(testing::Message() << Describe(shape) << ", " << live << " rows of " << bound
                                    << ", groups " << source_groups);
    ExpectNear(Multiply(experts, choices, top_k, bound, source_groups, source, products), expected);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, ExpertsTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ExpertsTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// An exponential loses a unit for each unit of its argument, and four; a sum of E numbers E units.
TEST_P(ExpertsTest, RouteTakesTheLargestShares) {
  RandomNumbers random(30);
  for (const int64_t width : {1, 4, 31, 60, 128, 200, 256, 1000, 1024}) {
    for (const int64_t top_k : {1, 4, 60}) {
      if (top_k > width) {
        continue;
      }
      // Numbers 1/32 apart in a random order, so that the order of shares is theirs.
      std::vector<float> logits;
      for (int64_t row = 0; row < 2; ++row) {
        std::vector<float> steps(static_cast<size_t>(width));
        std::iota(steps.begin(), steps.end(), 0.0f);
        for (size_t i = steps.size() - 1; i > 0; --i) {
          std::swap(steps[i], steps[static_cast<size_t>(random.Below(std::ssize(steps)))]);
        }
        for (const float step : steps) {
          logits.push_back(step / 32 - 3);
        }
      }
      for (const bool renormalize : {false, true}) {
        SCOPED_TRACE(testing::Message() << top_k << " of " << width << " " << renormalize);
        ForgetCuts();
        const Routes found = Route(logits, 2, top_k, renormalize);
        for (int64_t row = 0; row < 2; ++row) {
          const float* const some = logits.data() + row * width;
          std::vector<int32_t> order(static_cast<size_t>(width));
          std::iota(order.begin(), order.end(), 0);
          std::sort(order.begin(), order.end(), [&](int a, int b) { return some[a] > some[b]; });
          double total = 0;
          for (int64_t i = 0; i < (renormalize ? top_k : width); ++i) {
            total += std::exp(double{some[order[static_cast<size_t>(i)]]});
          }
          for (int64_t i = 0; i < top_k; ++i) {
            const auto place = static_cast<size_t>(row * top_k + i);
            const int32_t expert = order[static_cast<size_t>(i)];
            const double share = std::exp(double{some[expert]}) / total;
            const double units = static_cast<double>(width) * (1 + 1.0 / 32) + 16;
            EXPECT_EQ(found.experts[place], expert);
            EXPECT_NEAR(double{found.weights[place]}, share, share * 2 * units * kUnit);
          }
        }
      }
    }
  }
}

TEST_P(ExpertsTest, RouteTakesTheLowerOfEqualExperts) {
  for (const int64_t width : {8, 128, 300}) {
    std::vector<float> logits(static_cast<size_t>(width), 0.5f);
    logits[5] = logits[7] = 1.5f;
    const Routes found = Route(logits, 1, 5, false);
    EXPECT_EQ(found.experts, (std::vector<int32_t>{5, 7, 0, 1, 2})) << width;
  }
}

TEST_P(ExpertsTest, RouteNamesExpertsThatThereAreWhateverTheLogits) {
  for (const float logit : {NAN, INFINITY, -INFINITY}) {
    for (const int32_t expert : Route(std::vector<float>(40, logit), 1, 8, true).experts) {
      EXPECT_GE(expert, 0);
      EXPECT_LT(expert, 40);
    }
  }
}

std::vector<int32_t> RandomChoices(int64_t rows, int64_t top_k, int64_t experts) {
  RandomNumbers random(33);
  std::vector<int32_t> choices;
  for (int64_t i = 0; i < rows * top_k; ++i) {
    choices.push_back(static_cast<int32_t>(random.Below(experts)));
  }
  return choices;
}

TEST_P(ExpertsTest, MultipliesWithTheMatrixOfEachRowsExperts) {
  for (const int64_t columns : {64, 99}) {
    for (const MatrixShape& shape : AllFormats(35, columns, 32)) {
      for (const int64_t skew : {0, 1}) {
        ForgetCuts();
        const std::vector<TestMatrix> experts = MakeExperts(shape, 5, skew);
        ExpectProducts(experts, RandomChoices(3, 2, 5), 2, 4, 1);
        ExpectProducts(experts, RandomChoices(3, 2, 5), 2, 4, 2);
        ExpectProducts(experts, RandomChoices(9, 2, 5), 2, 16, 1);
        ExpectProducts(experts, RandomChoices(9, 2, 5), 2, 16, 2);
      }
    }
  }
}

// One expert has none of 400 pairs, one a few, one more than two tiles hold.
TEST_P(ExpertsTest, MultipliesManyRowsThatAreSpreadUnevenly) {
  const std::vector<TestMatrix> experts =
      MakeExperts(ShapeOf(MatrixFormat::kNf4, 150, 72, 64, true), 6);
  std::vector<int32_t> choices = RandomChoices(100, 4, 5);
  for (size_t i = 0; i < choices.size(); ++i) {
    choices[i] = i % 2 == 0 ? 3 : choices[i] == 1 && i > 50 ? 0 : choices[i];
  }
  ExpectProducts(experts, choices, 4, 100, 1);
  ExpectProducts(experts, choices, 4, 128, 4);
}

TEST_P(ExpertsTest, MultipliesInBf16) {
  constexpr ProductOptions kBf16 = {Arithmetic::kBf16, false};
  for (const int64_t columns : {64, 768, 99}) {
    for (const MatrixShape& shape : AllFormats(150, columns, 64)) {
      for (const int64_t skew : {0, 1}) {
        ForgetCuts();
        const std::vector<TestMatrix> experts = MakeExperts(shape, 5, skew);
        ExpectProducts(experts, RandomChoices(1, 4, 5), 4, 1, 1, kBf16);
        ExpectProducts(experts, RandomChoices(3, 2, 5), 2, 4, 2, kBf16);
        ExpectProducts(experts, RandomChoices(60, 3, 5), 3, 64, 1, kBf16);
        ExpectProducts(experts, RandomChoices(60, 3, 5), 3, 64, 3, kBf16);
      }
    }
  }
}

TEST_P(ExpertsTest, BatchInvariantProductsDoNotDependOnTheBound) {
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    const ProductOptions products = {arithmetic, true};
    ForgetCuts();
    const std::vector<TestMatrix> experts = MakeExperts(ShapeOf(MatrixFormat::kNf4, 40, 192), 4);
    const std::vector<int32_t> choices = RandomChoices(40, 2, 4);
    const std::vector<float> source = RandomNumbers(34).Vector(40 * 192);
    const std::vector<float> all = Multiply(experts, choices, 2, 40, 1, source, products);
    for (const int64_t bound : {1, 3, 16}) {
      const std::vector<int32_t> own(choices.begin(), choices.begin() + 2 * bound);
      EXPECT_EQ(FirstDifference(
                    Multiply(experts, own, 2, bound, 1, RowsOf(source, 192, 0, bound), products),
                    RowsOf(all, 80, 0, bound)),
                -1)
          << bound;
    }
  }
}

TEST_P(ExpertsTest, GivesARowTheSameBitsWhateverTheOthersAre) {
  const std::vector<TestMatrix> experts = MakeExperts(ShapeOf(MatrixFormat::kNf4, 40, 136), 4);
  for (const int64_t bound : {5, 40}) {
    const std::vector<int32_t> choices = RandomChoices(bound, 2, 4);
    const std::vector<float> source = RandomNumbers(34).Vector(bound * 136);
    const std::vector<float> all = Multiply(experts, choices, 2, bound, 1, source);
    for (const int64_t row : {int64_t{0}, bound / 2, bound - 1}) {
      const std::vector<int32_t> own(choices.begin() + 2 * row, choices.begin() + 2 * row + 2);
      EXPECT_EQ(FirstDifference(Multiply(experts, own, 2, bound, 1, RowsOf(source, 136, row, 1)),
                                RowsOf(all, 80, row, 1)),
                -1)
          << row << " of " << bound;
    }
  }
}

TEST_P(ExpertsTest, MakesWhatAnExpertThatThereIsNotGivesNan) {
  if (is_host()) {
    GTEST_SKIP() << "the host device ends the process: its caller checks experts";
  }
  const std::vector<TestMatrix> experts = MakeExperts(ShapeOf(MatrixFormat::kNf4, 200, 64), 4);
  const std::vector<int32_t> choices = {-1, 1, 4, 2, 0x7fffffff, 0};
  for (const Arithmetic arithmetic : {Arithmetic::kFp32, Arithmetic::kBf16}) {
    for (const int64_t bound : {3, 20}) {
      const std::vector<float> found = Multiply(
          experts, choices, 2, bound, 1, RandomNumbers(35).Vector(3 * 64), {arithmetic, false});
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(std::isnan(found[i]), i / 200 % 2 == 0) << i;
      }
    }
  }
}

TEST_P(ExpertsTest, CombinesByWeight) {
  RandomNumbers random(36);
  const std::vector<float> weights = random.Vector(3 * 7);
  const std::vector<float> source = random.Vector(3 * 7 * 500);
  CombineExpertsArgs args;
  args.rows = UploadRowCount(5, 3);
  args.top_k = 7;
  std::vector<float> all_weights = weights;
  all_weights.resize(5 * 7, NAN);
  args.weights = UploadVector(all_weights);
  args.source = UploadRows(5, 7, 500, source, {.rows = 2, .groups = 1});
  args.target = CutRows(5, 1, 500, {.rows = 3});
  ExpectOk(ops().CombineExperts(*queue_, args));
  std::vector<Expected> expected(3 * 500);
  for (size_t i = 0; i < source.size(); ++i) {
    const double product = double{weights[i / 500]} * double{source[i]};
    Expected& sum = expected[i / 3500 * 500 + i % 500];
    sum.value += product;
    sum.tolerance += std::fabs(product) * 8 * kUnit;
  }
  ExpectNear(DownloadRows(args.target, 3), expected);
  ExpectGuardsIntact();
}

}  // namespace
}  // namespace nibble
