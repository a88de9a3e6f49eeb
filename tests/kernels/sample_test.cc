// Sampling on every device, against a plain reading of the contract in double precision.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "kernels/step_ops.h"
#include "tests/kernels/device_fixture.h"

namespace nibble {
namespace {

constexpr int64_t kVocabulary = 1000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(uint32_t seed, int64_t vocabulary = kVocabulary) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  std::generate(logits.begin(), logits.end(), [&] { return normal(random); });
  return logits;
}

double LogTotal(const std::vector<float>& logits) {
  double sum = 0;
  for (const float logit : logits) {
    sum += std::isnan(logit) ? 0 : std::exp(double{logit});
  }
  return std::log(sum);
}

struct Drawn {
  int id = -1;
  double margin = 0;  // How far the random number is from one that draws another token.
};

// Every token's share, cut as SamplerRow says, and the token in whose share the random number lies.
Drawn DrawByHand(const SamplerRow& sampler, const std::vector<float>& logits) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int left, int right) { return logits[left] > logits[right]; });
  std::vector<double> shares(logits.size());
  const double largest = logits[order.front()];
  const size_t kept = sampler.top_k > 0 ? sampler.top_k : logits.size();
  double total = 0;
  for (size_t place = 0; place < kept; ++place) {
    shares[order[place]] = std::exp((logits[order[place]] - largest) / sampler.temperature);
    total += shares[order[place]];
  }
  double reached = 0;
  for (size_t place = 0; place < kept; ++place) {
    if (reached >= double{sampler.top_p} * total) {
      shares[order[place]] = 0;
    }
    reached += shares[order[place]];
  }
  total = 0;
  for (double& share : shares) {
    share = share < double{sampler.min_p} ? 0 : share;
    total += share;
  }
  double left = double{RandomShare(sampler.seed, sampler.position)} * total;
  for (size_t id = 0; id < shares.size(); ++id) {
    if (shares[id] > 0 && left < shares[id]) {
      return {static_cast<int>(id), std::min(left, shares[id] - left) / total};
    }
    left -= shares[id];
  }
  return {};
}

class SampleTest : public DeviceTest {
 protected:
  struct Step {
    std::vector<std::vector<float>> logits;
    std::vector<SamplerRow> samplers;
    std::vector<LogitAdjustment> adjustments = {};
    std::vector<uint32_t> masks = {};
  };

  std::vector<SampledRow> Sample(const Step& step, int64_t bound = 0) {
    ForgetCuts();
    const auto count = std::ssize(step.logits);
    bound = std::max(bound, count);
    const auto upload = [this](const auto& values, int64_t spare = 0) {
      const auto bytes = std::as_bytes(std::span(values));
      const DeviceSpan span = Cut(std::ssize(bytes) + spare + 4);
      if (!bytes.empty()) {
        Upload(bytes, span.Slice(0, std::ssize(bytes)));
      }
      return span;
    };
    const auto vocabulary = std::ssize(step.logits.front());
    std::vector<float> flat;
    for (const std::vector<float>& row : step.logits) {
      flat.insert(flat.end(), row.begin(), row.end());
    }
    const int64_t spare_rows = bound - count;
    SampleArgs args;
    args.rows = {bound, upload(std::vector<int32_t>{static_cast<int32_t>(count)})};
    args.logits = DenseRows(upload(flat, spare_rows * vocabulary * 4), vocabulary);
    args.samplers = upload(step.samplers, spare_rows * int64_t{sizeof(SamplerRow)});
    args.adjustments = upload(step.adjustments);
    args.masks = upload(step.masks);
    const int64_t result_bytes = bound * static_cast<int64_t>(sizeof(SampledRow));
    args.results = CutGuarded(result_bytes, 0);
    const absl::Status status = device_->step_ops().Sample(*queue_, args);
    EXPECT_TRUE(status.ok()) << status;
    std::vector<SampledRow> rows = Download<SampledRow>(args.results);
    ExpectGuardsIntact();
    return rows;
  }
};

TEST_P(SampleTest, TakesTheLargestAndOfEqualOnesTheLowerId) {
  std::vector<float> logits = RandomLogits(1);
  logits[700] = logits[300] = logits[301] = 50;
  const SampledRow row = Sample({{logits}, {SamplerRow()}}).front();
  EXPECT_EQ(row.id, 300);
  EXPECT_NEAR(row.log_probability, 50 - LogTotal(logits), 1e-5);
}

TEST_P(SampleTest, DrawsWhatTheContractSays) {
  struct Options {
    float temperature, top_p, min_p;
    int top_k;
  };
  int compared = 0;
  for (const Options& options :
       {Options{1, 1, 0, 0}, Options{0.5f, 1, 0, 0}, Options{1, 0.9f, 0, 0}, Options{1, 1, 0, 40},
        Options{2, 0.5f, 0, 100}, Options{1, 1, 0.05f, 0}, Options{1.5f, 0.95f, 0.01f, 7},
        Options{1, 0.01f, 0, 0}, Options{1, 1, 0, 1}}) {
    Step step;
    for (uint32_t seed = 0; seed < 40; ++seed) {
      SamplerRow sampler;
      sampler.temperature = options.temperature;
      sampler.top_p = options.top_p;
      sampler.min_p = options.min_p;
      sampler.top_k = options.top_k;
      sampler.seed = seed;
      sampler.position = 17;
      step.logits.push_back(RandomLogits(seed));
      step.samplers.push_back(sampler);
    }
    const std::vector<SampledRow> rows = Sample(step);
    for (size_t index = 0; index < rows.size(); ++index) {
      const Drawn expected = DrawByHand(step.samplers[index], step.logits[index]);
      // fp32 shares are off by some 1e-7 of themselves; their sums by less than this.
      if (expected.margin > 1e-5) {
        ++compared;
        EXPECT_EQ(rows[index].id, expected.id) << index;
      }
    }
  }
  EXPECT_GT(compared, 300);
}

// More tokens than a thread, or all of them, may hold at once.
TEST_P(SampleTest, DrawsFromVocabulariesOfEverySize) {
  int compared = 0;
  for (const int64_t vocabulary : {1, 7, 513, 20011, 600000}) {
    for (uint32_t seed = 0; seed < (vocabulary < 100000 ? 6u : 1u); ++seed) {
      const std::vector<float> logits = RandomLogits(seed, vocabulary);
      SamplerRow plain;
      plain.temperature = 1;
      plain.seed = seed;
      SamplerRow cut = plain;
      cut.top_p = 0.8f;
      const std::vector<SampledRow> rows =
          Sample({{logits, logits, logits}, {SamplerRow(), plain, cut}});
      EXPECT_EQ(rows[0].id, std::max_element(logits.begin(), logits.end()) - logits.begin());
      EXPECT_NEAR(rows[0].log_probability,
                  logits[static_cast<size_t>(rows[0].id)] - LogTotal(logits), 1e-4);
      for (const size_t index : {size_t{1}, size_t{2}}) {
        const Drawn expected = DrawByHand(index == 1 ? plain : cut, logits);
        if (expected.margin > 1e-5) {
          ++compared;
          EXPECT_EQ(rows[index].id, expected.id) << vocabulary << ", row " << index;
        }
      }
    }
  }
  EXPECT_GT(compared, 30);
}

TEST_P(SampleTest, CutsTiesByTheirIds) {
  std::vector<float> logits(kVocabulary, -10.0f);
  for (int id = 100; id < 200; ++id) {
    logits[static_cast<size_t>(id)] = 1;
  }
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SamplerRow sampler;
    sampler.temperature = 1;
    sampler.top_k = 3;
    sampler.seed = seed;
    SamplerRow by_share = sampler;
    by_share.top_k = 0;
    by_share.top_p = 0.0295f;  // 2.95 of 100 equal ones, and next to nothing beside them.
    for (const SampledRow& row : Sample({{logits, logits}, {sampler, by_share}})) {
      EXPECT_GE(row.id, 100);
      EXPECT_LE(row.id, 102);
    }
  }
}

TEST_P(SampleTest, AppliesAdjustmentsAndMasks) {
  std::vector<float> logits(kVocabulary, 0.0f);
  logits[5] = 8;
  logits[6] = -1;
  SamplerRow sampler;
  sampler.first_adjustment = 1;
  sampler.adjustment_count = 2;
  // 8 / 4 + 0 = 2, and -1 * 2 + 5 = 3. The first adjustment belongs to nobody.
  Step step = {{logits}, {sampler}, {{9, 1, 100}, {5, 4, 0}, {6, 2, 5}}};
  SampledRow row = Sample(step).front();
  EXPECT_EQ(row.id, 6);
  EXPECT_NEAR(row.log_probability, -1 - LogTotal(logits), 1e-5) << "the model's own";

  step.masks.assign(2 * 32, 0);
  step.masks[32 + 5 / 32] = 1u << 5;
  step.samplers.front().mask_index = 1;
  EXPECT_EQ(Sample(step).front().id, 5);
}

TEST_P(SampleTest, TellsOfTheMostLikelyAndOfAKnownToken) {
  const std::vector<float> logits = RandomLogits(3);
  SamplerRow sampler;
  sampler.forced_id = 123;
  sampler.top_count = 20;
  const SampledRow row = Sample({{logits}, {sampler}}).front();
  const double log_total = LogTotal(logits);
  EXPECT_EQ(row.id, 123);
  EXPECT_NEAR(row.log_probability, logits[123] - log_total, 1e-4);
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  for (size_t place = 0; place < 20; ++place) {
    EXPECT_EQ(logits[static_cast<size_t>(row.top_ids[place])], sorted[place]);
    EXPECT_NEAR(row.top_log_probabilities[place], sorted[place] - log_total, 1e-4);
  }
}

TEST_P(SampleTest, TakesNoNanAndSaysWhereThereIsNothing) {
  std::vector<float> logits(kVocabulary, kNan);
  SamplerRow drawn;
  drawn.temperature = 1;
  for (const SampledRow& row : Sample({{logits, logits}, {SamplerRow(), drawn}})) {
    EXPECT_EQ(row.id, -1);
  }
  logits[77] = -3;
  for (const SampledRow& row : Sample({{logits, logits}, {SamplerRow(), drawn}})) {
    EXPECT_EQ(row.id, 77);
    EXPECT_NEAR(row.log_probability, 0, 1e-6);
  }
}

TEST_P(SampleTest, LeavesRowsBeyondTheLiveOnesAlone) {
  const std::vector<SampledRow> rows = Sample({{RandomLogits(4)}, {SamplerRow()}}, 8);
  ASSERT_EQ(rows.size(), 8u);
  EXPECT_GE(rows.front().id, 0);
  for (size_t index = 1; index < rows.size(); ++index) {
    EXPECT_EQ(static_cast<uint32_t>(rows[index].id), 0xa5a5a5a5u);  // The guard's bytes.
  }
}

INSTANTIATE_TEST_SUITE_P(Host, SampleTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, SampleTest, testing::ValuesIn(CudaDevices()), DeviceTestName);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SampleTest);

}  // namespace
}  // namespace nibble
