// The convolution of linear attention on every device against double precision, and a step against
// several.

#include "tests/kernels/state_fixture.h"

namespace nibble {
namespace {

class ConvolutionTest : public StateTest {
 protected:
  std::vector<float> Convolve(const std::vector<Piece>& pieces, int64_t taps,
                              const std::vector<float>& weights, const std::vector<float>& source,
                              DeviceSpan state) {
    const int64_t live = RowCountOf(pieces);
    const int64_t channels = std::ssize(weights) / taps;
    ShortConvolutionArgs args;
    args.rows = UploadRowCount(live + 2, live);
    args.sequences = UploadSequences(pieces);
    args.taps = taps;
    args.weight = {FloatType::kF32, UploadVector(weights)};
    args.source = UploadRows(live + 2, 1, channels, source, {.rows = 3});
    args.target = CutRows(live + 2, 1, channels, {.rows = 1});
    args.slot_count = kSlots;
    args.state = state;
    ExpectOk(ops().ShortConvolution(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, live);
    ExpectGuardsIntact();
    return found;
  }
};
INSTANTIATE_TEST_SUITE_P(Host, ConvolutionTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, ConvolutionTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

// A sum loses a unit for each tap; what SiLU makes of that is at most 1.1 times as much, and its
// own functions eight units of the result.
std::vector<Expected> ConvolutionOf(int64_t taps, const std::vector<float>& weights,
                                    const std::vector<float>& source) {
  const int64_t channels = std::ssize(weights) / taps;
  std::vector<Expected> expected;
  for (int64_t i = 0; i < std::ssize(source); ++i) {
    double sum = 0;
    double magnitude = 0;
    for (int64_t j = 0; j < taps; ++j) {
      const int64_t place = i - (taps - 1 - j) * channels;
      if (place >= 0) {
        const double product = double{weights[static_cast<size_t>(i % channels * taps + j)]} *
                               double{source[static_cast<size_t>(place)]};
        sum += product;
        magnitude += std::fabs(product);
      }
    }
    const double result = sum / (1 + std::exp(-sum));
    expected.push_back(
        {result,
         (1.1 * static_cast<double>(taps + 1) * magnitude + 8 * std::fabs(result)) * kUnit});
  }
  return expected;
}

TEST_P(ConvolutionTest, SumsTheTapsOfEachSequence) {
  RandomNumbers random(50);
  for (const int64_t taps : {2, 4, 16}) {
    SCOPED_TRACE(taps);
    ForgetCuts();
    const int64_t channels = 150;
    const std::vector<float> weights = random.Vector(channels * taps);
    const std::vector<float> one = random.Vector(7 * channels, 3);
    const std::vector<float> two = random.Vector(1 * channels, 3);
    const DeviceSpan state = UploadState((taps - 1) * channels);
    std::vector<float> source = one;
    source.insert(source.end(), two.begin(), two.end());
    std::vector<Expected> expected = ConvolutionOf(taps, weights, one);
    const std::vector<Expected> more = ConvolutionOf(taps, weights, two);
    expected.insert(expected.end(), more.begin(), more.end());
    ExpectNear(Convolve({{7, 2, 0}, {1, 0, 0}}, taps, weights, source, state), expected);
    ExpectOtherSlotsUntouched(state, {0, 2});
  }
}

TEST_P(ConvolutionTest, GivesTheSameBitsInOneStepAndInSeveral) {
  RandomNumbers random(51);
  const int64_t channels = 40;
  for (const int64_t taps : {2, 4, 5}) {
    ForgetCuts();
    const std::vector<float> weights = random.Vector(channels * taps);
    const std::vector<float> source = random.Vector(9 * channels, 3);
    const DeviceSpan whole_state = UploadState((taps - 1) * channels);
    const DeviceSpan state = UploadState((taps - 1) * channels);
    const std::vector<float> whole = Convolve({{9, 1, 0}}, taps, weights, source, whole_state);
    int64_t begin = 0;
    for (const int64_t count : {1, 2, 1, 5}) {
      const std::vector<float> found = Convolve({{count, 1, begin}}, taps, weights,
                                                RowsOf(source, channels, begin, count), state);
      EXPECT_EQ(FirstDifference(found, RowsOf(whole, channels, begin, count)), -1) << begin;
      begin += count;
    }
    EXPECT_EQ(FirstDifference(Download<float>(state), Download<float>(whole_state)), -1);
  }
}

}  // namespace
}  // namespace nibble
