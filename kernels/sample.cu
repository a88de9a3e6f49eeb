// Choosing the next token. A CTA has a row and passes over its logits again and again; they stay in
// the second-level cache.

#include <cuda_runtime.h>

#include <climits>
#include <cmath>

#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kThreads = 512;
constexpr float kNothing = -INFINITY;

// The sum of every thread's value, in an order that is always the same. Every thread gets it.
__device__ double Sum(double value) {
  __shared__ double values[kThreads];
  __syncthreads();
  values[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      values[threadIdx.x] += values[threadIdx.x + half];
    }
    __syncthreads();
  }
  return values[0];
}

// A token and its logit; the larger logit first, of equal ones the lower id.
struct Ranked {
  float logit;
  int id;

  __device__ bool Before(const Ranked& other) const {
    return logit > other.logit || (logit == other.logit && id < other.id);
  }
};

// The first of every thread's. Every thread gets it.
__device__ Ranked First(Ranked ranked) {
  __shared__ Ranked values[kThreads];
  __syncthreads();
  values[threadIdx.x] = ranked;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half &&
        values[threadIdx.x + half].Before(values[threadIdx.x])) {
      values[threadIdx.x] = values[threadIdx.x + half];
    }
    __syncthreads();
  }
  return values[0];
}

// What the threads before this one have, added in their order. `total` becomes all of it.
__device__ double SumBefore(double value, double& total) {
  __shared__ double values[kThreads];
  __syncthreads();
  values[threadIdx.x] = value;
  __syncthreads();
  double before = 0;
  for (int thread = 0; thread < static_cast<int>(threadIdx.x); ++thread) {
    before += values[thread];
  }
  total = 0;
  for (int thread = 0; thread < kThreads; ++thread) {
    total += values[thread];
  }
  return before;
}

// Grows with the number; NaN must not come.
__device__ uint32_t OrderOf(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The tokens that may be drawn: those above a logit, and those with that logit up to an id.
struct Cut {
  uint32_t order = 0;  // Of the logit.
  int last_id = INT_MAX;

  __device__ bool Has(uint32_t token_order, int id) const {
    return token_order > order || (token_order == order && id <= last_id);
  }
};

struct Row {
  const float* logits;  // [vocabulary], adjusted; no NaN.
  int vocabulary;
  float largest;
  float temperature;

  __device__ double Share(int id) const {
    return static_cast<double>(expf((logits[id] - largest) / temperature));
  }
  // A thread's ids, where their order counts.
  __device__ int FirstId() const { return static_cast<int>(threadIdx.x) * PerThread(); }
  __device__ int LastId() const { return min(FirstId() + PerThread(), vocabulary); }
  __device__ int PerThread() const { return (vocabulary + kThreads - 1) / kThreads; }
};

// Cuts off all but the first tokens whose weights reach `wanted`: weight 1 each, or their shares.
template <bool kByShare>
__device__ Cut CutAt(const Row& row, const Cut& before, double wanted) {
  const auto weight = [&row](int id) { return kByShare ? row.Share(id) : 1.0; };
  const auto weigh = [&](uint32_t least) {
    double sum = 0;
    for (int id = static_cast<int>(threadIdx.x); id < row.vocabulary; id += kThreads) {
      const uint32_t order = OrderOf(row.logits[id]);
      sum += order >= least && before.Has(order, id) ? weight(id) : 0;
    }
    return Sum(sum);
  };
  // The largest logit at and above which the weights suffice.
  uint32_t low = 0;
  uint32_t high = 0xffffffffu;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2 + 1;
    if (weigh(middle) >= wanted) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  // How many tokens of that logit are needed, and which is the last of them.
  __shared__ int last_id;
  const double above = low == 0xffffffffu ? 0 : weigh(low + 1);
  double count = 0;
  double one = 0;
  for (int id = row.FirstId(); id < row.LastId(); ++id) {
    if (OrderOf(row.logits[id]) == low && before.Has(low, id)) {
      count += 1;
      one = weight(id);
    }
  }
  double all = 0;
  const double earlier = SumBefore(count, all);
  const double weight_of_one = Sum(one) / fmax(Sum(one > 0 ? 1.0 : 0.0), 1.0);
  const double needed =
      weight_of_one > 0 ? fmin(fmax(ceil((wanted - above) / weight_of_one), 1.0), all) : all;
  if (threadIdx.x == 0) {
    last_id = INT_MAX;
  }
  __syncthreads();
  double place = earlier;
  for (int id = row.FirstId(); id < row.LastId(); ++id) {
    if (OrderOf(row.logits[id]) == low && before.Has(low, id)) {
      place += 1;
      if (place == needed) {
        last_id = id;
      }
    }
  }
  __syncthreads();
  return {low, last_id};
}

__device__ int Draw(const Row& row, const SamplerRow& sampler) {
  Cut cut;
  if (sampler.top_k > 0 && sampler.top_k < row.vocabulary) {
    cut = CutAt<false>(row, cut, sampler.top_k);
  }
  const auto share = [&](int id) {
    const uint32_t order = OrderOf(row.logits[id]);
    return cut.Has(order, id) ? row.Share(id) : 0.0;
  };
  if (sampler.top_p < 1) {
    double sum = 0;
    for (int id = static_cast<int>(threadIdx.x); id < row.vocabulary; id += kThreads) {
      sum += share(id);
    }
    cut = CutAt<true>(row, cut, static_cast<double>(sampler.top_p) * Sum(sum));
  }
  // The most likely one's share is 1: it stays whatever min_p is.
  const auto kept = [&](int id) {
    const double value = share(id);
    return value < static_cast<double>(sampler.min_p) && value < 1 ? 0.0 : value;
  };
  double sum = 0;
  for (int id = row.FirstId(); id < row.LastId(); ++id) {
    sum += kept(id);
  }
  double total = 0;
  const double before = SumBefore(sum, total);
  const double target = static_cast<double>(RandomShare(sampler.seed, sampler.position)) * total;
  __shared__ int drawn;
  if (threadIdx.x == 0) {
    drawn = -1;
  }
  __syncthreads();
  int last = -1;
  if (sum > 0 && target >= before && target < before + sum) {
    double left = target - before;
    for (int id = row.FirstId(); id < row.LastId(); ++id) {
      const double value = kept(id);
      if (value > 0) {
        last = id;
        left -= value;
        if (left < 0) {
          break;
        }
      }
    }
  }
  if (last >= 0) {
    drawn = last;  // One thread's: the sums before them are the same for all.
  }
  __syncthreads();
  // Rounding may leave the target beyond all: the most likely one then.
  return drawn;
}

// What must be subtracted from a logit to give its log-probability.
__device__ float LogTotal(const float* logits, int vocabulary, float largest) {
  double sum = 0;
  for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += kThreads) {
    sum += isnan(logits[id]) ? 0 : static_cast<double>(expf(logits[id] - largest));
  }
  return largest + static_cast<float>(log(Sum(sum)));
}

// The first token behind `previous` in the order of rank.
__device__ Ranked Best(const float* logits, int vocabulary, const Ranked& previous) {
  Ranked best = {kNothing, INT_MAX};
  for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += kThreads) {
    const Ranked token = {isnan(logits[id]) ? kNothing : logits[id], id};
    if (previous.Before(token) && token.Before(best)) {
      best = token;
    }
  }
  return First(best);
}

// Adjusts a row in place. What a logit was stays in its adjustment, in place of the bias.
__device__ void Adjust(const SamplerRow& sampler, LogitAdjustment* adjustments,
                       const uint32_t* mask, float* logits, int vocabulary) {
  for (int index = static_cast<int>(threadIdx.x); index < sampler.adjustment_count;
       index += kThreads) {
    LogitAdjustment& adjustment = adjustments[index];
    if (adjustment.id >= 0 && adjustment.id < vocabulary) {
      float& logit = logits[adjustment.id];
      const float before = logit;
      logit =
          (logit > 0 ? logit / adjustment.penalty : logit * adjustment.penalty) + adjustment.bias;
      adjustment.bias = before;
    }
  }
  __syncthreads();
  for (int id = static_cast<int>(threadIdx.x); id < vocabulary; id += kThreads) {
    const bool allowed = mask == nullptr || (mask[id / 32] >> (id % 32) & 1) != 0;
    if (!allowed || isnan(logits[id])) {
      logits[id] = kNothing;
    }
  }
  __syncthreads();
}

//   grid   bound CTAs
//   block  512 threads
//   bytes  4 read a logit and pass: 4 passes for the most likely token, up to 70 to draw one; bound
//          by latency
__global__ void __launch_bounds__(kThreads)
    SampleKernel(LiveCount rows, Rows all_logits,                // [M, vocabulary], overwritten
                 const SamplerRow* __restrict__ samplers,        // [M]
                 LogitAdjustment* __restrict__ all_adjustments,  // [any], overwritten
                 const uint32_t* __restrict__ masks, int64_t mask_words,
                 SampledRow* __restrict__ results) {  // [M]
  const int row_index = static_cast<int>(blockIdx.x);
  if (row_index >= rows.Read()) {
    return;
  }
  const SamplerRow sampler = samplers[row_index];
  SampledRow& result = results[row_index];
  float* const logits = all_logits.At(row_index, 0);
  const int vocabulary = static_cast<int>(all_logits.width);
  const Ranked none = {INFINITY, -1};

  const Ranked raw_best = Best(logits, vocabulary, none);
  const float log_total = LogTotal(logits, vocabulary, raw_best.logit);
  Ranked ranked = none;
  for (int place = 0; place < min(sampler.top_count, static_cast<int>(kTopLogProbabilitiesMax)) &&
                      place < vocabulary;
       ++place) {
    ranked = Best(logits, vocabulary, ranked);
    if (threadIdx.x == 0) {
      result.top_ids[place] = ranked.id;
      result.top_log_probabilities[place] = ranked.logit - log_total;
    }
  }
  LogitAdjustment* const adjustments = all_adjustments + sampler.first_adjustment;
  const uint32_t* const mask =
      sampler.mask_index < 0 ? nullptr : masks + sampler.mask_index * mask_words;
  const bool is_forced = sampler.forced_id >= 0 && sampler.forced_id < vocabulary;
  int chosen = sampler.forced_id;
  if (!is_forced) {
    Adjust(sampler, adjustments, mask, logits, vocabulary);
    const Ranked best = Best(logits, vocabulary, none);
    chosen = isfinite(best.logit) ? best.id : -1;
    if (chosen >= 0 && sampler.temperature > 0) {
      const int drawn = Draw({logits, vocabulary, best.logit, sampler.temperature}, sampler);
      chosen = drawn >= 0 ? drawn : chosen;
    }
  } else if (!isfinite(raw_best.logit)) {
    chosen = -1;
  }
  if (threadIdx.x == 0) {
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
  const int64_t mask_words = CeilDivide(args.logits.width, int64_t{32});
  SampleKernel<<<static_cast<unsigned>(args.rows.bound), kThreads, 0, stream>>>(
      LiveCountOf(args.rows), RowsOf(args.logits), PointerTo<const SamplerRow>(args.samplers),
      PointerTo<LogitAdjustment>(args.adjustments), PointerTo<const uint32_t>(args.masks),
      mask_words, PointerTo<SampledRow>(args.results));
  return cudaGetLastError();
}

cudaError_t LoadSample() { return Touch(SampleKernel); }

}  // namespace nibble
