// Attention over pages on the host. Softmax runs page by page: the sums so far are scaled down when
// a page brings a larger score, so nothing is kept for each token.

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/block_quantize_ref.h"
#include "kernels/host_step_ops.h"
#include "kernels/page_attention.h"

namespace nibble {
namespace {

constexpr float kF16Max = 65504;

FloatType StoredType(KvType type) {
  switch (type) {
    case KvType::kF16:
      return FloatType::kF16;
    case KvType::kBf16:
      return FloatType::kBf16;
    case KvType::kF32:
      return FloatType::kF32;
  }
  return FloatType::kF32;
}

// Stores a head's numbers for one token.
void StoreHead(KvType type, const float* source, int64_t count, std::byte* target) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = type == KvType::kF16 ? std::clamp(source[i], -kF16Max, kF16Max) : source[i];
    StoreElement(StoredType(type), value, target, i);
  }
}

// Attention of the query heads of one row that share a key head.
class HeadGroup {
 public:
  HeadGroup(const AttentionArgs& args, int64_t row, int64_t key_head)
      : args_(args),
        row_(row),
        key_head_(key_head),
        heads_(args.queries.groups / args.cache.heads),
        size_(args.cache.head_size) {
    const auto count = static_cast<size_t>(heads_);
    largest_.assign(count, -std::numeric_limits<float>::infinity());
    sums_.assign(count, 0);
    scores_.resize(count * static_cast<size_t>(args.page_tokens));
    totals_.assign(count * static_cast<size_t>(size_), 0);
    page_.resize(static_cast<size_t>(args.page_tokens * size_));
  }

  void Run() {
    const int64_t position = HostPointer<const int32_t>(args_.positions)[row_];
    const int64_t sequence = HostPointer<const int32_t>(args_.row_sequences)[row_];
    const auto* const pages =
        HostPointer<const int32_t>(args_.page_tables) + sequence * args_.pages_max;
    const int64_t begin = args_.window == 0 ? 0 : std::max(int64_t{0}, position + 1 - args_.window);
    for (int64_t t = begin; t <= position;) {
      const int64_t page_end = RoundDown(t, args_.page_tokens) + args_.page_tokens;
      const int64_t end = std::min(page_end, position + 1);
      const int64_t page = pages[t / args_.page_tokens];
      const int64_t slot = page * args_.page_tokens + t % args_.page_tokens;
      Check(page >= 0 && slot + (end - t) <= args_.cache.slot_count, "a page of the cache");
      AddPage(slot, end - t);
      t = end;
    }
    for (int64_t h = 0; h < heads_; ++h) {
      float* const target = RowOf(args_.target, row_, key_head_ * heads_ + h);
      for (int64_t i = 0; i < size_; ++i) {
        target[i] = totals_[Index(h, size_, i)] / sums_[static_cast<size_t>(h)];
      }
    }
  }

 private:
  static size_t Index(int64_t row, int64_t width, int64_t column) {
    return static_cast<size_t>(row * width + column);
  }

  // A page's keys or values, of `count` tokens from `slot` on.
  const float* Read(DeviceSpan plane, int64_t slot, int64_t count) {
    const int64_t bytes = size_ * BytesPerElement(args_.cache.type);
    ReadHeads(args_.cache.type,
              HostPointer<const std::byte>(plane) + (slot * args_.cache.heads + key_head_) * bytes,
              args_.cache.heads * bytes, count, size_, page_.data());
    return page_.data();
  }

  void Score(int64_t head, const float* keys, int64_t count) {
    float* const scores = scores_.data() + Index(head, args_.page_tokens, 0);
    ScoreKeys(RowOf(args_.queries, row_, key_head_ * heads_ + head), keys, count, size_, scores);
    for (int64_t t = 0; t < count; ++t) {
      const float score = scores[t] * args_.scale;
      scores[t] = args_.softcap == 0 ? score : args_.softcap * std::tanh(score / args_.softcap);
    }
  }

  void AddPage(int64_t slot, int64_t count) {
    const float* const keys = Read(args_.cache.keys, slot, count);
    for (int64_t h = 0; h < heads_; ++h) {
      Score(h, keys, count);
      Rescale(h, count);
    }
    const float* const values = Read(args_.cache.values, slot, count);
    for (int64_t h = 0; h < heads_; ++h) {
      AddValues(scores_.data() + Index(h, args_.page_tokens, 0), values, count, size_,
                totals_.data() + Index(h, size_, 0));
    }
  }

  // Turns a page's scores into weights, and scales what was added before to the new largest score.
  void Rescale(int64_t head, int64_t count) {
    float* const scores = scores_.data() + Index(head, args_.page_tokens, 0);
    float& largest = largest_[static_cast<size_t>(head)];
    float& sum = sums_[static_cast<size_t>(head)];
    const float before = largest;
    largest = std::max(before, *std::max_element(scores, scores + count));
    if (largest > before && sum > 0) {
      const float factor = std::exp(before - largest);
      sum *= factor;
      float* const totals = totals_.data() + Index(head, size_, 0);
      for (int64_t i = 0; i < size_; ++i) {
        totals[i] *= factor;
      }
    }
    for (int64_t t = 0; t < count; ++t) {
      scores[t] = std::exp(scores[t] - largest);
      sum += scores[t];
    }
  }

  const AttentionArgs& args_;
  const int64_t row_;
  const int64_t key_head_;
  const int64_t heads_;  // That share the key head.
  const int64_t size_;
  std::vector<float> largest_;  // Score so far, of each head.
  std::vector<float> sums_;     // Of weights, relative to it.
  std::vector<float> scores_;   // [heads, page_tokens]
  std::vector<float> totals_;   // [heads, size]
  std::vector<float> page_;     // [page_tokens, size], keys or values.
};

}  // namespace

absl::Status HostStepOps::StoreKv(Queue&, const StoreKvArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const auto* const slots = HostPointer<const int32_t>(args.slots);
  const KvCache& cache = args.cache;
  const int64_t head_bytes = cache.head_size * BytesPerElement(cache.type);
  const int64_t row_count = LiveRows(args.rows);
  for (int64_t row = 0; row < row_count; ++row) {
    const int64_t slot = slots[row];
    if (slot < 0) {
      continue;
    }
    Check(slot < cache.slot_count, "a slot of the cache");
    for (int64_t head = 0; head < cache.heads; ++head) {
      const int64_t offset = (slot * cache.heads + head) * head_bytes;
      StoreHead(cache.type, RowOf(args.keys, row, head), cache.head_size,
                HostPointer(cache.keys) + offset);
      StoreHead(cache.type, RowOf(args.values, row, head), cache.head_size,
                HostPointer(cache.values) + offset);
    }
  }
  return absl::OkStatus();
}

absl::Status HostStepOps::Attention(Queue&, const AttentionArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t key_heads = args.cache.heads;
  pool_.ParallelFor(LiveRows(args.rows) * key_heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      HeadGroup(args, item / key_heads, item % key_heads).Run();
    }
  });
  return absl::OkStatus();
}

}  // namespace nibble
