// Choosing the next token. The CTAs of a cluster have a part of a row's logits each, in shared
// memory, and pass over it again and again.

#include <cuda_runtime.h>

#include <climits>
#include <cmath>

#include "kernels/early_launch.cuh"
#include "kernels/sample_team.cuh"
#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr float kNothing = -INFINITY;

extern __shared__ float dynamic_shared[];

// Grows with the number; NaN must not come. Zeros are equal.
__device__ uint32_t OrderOf(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ float NumberOf(uint32_t order) {
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}

// A token and its logit as one number; the larger logit is larger, of equal ones the lower id.
struct Rank {
  uint64_t bits;

  __device__ static Rank Of(float logit, int id) {
    const uint32_t order = OrderOf(isnan(logit) ? kNothing : logit);
    return {static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(id)};
  }
  __device__ float logit() const { return NumberOf(static_cast<uint32_t>(bits >> 32)); }
  __device__ int id() const { return static_cast<int>(~static_cast<uint32_t>(bits)); }
};

// The tokens that may be drawn: those above a logit, and those with that logit up to an id.
struct Cut {
  uint32_t order = 0;  // Of the logit.
  int last_id = INT_MAX;

  __device__ bool Has(uint32_t token_order, int id) const {
    return token_order > order || (token_order == order && id <= last_id);
  }
};

// A CTA's part of a row.
struct Part {
  float* logits;  // [count]
  int first_id;
  int count;
  int vocabulary;

  // A thread's own run, where the order of ids counts; an odd length, so that the threads of a warp
  // are in different banks.
  __device__ int RunLength() const { return (count + kTeamThreads - 1) / kTeamThreads | 1; }
  __device__ int RunBegin() const {
    return min(static_cast<int>(threadIdx.x) * RunLength(), count);
  }
  __device__ int RunEnd() const { return min(RunBegin() + RunLength(), count); }
};

// The first token behind `previous` in the order of rank.
__device__ Rank Best(Team& team, const Part& part, const Rank& previous) {
  uint64_t best = 0;
  for (int i = static_cast<int>(threadIdx.x); i < part.count; i += kTeamThreads) {
    const uint64_t rank = Rank::Of(part.logits[i], part.first_id + i).bits;
    best = rank < previous.bits && rank > best ? rank : best;
  }
  return {team.Max(best)};
}

// What must be subtracted from a logit to give its log-probability.
__device__ float LogTotal(Team& team, const Part& part, float largest) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < part.count; i += kTeamThreads) {
    sum += isnan(part.logits[i]) ? 0 : static_cast<double>(expf(part.logits[i] - largest));
  }
  return largest + static_cast<float>(log(team.Sum(sum)));
}

// Weighs and draws the tokens of an adjusted row without NaN.
class Drawing {
 public:
  __device__ Drawing(Team& team, const Part& part, float largest, float temperature)
      : team_(team), part_(part), largest_(largest), temperature_(temperature) {}

  // -1: rounding left the random number beyond all tokens.
  __device__ int Draw(const SamplerRow& sampler) {
    if (sampler.top_k > 0 && sampler.top_k < part_.vocabulary) {
      CutAt(sampler.top_k, [](int) { return 1.0; });
    }
    const auto share = [this](int i) { return Share(i); };
    if (sampler.top_p < 1) {
      CutAt(static_cast<double>(sampler.top_p) * Weigh(0, share), share);
    }
    // The most likely one's share is 1: it stays whatever min_p is.
    const auto kept = [&](int i) {
      const double value = Has(i) ? Share(i) : 0.0;
      return value < static_cast<double>(sampler.min_p) && value < 1 ? 0.0 : value;
    };
    double sum = 0;
    for (int i = part_.RunBegin(); i < part_.RunEnd(); ++i) {
      sum += kept(i);
    }
    const double total = team_.Sum(sum);
    return Find(sum, static_cast<double>(RandomShare(sampler.seed, sampler.position)) * total,
                kept);
  }

 private:
  __device__ double Share(int i) const {
    return static_cast<double>(expf((part_.logits[i] - largest_) / temperature_));
  }
  __device__ bool Has(int i) const {
    return cut_.Has(OrderOf(part_.logits[i]), part_.first_id + i);
  }

  // Of the tokens that are not cut off and whose logits have at least this order.
  template <typename Weight>
  __device__ double Weigh(uint32_t least, Weight weight) {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < part_.count; i += kTeamThreads) {
      sum += OrderOf(part_.logits[i]) >= least && Has(i) ? weight(i) : 0;
    }
    return team_.Sum(sum);
  }

  // The token in whose weight `target` lies, all in the order of their ids; `run` is the weight of
  // the thread's run. -1 if there is none.
  template <typename Weight>
  __device__ int Find(double run, double target, Weight weight) {
    int found = -1;
    double left = 0;
    if (team_.Find(run, target, left)) {
      for (int i = part_.RunBegin(); i < part_.RunEnd() && left >= 0; ++i) {
        const double value = weight(i);
        if (value > 0) {
          found = part_.first_id + i;
          left -= value;
        }
      }
    }
    return static_cast<int>(team_.Max(static_cast<uint64_t>(found + 1))) - 1;
  }

  // Cuts off all but the first tokens whose weights reach `wanted`. Equal logits have equal
  // weights.
  template <typename Weight>
  __device__ void CutAt(double wanted, Weight weight) {
    // The largest logit at and above which the weights suffice.
    uint32_t low = 0;
    uint32_t high = 0xffffffffu;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2 + 1;
      if (Weigh(middle, weight) >= wanted) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    // How many tokens of that logit are needed, and which is the last of them.
    const double above = low == 0xffffffffu ? 0 : Weigh(low + 1, weight);
    const auto is_equal = [&](int i) {
      return OrderOf(part_.logits[i]) == low && Has(i) ? 1.0 : 0.0;
    };
    double count = 0;
    double one = 0;
    for (int i = part_.RunBegin(); i < part_.RunEnd(); ++i) {
      if (is_equal(i) > 0) {
        count += 1;
        one = weight(i);
      }
    }
    const double all = team_.Sum(count);
    const double weight_of_one = team_.Sum(one) / fmax(team_.Sum(one > 0 ? 1.0 : 0.0), 1.0);
    const double needed =
        weight_of_one > 0 ? fmin(fmax(ceil((wanted - above) / weight_of_one), 1.0), all) : all;
    const int last_id = Find(count, needed - 0.5, is_equal);
    cut_ = {low, last_id};
  }

  Team& team_;
  const Part& part_;
  const float largest_;
  const float temperature_;
  Cut cut_;
};

// Adjusts a row in place. What a logit was stays in its adjustment, in place of the bias.
__device__ void Adjust(Team& team, const SamplerRow& sampler, LogitAdjustment* adjustments,
                       const uint32_t* mask, const Part& part) {
  for (int index = static_cast<int>(threadIdx.x); index < sampler.adjustment_count;
       index += kTeamThreads) {
    LogitAdjustment& adjustment = adjustments[index];
    const int i = adjustment.id - part.first_id;
    if (adjustment.id >= 0 && i >= 0 && i < part.count) {
      float& logit = part.logits[i];
      const float before = logit;
      logit =
          (logit > 0 ? logit / adjustment.penalty : logit * adjustment.penalty) + adjustment.bias;
      adjustment.bias = before;
    }
  }
  team.Sync();
  for (int i = static_cast<int>(threadIdx.x); i < part.count; i += kTeamThreads) {
    const int id = part.first_id + i;
    const bool allowed = mask == nullptr || (mask[id / 32] >> (id % 32) & 1) != 0;
    if (!allowed || isnan(part.logits[i])) {
      part.logits[i] = kNothing;
    }
  }
  team.Sync();
}

// The CTA's part of a row, in shared memory if it has room.
__device__ Part PartOf(const Team& team, float* logits, int vocabulary, bool is_shared) {
  const int per_cta = (vocabulary + team.size() - 1) / team.size();
  const int first_id = min(team.rank() * per_cta, vocabulary);
  Part part = {logits + first_id, first_id, min(per_cta, vocabulary - first_id), vocabulary};
  if (is_shared) {
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.x); i < part.count; i += kTeamThreads) {
      dynamic_shared[i] = part.logits[i];
    }
    part.logits = dynamic_shared;
  }
  return part;
}

struct SampleRows {
  Rows logits;                   // [M, vocabulary]; overwritten if not `is_shared`
  const SamplerRow* samplers;    // [M]
  LogitAdjustment* adjustments;  // [any], overwritten
  const uint32_t* masks;         // [masks, mask_words]
  int64_t mask_words;
  SampledRow* results;  // [M]
};

//   grid   bound x 1 x CTAs of a cluster
//   block  512 threads
//   bytes  4 read a logit, once; then 4 passes over shared memory for the most likely token, up to
//          70 to draw one; bound by latency
__global__ void __launch_bounds__(kTeamThreads)
    SampleKernel(LiveCount rows, const __grid_constant__ SampleRows all, bool is_shared) {
  __shared__ TeamShared team_shared;
  Team team(team_shared);
  LetNextBegin();
  WaitForPrevious();
  const int row_index = static_cast<int>(blockIdx.x);
  if (row_index >= rows.Read()) {
    return;
  }
  const SamplerRow sampler = all.samplers[row_index];
  SampledRow& result = all.results[row_index];
  float* const logits = all.logits.At(row_index, 0);
  const int vocabulary = all.logits.width;
  const Part part = PartOf(team, logits, vocabulary, is_shared);
  const bool is_teller = team.rank() == 0 && threadIdx.x == 0;
  const Rank none = {~uint64_t{0}};

  const Rank raw_best = Best(team, part, none);
  const float log_total = LogTotal(team, part, raw_best.logit());
  Rank ranked = none;
  for (int place = 0; place < min(sampler.top_count, static_cast<int>(kTopLogProbabilitiesMax)) &&
                      place < vocabulary;
       ++place) {
    ranked = Best(team, part, ranked);
    if (is_teller) {
      result.top_ids[place] = ranked.id();
      result.top_log_probabilities[place] = ranked.logit() - log_total;
    }
  }
  LogitAdjustment* const adjustments = all.adjustments + sampler.first_adjustment;
  const uint32_t* const mask =
      sampler.mask_index < 0 ? nullptr : all.masks + sampler.mask_index * all.mask_words;
  const bool is_forced = sampler.forced_id >= 0 && sampler.forced_id < vocabulary;
  int chosen = sampler.forced_id;
  if (!is_forced) {
    Adjust(team, sampler, adjustments, mask, part);
    const Rank best = Best(team, part, none);
    chosen = isfinite(best.logit()) ? best.id() : -1;
    if (chosen >= 0 && sampler.temperature > 0) {
      const int drawn = Drawing(team, part, best.logit(), sampler.temperature).Draw(sampler);
      chosen = drawn >= 0 ? drawn : chosen;
    }
  } else if (!isfinite(raw_best.logit())) {
    chosen = -1;
  }
  team.Sync();  // Others still read this CTA's shared memory.
  if (is_teller) {
    float logit = chosen < 0 ? log_total : logits[chosen];
    for (int index = 0; !is_forced && index < sampler.adjustment_count; ++index) {
      logit = adjustments[index].id == chosen ? adjustments[index].bias : logit;
    }
    result.id = chosen;
    result.log_probability = logit - log_total;
  }
}

}  // namespace

cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream) {
  const DeviceShape device = CurrentDeviceShape();
  const int64_t ctas = device.capability >= 9 ? kTeamCtasMax : 1;
  const int64_t part_bytes = CeilDivide(args.logits.width, ctas) * int64_t{sizeof(float)};
  const bool is_shared = part_bytes + int64_t{sizeof(TeamShared)} <= device.shared_bytes;
  const dim3 grid(static_cast<unsigned int>(args.rows.bound), 1, static_cast<unsigned int>(ctas));
  const SampleRows all = {RowsOf(args.logits),
                          PointerTo<const SamplerRow>(args.samplers),
                          PointerTo<LogitAdjustment>(args.adjustments),
                          PointerTo<const uint32_t>(args.masks),
                          CeilDivide(args.logits.width, int64_t{32}),
                          PointerTo<SampledRow>(args.results)};
  return LaunchEarly(device, SampleKernel, grid, kTeamThreads,
                     is_shared ? static_cast<int>(part_bytes) : 0, stream, LiveCountOf(args.rows),
                     all, is_shared);
}

cudaError_t LoadSample() { return TouchLarge(SampleKernel); }

}  // namespace nibble
