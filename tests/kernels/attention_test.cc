// The key and value cache and attention over its pages, on every device, against softmax in double
// precision over whole sequences.

#include <array>

#include "tests/kernels/step_fixture.h"

namespace nibble {
namespace {

struct AttentionCase {
  KvType type = KvType::kF16;
  int64_t heads = 6;
  int64_t key_heads = 2;
  int64_t head_size = 64;
  float softcap = 0;
  int64_t window = 0;
  int64_t page_tokens = 16;
  bool batch_invariant = false;
  int64_t skew_bytes = 0;  // Of the cache's place: 4 is one that 16 bytes cannot be read from.
};

// Rows of several sequences, and where their tokens lie.
struct Batch {
  std::vector<int32_t> sequences;  // Of each row.
  std::vector<int32_t> positions;
};

constexpr int64_t kSequences = 4;
constexpr int64_t kPagesMax = 12;
constexpr int64_t kPages = 40;

// Rows of a prompt, of three sequences in turn, at and around the ends of pages.
Batch MixedBatch() { return {{0, 0, 0, 0, 1, 2, 1, 2, 0}, {13, 14, 15, 16, 0, 150, 1, 127, 31}}; }

class AttentionTest : public StepTest {
 protected:
  // A number that every type of cache holds exactly: 7 bits below 2.
  static float Number(RandomNumbers& random) {
    return static_cast<float>(random.Below(256) - 128) / 64;
  }

  // Deals pages at random, fills them, and keeps the numbers.
  void FillCache(const AttentionCase& c) {
    RandomNumbers random(21);
    const int64_t slot_count = kPages * c.page_tokens;
    const int64_t count = slot_count * c.key_heads * c.head_size;
    keys_.resize(static_cast<size_t>(count));
    values_.resize(static_cast<size_t>(count));
    for (size_t i = 0; i < keys_.size(); ++i) {
      keys_[i] = Number(random);
      values_[i] = Number(random);
    }
    pages_.clear();
    std::vector<int32_t> free_pages;
    for (int32_t page = 0; page < kPages; ++page) {
      free_pages.push_back(page);
    }
    for (int64_t i = 0; i < kSequences * kPagesMax; ++i) {
      // The last sequence has no pages of its own.
      const auto pick = random.Below(std::ssize(free_pages));
      pages_.push_back(i < 3 * kPagesMax ? free_pages[static_cast<size_t>(pick)] : -1);
      if (i < 3 * kPagesMax) {
        free_pages.erase(free_pages.begin() + pick);
      }
    }
    cache_ = {c.type, slot_count, c.key_heads, c.head_size, {}, {}};
    cache_.keys = UploadNumbers(c.type, keys_, c.skew_bytes);
    cache_.values = UploadNumbers(c.type, values_, c.skew_bytes);
  }

  std::vector<float> Attend(const AttentionCase& c, const Batch& batch,
                            const std::vector<float>& queries, int64_t bound) {
    const int64_t live = std::ssize(batch.positions);
    AttentionArgs args;
    args.rows = UploadRowCount(bound, live);
    args.queries = UploadRows(bound, c.heads, c.head_size, queries,
                              {.rows = 6, .groups = c.head_size, .front = 1});
    args.cache = cache_;
    args.page_tokens = c.page_tokens;
    args.pages_max = kPagesMax;
    args.page_tables = UploadVector(pages_);
    args.row_sequences = UploadIndices(batch.sequences, bound);
    args.positions = UploadIndices(batch.positions, bound);
    args.scale = kScale;
    args.softcap = c.softcap;
    args.window = c.window;
    args.batch_invariant = c.batch_invariant;
    args.target = CutRows(bound, c.heads, c.head_size, {.rows = 3});
    ExpectOk(ops().Attention(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, live);
    ExpectGuardsIntact();
    return found;
  }

  // A score loses D + 4 units of what it adds up, and the cap's function and division a few more of
  // itself. A weight loses twice the worst of that (its own and the largest score's), and two units
  // for every token: exponentials, sums, and what is scaled when a larger score appears, by four.
  // That much of the largest value is lost twice, above and below the fraction.
  std::vector<Expected> AttentionOf(const AttentionCase& c, int64_t sequence, int64_t position,
                                    int64_t head, const float* query) const {
    const int64_t first = c.window == 0 ? 0 : std::max(int64_t{0}, position + 1 - c.window);
    const int64_t key_head = head / (c.heads / c.key_heads);
    std::vector<double> scores;
    std::vector<size_t> places;
    double score_error = 0;
    for (int64_t t = first; t <= position; ++t) {
      const int64_t page = pages_[static_cast<size_t>(sequence * kPagesMax + t / c.page_tokens)];
      const int64_t slot = page * c.page_tokens + t % c.page_tokens;
      const auto place = static_cast<size_t>((slot * c.key_heads + key_head) * c.head_size);
      double score = 0;
      double magnitude = 0;
      for (int64_t i = 0; i < c.head_size; ++i) {
        const double product =
            double{query[i]} * double{keys_[place + static_cast<size_t>(i)]} * double{kScale};
        score += product;
        magnitude += std::fabs(product);
      }
      score_error = std::max(score_error, magnitude * static_cast<double>(c.head_size + 4) * kUnit +
                                              double{c.softcap} * 8 * kUnit);
      const double cap = double{c.softcap};
      scores.push_back(cap == 0 ? score : cap * std::tanh(score / cap));
      places.push_back(place);
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    const double tokens = static_cast<double>(scores.size());
    std::vector<Expected> expected(static_cast<size_t>(c.head_size));
    for (size_t i = 0; i < expected.size(); ++i) {
      double sum = 0;
      double total = 0;
      double largest_value = 0;
      for (size_t t = 0; t < scores.size(); ++t) {
        const double weight = std::exp(scores[t] - largest);
        const double value = double{values_[places[t] + i]};
        sum += weight;
        total += weight * value;
        largest_value = std::max(largest_value, std::fabs(value));
      }
      expected[i] = {total / sum,
                     2 * largest_value * (2 * score_error + (8 * tokens + 16) * kUnit)};
    }
    return expected;
  }

  void ExpectAttention(const AttentionCase& c, const Batch& batch,
                       const std::vector<int64_t>& bounds) {
    RandomNumbers random(22);
    const std::vector<float> queries =
        random.Vector(std::ssize(batch.positions) * c.heads * c.head_size);
    std::vector<Expected> expected;
    for (size_t row = 0; row < batch.positions.size(); ++row) {
      for (int64_t head = 0; head < c.heads; ++head) {
        const float* const query =
            queries.data() + (static_cast<int64_t>(row) * c.heads + head) * c.head_size;
        const std::vector<Expected> some =
            AttentionOf(c, batch.sequences[row], batch.positions[row], head, query);
        expected.insert(expected.end(), some.begin(), some.end());
      }
    }
    for (const int64_t bound : bounds) {
      SCOPED_TRACE(testing::Message() << "bound " << bound);
      ExpectNear(Attend(c, batch, queries, bound), expected);
    }
  }

  void ExpectTheSameBitsAlone(const AttentionCase& c) {
    FillCache(c);
    const Batch batch = MixedBatch();
    const int64_t width = c.heads * c.head_size;
    const std::vector<float> queries = RandomNumbers(23).Vector(9 * width);
    const std::vector<float> all = Attend(c, batch, queries, 9);
    for (const size_t row : {size_t{0}, size_t{5}, size_t{8}}) {
      const auto from = static_cast<int64_t>(row);
      const Batch alone = {{batch.sequences[row]}, {batch.positions[row]}};
      EXPECT_EQ(FirstDifference(Attend(c, alone, RowsOf(queries, width, from, 1), 9),
                                RowsOf(all, width, from, 1)),
                -1)
          << row;
    }
  }

  static constexpr float kScale = 0.21f;
  std::vector<float> keys_;  // [slots, key_heads, head_size]
  std::vector<float> values_;
  std::vector<int32_t> pages_;
  KvCache cache_;

 private:
  DeviceSpan UploadNumbers(KvType type, const std::vector<float>& numbers, int64_t skew_bytes) {
    if (type == KvType::kF32) {
      return UploadVector(numbers, skew_bytes);
    }
    std::vector<uint16_t> halves;
    for (const float number : numbers) {
      const uint32_t bits = std::bit_cast<uint32_t>(number);
      const uint32_t sign = bits >> 16 & 0x8000;
      // None is subnormal: the smallest is 2^-6.
      const uint32_t half = number == 0 ? 0 : (bits >> 13 & 0x3ffff) - (112u << 10);
      halves.push_back(static_cast<uint16_t>(type == KvType::kBf16 ? bits >> 16 : sign | half));
    }
    return UploadVector(halves, skew_bytes);
  }
};
INSTANTIATE_TEST_SUITE_P(Host, AttentionTest, testing::Values("host"), DeviceTestName);
INSTANTIATE_TEST_SUITE_P(Cuda, AttentionTest, testing::ValuesIn(CudaDevices()), DeviceTestName);

TEST_P(AttentionTest, WeighsTheTokensOfTheRowsSequence) {
  for (const KvType type : {KvType::kF16, KvType::kBf16, KvType::kF32}) {
    for (const int64_t head_size : {1, 5, 64, 80, 128, 192, 256, 300}) {
      for (const int64_t skew_bytes : {0, 4}) {
        SCOPED_TRACE(testing::Message()
                     << static_cast<int>(type) << " size " << head_size << " skew " << skew_bytes);
        ForgetCuts();
        const AttentionCase c = {.type = type, .head_size = head_size, .skew_bytes = skew_bytes};
        FillCache(c);
        ExpectAttention(c, MixedBatch(), {16});
      }
    }
  }
}

TEST_P(AttentionTest, SharesKeyHeadsAmongQueryHeads) {
  for (const auto& [heads, key_heads] :
       {std::pair<int64_t, int64_t>{1, 1}, {4, 4}, {8, 1}, {8, 4}, {7, 1}, {16, 1}}) {
    for (const int64_t skew_bytes : {0, 4}) {
      SCOPED_TRACE(testing::Message() << heads << " of " << key_heads << " skew " << skew_bytes);
      ForgetCuts();
      const AttentionCase c = {.heads = heads, .key_heads = key_heads, .skew_bytes = skew_bytes};
      FillCache(c);
      ExpectAttention(c, MixedBatch(), {9, 60, 300});
    }
  }
}

// Contexts that are split over CTAs, whose lanes take many tokens each.
TEST_P(AttentionTest, WeighsTheTokensOfLongContexts) {
  for (const int64_t head_size : {64, 128, 256}) {
    for (const KvType type : {KvType::kF16, KvType::kBf16}) {
      ForgetCuts();
      AttentionCase c = {.type = type, .key_heads = 1, .head_size = head_size, .page_tokens = 256};
      FillCache(c);
      for (const int64_t heads : type == KvType::kF16 ? std::array{1, 6} : std::array{4, 8}) {
        SCOPED_TRACE(testing::Message() << heads << " heads of " << head_size);
        c.heads = heads;
        ExpectAttention(c, {{1, 0, 2}, {3071, 300, 0}}, {3, 12, 40, 200});
      }
    }
  }
}

TEST_P(AttentionTest, KeepsToTheWindowOfLongContexts) {
  AttentionCase c = {.heads = 4, .key_heads = 1, .head_size = 128, .page_tokens = 256};
  FillCache(c);
  for (const float softcap : {0.0f, 2.0f}) {
    for (const int64_t window : {1, 33, 1000, 2999}) {
      SCOPED_TRACE(testing::Message() << "cap " << softcap << " window " << window);
      c.softcap = softcap;
      c.window = window;
      ExpectAttention(c, {{1, 0}, {3071, 1500}}, {2, 100});
    }
  }
}

TEST_P(AttentionTest, CapsScoresAndKeepsToTheWindow) {
  for (const float softcap : {0.0f, 2.0f}) {
    for (const int64_t window : {0, 1, 7, 16, 40, 1000}) {
      for (const int64_t skew_bytes : {0, 4}) {
        SCOPED_TRACE(testing::Message()
                     << "cap " << softcap << " window " << window << " skew " << skew_bytes);
        ForgetCuts();
        const AttentionCase c = {.softcap = softcap, .window = window, .skew_bytes = skew_bytes};
        FillCache(c);
        ExpectAttention(c, MixedBatch(), {12});
      }
    }
  }
}

TEST_P(AttentionTest, TakesPagesOfEverySize) {
  for (const int64_t page_tokens : {1, 2, 64, 256}) {
    ForgetCuts();
    for (const int64_t head_size : {16, 64}) {
      const AttentionCase c = {.head_size = head_size, .page_tokens = page_tokens};
      FillCache(c);
      const auto last = static_cast<int32_t>(page_tokens * kPagesMax - 1);
      ExpectAttention(c, {{2, 0, 1}, {last, last / 2, 0}}, {4});
    }
  }
}

TEST_P(AttentionTest, GivesARowTheSameBitsWhateverTheOthersAre) {
  for (const int64_t skew_bytes : {0, 4}) {
    SCOPED_TRACE(skew_bytes);
    ForgetCuts();
    ExpectTheSameBitsAlone({.head_size = 128, .softcap = 5, .skew_bytes = skew_bytes});
  }
}

TEST_P(AttentionTest, GivesARowTheSameBitsForEveryBoundIfBatchInvariant) {
  for (const int64_t skew_bytes : {0, 4}) {
    ForgetCuts();
    const AttentionCase c = {.head_size = 128, .batch_invariant = true, .skew_bytes = skew_bytes};
    FillCache(c);
    const std::vector<float> queries = RandomNumbers(24).Vector(c.heads * c.head_size);
    const Batch batch = {{2}, {150}};
    const std::vector<float> alone = Attend(c, batch, queries, 1);
    for (const int64_t bound : {8, 200}) {
      EXPECT_EQ(FirstDifference(Attend(c, batch, queries, bound), alone), -1)
          << bound << " skew " << skew_bytes;
    }
  }
}

TEST_P(AttentionTest, MakesARowNanWhoseTokensAreNotThere) {
  if (is_host()) {
    GTEST_SKIP() << "the host device ends the process: its caller checks pages";
  }
  for (const int64_t skew_bytes : {0, 4}) {
    ForgetCuts();
    const AttentionCase c = {.skew_bytes = skew_bytes};
    FillCache(c);
    // No pages; no such sequence; a position beyond all pages; and one that is well.
    const Batch batch = {{3, 99, -1, 0, 0}, {5, 5, 5, 0x7fffffff, 5}};
    const std::vector<float> found =
        Attend(c, batch, RandomNumbers(1).Vector(5 * c.heads * c.head_size), 5);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(std::isnan(found[i]), i < 4 * static_cast<size_t>(c.heads * c.head_size)) << i;
    }
  }
}

TEST_P(AttentionTest, MakesARowNanOneOfWhosePagesIsNotThere) {
  if (is_host()) {
    GTEST_SKIP() << "the host device ends the process: its caller checks pages";
  }
  for (const int64_t head_size : {64, 80, 128, 256}) {
    for (const int32_t page : {-1, static_cast<int32_t>(kPages)}) {
      SCOPED_TRACE(testing::Message() << "size " << head_size << " page " << page);
      ForgetCuts();
      const AttentionCase c = {.head_size = head_size, .window = 32};
      FillCache(c);
      pages_[3] = page;  // Of sequence 0: tokens 48 to 63.
      // Only the second and the third row's windows reach it.
      const Batch batch = {{0, 0, 0, 0}, {47, 48, 94, 95}};
      const int64_t width = c.heads * c.head_size;
      const std::vector<float> found = Attend(c, batch, RandomNumbers(1).Vector(4 * width), 4);
      for (size_t i = 0; i < found.size(); ++i) {
        const auto row = static_cast<int64_t>(i) / width;
        ASSERT_EQ(std::isnan(found[i]), row == 1 || row == 2) << i;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
