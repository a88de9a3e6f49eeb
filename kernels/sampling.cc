#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace nibble {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct Candidate {
  float share;
  int32_t id;

  // The more likely first, of equal ones the lower id.
  bool operator<(const Candidate& other) const {
    return share > other.share || (share == other.share && id < other.id);
  }
};

bool IsAllowed(const uint32_t* mask, size_t id) {
  return mask == nullptr || (mask[id / 32] >> (id % 32) & 1) != 0;
}

// Copies the logits with adjustments and mask; NaN is as unlikely as can be.
void Adjust(std::span<const LogitAdjustment> adjustments, const uint32_t* mask,
            std::span<const float> logits, std::vector<float>& adjusted) {
  adjusted.assign(logits.begin(), logits.end());
  for (const LogitAdjustment& adjustment : adjustments) {
    const auto id = static_cast<size_t>(adjustment.id);
    if (id < adjusted.size()) {
      float& logit = adjusted[id];
      logit =
          (logit > 0 ? logit / adjustment.penalty : logit * adjustment.penalty) + adjustment.bias;
    }
  }
  for (size_t id = 0; id < adjusted.size(); ++id) {
    if (!IsAllowed(mask, id) || std::isnan(adjusted[id])) {
      adjusted[id] = kNothing;
    }
  }
}

// Keeps the first of the candidates, most likely first, until their shares reach `top_p` of all.
void KeepTopP(float top_p, std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) {
    total += double{candidate.share};
  }
  // Few are needed as a rule: they are sorted in pieces, each twice the one before.
  const double wanted = double{top_p} * total;
  double reached = 0;
  size_t sorted = 0;
  for (size_t piece = 64; sorted < candidates.size(); piece *= 2) {
    const size_t end = std::min(candidates.size(), sorted + piece);
    std::partial_sort(candidates.begin() + static_cast<std::ptrdiff_t>(sorted),
                      candidates.begin() + static_cast<std::ptrdiff_t>(end), candidates.end());
    for (; sorted < end; ++sorted) {
      reached += double{candidates[sorted].share};
      if (reached >= wanted) {
        candidates.resize(sorted + 1);
        return;
      }
    }
  }
}

int32_t Draw(const SamplerRow& sampler, const std::vector<float>& adjusted, float largest) {
  std::vector<Candidate> candidates;
  for (size_t id = 0; id < adjusted.size(); ++id) {
    const float share = std::exp((adjusted[id] - largest) / sampler.temperature);
    if (share > 0) {
      candidates.push_back({share, static_cast<int32_t>(id)});
    }
  }
  const auto top_k = static_cast<size_t>(std::max(sampler.top_k, 0));
  if (top_k > 0 && top_k < candidates.size()) {
    std::nth_element(candidates.begin(),
                     candidates.begin() + static_cast<std::ptrdiff_t>(top_k - 1), candidates.end());
    candidates.resize(top_k);
  }
  if (sampler.top_p < 1) {
    KeepTopP(sampler.top_p, candidates);
  }
  // The most likely one's share is 1: it stays whatever min_p is.
  std::erase_if(candidates, [&sampler](const Candidate& candidate) {
    return candidate.share < sampler.min_p && candidate.share < 1;
  });
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& left, const Candidate& right) { return left.id < right.id; });
  double total = 0;
  for (const Candidate& candidate : candidates) {
    total += double{candidate.share};
  }
  double left = double{RandomShare(sampler.seed, sampler.position)} * total;
  for (const Candidate& candidate : candidates) {
    left -= double{candidate.share};
    if (left < 0) {
      return candidate.id;
    }
  }
  return candidates.back().id;
}

// What must be subtracted from a logit to give its log-probability.
float LogTotal(std::span<const float> logits) {
  float largest = kNothing;
  for (const float logit : logits) {
    largest = logit > largest ? logit : largest;
  }
  double total = 0;
  for (const float logit : logits) {
    total += std::isnan(logit) ? 0 : double{std::exp(logit - largest)};
  }
  return largest + static_cast<float>(std::log(total));
}

void TakeTop(std::span<const float> logits, float log_total, int32_t count, SampledRow& row) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto wanted = std::min({static_cast<size_t>(std::max(count, 0)), ids.size(),
                                static_cast<size_t>(kTopLogProbabilitiesMax)});
  const auto value = [&logits](int32_t id) {
    const float logit = logits[static_cast<size_t>(id)];
    return std::isnan(logit) ? kNothing : logit;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(wanted), ids.end(),
                    [&value](int32_t left, int32_t right) {
                      return value(left) > value(right) ||
                             (value(left) == value(right) && left < right);
                    });
  for (size_t index = 0; index < wanted; ++index) {
    row.top_ids[index] = ids[index];
    row.top_log_probabilities[index] = value(ids[index]) - log_total;
  }
}

}  // namespace

SampledRow SampleLogits(const SamplerRow& sampler, std::span<const LogitAdjustment> adjustments,
                        const uint32_t* mask, std::span<const float> logits,
                        std::vector<float>& scratch) {
  SampledRow row;
  Adjust(adjustments, mask, logits, scratch);
  const auto best = std::max_element(scratch.begin(), scratch.end());
  if (best == scratch.end() || !std::isfinite(*best)) {
    return row;
  }
  if (sampler.forced_id >= 0 && static_cast<size_t>(sampler.forced_id) < logits.size()) {
    row.id = sampler.forced_id;
  } else if (sampler.temperature > 0) {
    row.id = Draw(sampler, scratch, *best);
  } else {
    row.id = static_cast<int32_t>(best - scratch.begin());
  }
  const float log_total = LogTotal(logits);
  row.log_probability = logits[static_cast<size_t>(row.id)] - log_total;
  if (sampler.top_count > 0) {
    TakeTop(logits, log_total, sampler.top_count, row);
  }
  return row;
}

}  // namespace nibble
