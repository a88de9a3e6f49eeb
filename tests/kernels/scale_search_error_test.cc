// What the scale search is for: less squared error, by how much, on what data, and never more.

#include <cmath>

#include "kernels/scale_search_table.h"
#include "tests/kernels/scale_search_fixture.h"
#include "tests/support/golden_tensors.h"

namespace nibble {
namespace {

class ScaleSearchErrorTest : public BlockTest {
 protected:
  // By how much less error a search has than plain, and the standard error of that, blocks being
  // the sample.
  struct Gain {
    double mean;
    double deviation;
  };
  Gain GainOf(const BlockCase& c) {
    const std::vector<double> plain = BlockErrors(c, Quantize(Plain(c)));
    const std::vector<double> searched = BlockErrors(c, Quantize(c));
    const double ratio = Sum(searched) / Sum(plain);
    double squares = 0;
    for (size_t i = 0; i < plain.size(); ++i) {
      squares += std::pow(searched[i] - ratio * plain[i], 2);
    }
    return {1 - ratio, std::sqrt(squares) / Sum(plain)};
  }

  void ExpectNeverWorse(const BlockCase& c) {
    const BlockPlanes plain_planes = Quantize(Plain(c));
    const BlockPlanes searched_planes = Quantize(c);
    const std::vector<double> plain = BlockErrors(c, plain_planes);
    const std::vector<double> searched = BlockErrors(c, searched_planes);
    for (size_t i = 0; i < plain.size(); ++i) {
      if (searched_planes.scales[i] == plain_planes.scales[i]) {
        ASSERT_EQ(searched[i], plain[i]) << Describe(c) << " block " << i;
      } else {
        ASSERT_LT(searched[i], plain[i]) << Describe(c) << " block " << i;
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Host, ScaleSearchErrorTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ScaleSearchErrorTest, testing::ValuesIn(CudaDevices()),
                         DeviceTestName);

enum class Shape { kNormal, kLaplace, kUniform, kStudent };
constexpr Shape kShapes[] = {Shape::kNormal, Shape::kLaplace, Shape::kUniform, Shape::kStudent};

std::vector<std::byte> Drawn(Shape shape, FloatType type, int64_t count) {
  std::mt19937 random(20);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::exponential_distribution<float> exponential(50.0f);
  std::uniform_real_distribution<float> uniform(-0.05f, 0.05f);
  std::student_t_distribution<float> student(4.0f);
  return Elements(type, count, [&](int64_t) {
    switch (shape) {
      case Shape::kNormal:
        return normal(random);
      case Shape::kLaplace:
        return random() % 2 == 0 ? exponential(random) : -exponential(random);
      case Shape::kUniform:
        return uniform(random);
      case Shape::kStudent:
        return 0.01f * student(random);
    }
    return 0.0f;
  });
}

// The weights of the demo model's linear layers.
const std::vector<std::byte>& DemoWeights() {
  static const auto& weights = *new std::vector<std::byte>([] {
    std::vector<std::byte> all;
    for (const std::string shard : {"00001", "00002", "00003"}) {
      const GoldenTensors tensors(
          TestDataPath("demo-model/model-" + shard + "-of-00003.safetensors"));
      for (const char* const part :
           {"mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj",
            "self_attn.q_proj", "self_attn.v_proj"}) {
        for (int layer = 0; layer < 6; ++layer) {
          const std::string name = "model.layers." + std::to_string(layer) + "." + part + ".weight";
          if (tensors.Has(name)) {
            const std::vector<std::byte> bytes = tensors.at(name).As<std::byte>();
            all.insert(all.end(), bytes.begin(), bytes.end());
          }
        }
      }
    }
    return all;
  }());
  return weights;
}

// What any four bits allow: 71 factors from 0.65 to 1.35, each tried on every element in double
// precision, and the best taken, or absmax.
double GridError(const BlockCase& c, bool is_signed) {
  std::array<double, 16> levels;
  const auto& values = c.codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
  std::copy(values.begin(), values.end(), levels.begin());
  std::sort(levels.begin(), levels.end());
  double sum = 0;
  for (int64_t begin = 0; begin < c.element_count(); begin += c.block_size) {
    std::vector<double> block;
    double absmax = 0;
    for (int64_t i = begin; i < std::min(begin + c.block_size, c.element_count()); ++i) {
      block.push_back(double{LoadElement(c.type, c.source.data(), i)});
      absmax = std::max(absmax, std::fabs(block.back()));
    }
    const auto error = [&](double scale) {
      double squares = 0;
      for (const double value : block) {
        const double* const above =
            std::lower_bound(levels.data() + 1, levels.data() + 15, value / scale);
        const double distance =
            std::min(std::fabs(value - above[0] * scale), std::fabs(value - above[-1] * scale));
        squares += distance * distance;
      }
      return squares;
    };
    double least = error(absmax);
    for (int i = 0; i < 71; ++i) {
      const double scale = absmax * (0.65 + 0.01 * i);
      least = std::min({least, error(scale), is_signed ? error(-scale) : least});
    }
    sum += least;
  }
  return sum;
}

// The promise, with three standard errors to spare.
TEST_P(ScaleSearchErrorTest, SavesFourteenPercentOnNormalDataAndEighteenWithASign) {
  BlockCase c = {Codebook::kNf4, 64, FloatType::kBf16,
                 Drawn(Shape::kNormal, FloatType::kBf16, 64 * 40000), ScaleSearch::kPositive};
  const Gain positive = GainOf(c);
  EXPECT_GT(positive.mean - 3 * positive.deviation, 0.14);
  c.scale_search = ScaleSearch::kSigned;
  const Gain with_sign = GainOf(c);
  EXPECT_GT(with_sign.mean - 3 * with_sign.deviation, 0.18);
  c.codebook = Codebook::kFp4;
  const Gain fp4 = GainOf(c);
  EXPECT_GT(fp4.mean - 3 * fp4.deviation, 0.13);
}

// Every weight, so that nothing is left to chance.
TEST_P(ScaleSearchErrorTest, SavesAboutAsMuchOnTrainedWeights) {
  BlockCase c = {Codebook::kNf4, 64, FloatType::kBf16, DemoWeights(), ScaleSearch::kPositive};
  ASSERT_EQ(c.element_count(), 2359296);
  EXPECT_GT(GainOf(c).mean, 0.14);
  c.scale_search = ScaleSearch::kSigned;
  EXPECT_GT(GainOf(c).mean, 0.18);
}

TEST_P(ScaleSearchErrorTest, IsWithinAPercentOfAGridOfSeventyOneFactors) {
  constexpr int64_t kCount = 64 * 250;
  for (const Codebook codebook : kCodebooks) {
    for (size_t i = 0; i <= std::size(kShapes); ++i) {
      for (const ScaleSearch search : kSearches) {
        if (search == ScaleSearch::kSigned && codebook == Codebook::kFp4) {
          continue;  // The same.
        }
        BlockCase c = {codebook, 64, FloatType::kBf16, {}, search};
        c.source = i < std::size(kShapes)
                       ? Drawn(kShapes[i], c.type, kCount)
                       : std::vector(DemoWeights().begin(), DemoWeights().begin() + 2 * kCount);
        const double grid = GridError(c, IsSigned(search, codebook));
        EXPECT_LT(Sum(BlockErrors(c, Quantize(c))), 1.01 * grid) << Describe(c) << " data " << i;
      }
    }
  }
}

TEST_P(ScaleSearchErrorTest, IsWithinTwoPercentOfTheGridWhateverTheBlockSize) {
  for (const int64_t block_size : {32, 128, 256, 4096}) {
    for (const Shape shape : kShapes) {
      const BlockCase c = {Codebook::kNf4, block_size, FloatType::kBf16,
                           Drawn(shape, FloatType::kBf16, 4096 * 4), ScaleSearch::kSigned};
      EXPECT_LT(Sum(BlockErrors(c, Quantize(c))), 1.02 * GridError(c, true)) << Describe(c);
    }
  }
}

TEST_P(ScaleSearchErrorTest, IsNeverWorseThanPlain) {
  for (const Codebook codebook : kCodebooks) {
    for (const FloatType type : kTypes) {
      for (const int64_t block_size : kBlockSizes) {
        for (const Shape shape : kShapes) {
          ExpectNeverWorse(
              {codebook, block_size, type, Drawn(shape, type, 40000), ScaleSearch::kSigned});
        }
      }
    }
  }
}

// Few distinct values, so that gains are small or none.
TEST_P(ScaleSearchErrorTest, IsNeverWorseThanPlainOnDataThatPlainNearlyFits) {
  std::mt19937 random(21);
  for (const Codebook codebook : kCodebooks) {
    const auto& values = codebook == Codebook::kNf4 ? kNf4Values : kFp4Values;
    for (const float noise : {0.0f, 1e-5f, 1e-4f, 1e-3f, 1e-2f}) {
      std::normal_distribution<float> normal(0.0f, noise);
      for (const FloatType type : kTypes) {
        ExpectNeverWorse({codebook, 64, type,
                          Elements(type, 64 * 300,
                                   [&](int64_t) { return values[random() % 16] + normal(random); }),
                          ScaleSearch::kSigned});
      }
    }
  }
}

}  // namespace
}  // namespace nibble
