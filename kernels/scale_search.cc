// The scale search of the host, after the plain quantizer: it reads the scales found there and
// writes over those blocks that it improves on. Blocks pass in batches through three stages, so
// that those of several are in flight together: x and the cheapest candidate
// (simd_scale_candidates-inl.h), the best factor for its codes, and the codes under that
// (simd_scale_codes-inl.h).

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/scale_search.cc"

#include "kernels/scale_search.h"

#include <algorithm>
#include <cstring>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
#include "kernels/block_quantize.h"
#include "kernels/block_span.h"
#include "kernels/scale_search_ref.h"
#include "kernels/scale_search_table.h"
#include "kernels/simd_scale_candidates-inl.h"
#include "kernels/simd_scale_codes-inl.h"
#include "kernels/simd_scale_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

// Highway's emulation rounds some numbers just below a half up. There the reference does the work.
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

void SearchFullBlocks(ScaleSearch search, const BlockSpan& span) {
  ScaleSearchRef(search, span.codebook, span.block_size, span.type, span.source,
                 span.full_blocks() * span.block_size, span.codes, span.scales);
}

#else

namespace hn = hwy::HWY_NAMESPACE;

// Step 3, and the error of the plain codes.
HWY_INLINE SearchedBlock ImproveFactor(const ScaleSearchTable& table, uint32_t candidate,
                                       const int16_t* HWY_RESTRICT x, int64_t block_size) {
  const Short d;
  const bool is_turned = candidate >= kSearchFactors;
  const VShort turn = TurnOf(is_turned);
  const LevelSearch searched(table.thresholds[candidate % kSearchFactors]);
  const LevelSearch plain(table.plain_thresholds);
  const LevelTable weights(table.weights);
  const LevelTable levels(table.plain_levels);
  ProductSum products, squares, errors;
  constexpr int64_t kStep = ProductSum::kAddsMax * kLanes;
  for (int64_t begin = 0; begin < block_size; begin += kStep) {
    const int64_t end = std::min(block_size, begin + kStep);
    for (int64_t i = begin; i < end; i += kLanes) {
      const VShort plain_x = hn::Load(d, x + i);
      const VShort turned_x = Turned(plain_x, turn);
      const VShort weight = searched.Find(turned_x).LookUp(weights);
      products.Add(turned_x, weight);
      squares.Add(weight, weight);
      const VShort distance = hn::Abs(hn::Sub(plain_x, plain.Find(plain_x).LookUp(levels)));
      const VShort least = hn::Max(hn::Sub(distance, hn::Set(d, kSearchErrorMargin)), hn::Zero(d));
      errors.Add(least, least);
    }
    products.Widen();
    squares.Widen();
    errors.Widen();
  }
  const float ratio = static_cast<float>(products.Sum()) / static_cast<float>(squares.Sum());
  return {ratio / (1 << kSearchWeightShift), is_turned, errors.Sum()};
}

// 16 blocks of 64 are 4 KiB of x and elements, which stay in the first cache beside the costs.
constexpr int64_t kBatchElements = 1024;
constexpr int64_t kBatchBlocksMax = kBatchElements / kBlockSizeMin;

template <Codebook kCodebook, FloatType kType, bool kSigned>
HWY_INLINE void SearchBatch(const ScaleSearchTable& table, const BlockSpan& span, int64_t begin,
                            int64_t block_count) {
  const int64_t block_size = span.block_size;
  const int64_t block_bytes = block_size * BytesPerElement(kType);
  float* const scales = span.scales + begin;
  const auto is_searched = [&](int64_t i) {
    return scales[i] >= kSearchedScaleMin && scales[i] <= kSearchedScaleMax;
  };
  alignas(64) int16_t x[std::max(kBatchElements, kBlockSizeMax)];
  uint32_t candidates[kBatchBlocksMax];
  SearchedBlock searched[kBatchBlocksMax];
  for (int64_t i = 0; i < block_count; ++i) {
    if (is_searched(i)) [[likely]] {
      StoreX<kType>(span.source + (begin + i) * block_bytes, block_size, kSearchUnit / scales[i],
                    x + i * block_size);
      candidates[i] = CheapestCandidate<kSigned>(table, x + i * block_size, block_size);
    }
  }
  for (int64_t i = 0; i < block_count; ++i) {
    if (is_searched(i)) [[likely]] {
      searched[i] = ImproveFactor(table, candidates[i], x + i * block_size, block_size);
    }
  }
  alignas(64) uint8_t codes[kBlockSizeMax / 2];
  for (int64_t i = 0; i < block_count; ++i) {
    if (!is_searched(i) || searched[i].factor < kSearchFactorMin ||
        searched[i].factor > kSearchFactorMax) {
      continue;
    }
    const float magnitude = searched[i].factor * scales[i];
    const float scale = searched[i].is_turned ? -magnitude : magnitude;
    const int64_t error = StoreCodes<kCodebook, kType>(table, searched[i], scale,
                                                       span.source + (begin + i) * block_bytes,
                                                       x + i * block_size, block_size, codes);
    if (error < searched[i].plain_error) {
      std::memcpy(span.codes + (begin + i) * block_size / 2, codes,
                  static_cast<size_t>(block_size / 2));
      scales[i] = scale;
    }
  }
}

template <Codebook kCodebook, FloatType kType, bool kSigned>
void SearchBlocksOf(const BlockSpan& span) {
  const ScaleSearchTable& table = ScaleSearchTableOf(kCodebook, span.block_size);
  const int64_t batch = std::max<int64_t>(1, kBatchElements / span.block_size);
  for (int64_t block = 0; block < span.full_blocks(); block += batch) {
    SearchBatch<kCodebook, kType, kSigned>(table, span, block,
                                           std::min(batch, span.full_blocks() - block));
  }
}

template <FloatType kType>
void SearchBlocksOf(ScaleSearch search, const BlockSpan& span) {
  if (span.codebook == Codebook::kFp4) {
    return SearchBlocksOf<Codebook::kFp4, kType, false>(span);
  }
  return IsSigned(search, span.codebook) ? SearchBlocksOf<Codebook::kNf4, kType, true>(span)
                                         : SearchBlocksOf<Codebook::kNf4, kType, false>(span);
}

// Improves on the full blocks of `span`, where plain codes and scales are.
//
// Requires: elements are finite.
void SearchFullBlocks(ScaleSearch search, const BlockSpan& span) {
  switch (span.type) {
    case FloatType::kF32:
      return SearchBlocksOf<FloatType::kF32>(search, span);
    case FloatType::kF16:
      return SearchBlocksOf<FloatType::kF16>(search, span);
    case FloatType::kBf16:
      return SearchBlocksOf<FloatType::kBf16>(search, span);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {
namespace {

HWY_EXPORT(SearchFullBlocks);

// What is quantized plainly before it is searched: the largest block twice over, in the second
// cache.
constexpr int64_t kSpanElements = 8192;

BlockSpan Part(const BlockSpan& span, int64_t begin, int64_t count) {
  BlockSpan part = span;
  part.source += begin * BytesPerElement(span.type);
  part.element_count = count;
  part.codes += begin / 2;
  part.scales += begin / span.block_size;
  return part;
}

// Searches those of full blocks that hold neither NaN nor Inf.
void SearchFiniteBlocks(ScaleSearch search, const BlockSpan& span) {
  for (int64_t begin = 0; begin < span.element_count; begin += span.block_size) {
    const BlockSpan block = Part(span, begin, span.block_size);
    if (FindFirstNonFinite(block.type, block.source, block.element_count) == kAllFinite) {
      HWY_DYNAMIC_DISPATCH(SearchFullBlocks)(search, block);
    }
  }
}

}  // namespace

uint64_t SearchBlockScales(ScaleSearch search, Codebook codebook, int64_t block_size,
                           FloatType type, const std::byte* source, int64_t element_count,
                           uint8_t* codes, float* scales) {
  const BlockSpan span = {codebook, block_size, type, source, element_count, codes, scales};
  const int64_t full_end = span.full_blocks() * block_size;
  uint64_t first_non_finite = kAllFinite;
  for (int64_t begin = 0; begin < element_count; begin += kSpanElements) {
    const BlockSpan part =
        Part(span, begin, std::min<int64_t>(kSpanElements, element_count - begin));
    const uint64_t first = QuantizeBlocks(codebook, block_size, type, part.source,
                                          part.element_count, part.codes, part.scales);
    const BlockSpan full = Part(part, 0, part.full_blocks() * block_size);
    if (first == kAllFinite) {
      HWY_DYNAMIC_DISPATCH(SearchFullBlocks)(search, full);
      continue;
    }
    SearchFiniteBlocks(search, full);
    first_non_finite = std::min(first_non_finite, first + static_cast<uint64_t>(begin));
  }
  if (full_end < element_count) {
    const BlockSpan last = Part(span, full_end, element_count - full_end);
    ScaleSearchRef(search, codebook, block_size, type, last.source, last.element_count, last.codes,
                   last.scales);
  }
  return first_non_finite;
}

}  // namespace nibble
#endif  // HWY_ONCE
