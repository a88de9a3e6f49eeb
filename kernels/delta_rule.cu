// Linear attention: what keeps a state of its own for each sequence.

#include <cuda_runtime.h>

#include <cmath>

#include "kernels/step_kernels.h"
#include "kernels/step_rows.cuh"

namespace nibble {
namespace {

constexpr int kConvolutionThreads = 128;
constexpr int kDeltaThreads = 256;
constexpr int kDeltaWarps = kDeltaThreads / kWarpThreads;
constexpr int kKeySizeMax = 1024;  // CheckArgs(DeltaRuleArgs)

// Added to the squared length of keys and queries before the root (Qwen3-Next's l2norm).
constexpr float kLengthEpsilon = 1e-6f;

// torch's softplus is the identity above this.
constexpr float kSoftplusLinear = 20;

__device__ __forceinline__ float Softplus(float x) {
  return x > kSoftplusLinear ? x : log1pf(expf(x));
}
__device__ __forceinline__ float Sigmoid(float x) { return 1 / (1 + expf(-x)); }

// The sequences of a step as kernels take them.
struct Sequences {
  LiveCount count;
  LiveCount rows;
  const int32_t* first_rows;   // [bound]
  const int32_t* row_counts;   // [bound]
  const int32_t* state_slots;  // [bound]
  const int32_t* positions;    // [M]
  int64_t slot_count;
};

Sequences SequencesOf(const StepSequences& sequences, const RowCount& rows, int64_t slot_count) {
  return {{PointerTo<const int32_t>(sequences.live), static_cast<int>(sequences.bound)},
          LiveCountOf(rows),
          PointerTo<const int32_t>(sequences.first_rows),
          PointerTo<const int32_t>(sequences.row_counts),
          PointerTo<const int32_t>(sequences.state_slots),
          PointerTo<const int32_t>(sequences.positions),
          slot_count};
}

struct StepSequence {
  int first_row;
  int row_count;  // 0: nothing to do, or rows or a state that there are not.
  int64_t slot;
  bool begins;
};

__device__ __forceinline__ StepSequence SequenceAt(const Sequences& sequences, int index) {
  StepSequence sequence = {};
  if (index >= sequences.count.Read()) {
    return sequence;
  }
  const int64_t first_row = sequences.first_rows[index];
  const int64_t row_count = sequences.row_counts[index];
  sequence.slot = sequences.state_slots[index];
  if (first_row < 0 || row_count <= 0 || first_row + row_count > sequences.rows.Read() ||
      sequence.slot < 0 || sequence.slot >= sequences.slot_count) {
    return sequence;
  }
  sequence.first_row = static_cast<int>(first_row);
  sequence.row_count = static_cast<int>(row_count);
  sequence.begins = sequences.positions[first_row] == 0;
  return sequence;
}

// A thread is a channel of a sequence. What came before a token is read again for each, from the
// cache; the state moves up at the end.
//
//   grid   sequences x ceil(channels / 128) CTAs
//   block  128 threads
//   bytes  4 read + 4 written a number, and the state; bound by latency
__global__ void __launch_bounds__(kConvolutionThreads)
    ShortConvolutionKernel(Sequences sequences, int taps,
                           WeightElements weights,  // [channels, taps]
                           Rows source,             // [M, channels]
                           Rows target,             // [M, channels]
                           float* state) {          // [slots, taps - 1, channels]
  const int64_t channel = static_cast<int64_t>(blockIdx.y) * kConvolutionThreads + threadIdx.x;
  const int64_t channels = source.width;
  const StepSequence sequence = SequenceAt(sequences, static_cast<int>(blockIdx.x));
  if (sequence.row_count == 0 || channel >= channels) {
    return;
  }
  const int kept = taps - 1;
  float* const before = state + sequence.slot * kept * channels + channel;
  // The number at token t of the step; of the state where t is below 0.
  const auto input = [&](int t) {
    if (t >= 0) {
      return source.At(sequence.first_row + t)[channel];
    }
    return sequence.begins ? 0.0f : before[(kept + t) * channels];
  };
  for (int t = 0; t < sequence.row_count; ++t) {
    float sum = 0;
    for (int j = 0; j < taps; ++j) {
      sum = __fmaf_rn(weights.At(channel * taps + j), input(t - kept + j), sum);
    }
    target.At(sequence.first_row + t)[channel] = sum * Sigmoid(sum);
  }
  // Upwards: a place is read, if at all, before it is written.
  for (int i = 0; i < kept; ++i) {
    before[i * channels] = input(sequence.row_count - kept + i);
  }
}

struct DeltaForm {
  int key_heads;
  int value_heads;
  int key_size;
  int value_size;
  Rows queries;          // [M, key_heads, key_size]
  Rows keys;             // [M, key_heads, key_size]
  Rows values;           // [M, value_heads, value_size]
  Rows decay_gate;       // [M, value_heads]
  Rows write_gate;       // [M, value_heads]
  WeightElements decay;  // [value_heads]
  WeightElements bias;   // [value_heads]
  Rows target;           // [M, value_heads, value_size]
  float* state;          // [slots, value_heads, key_size, value_size]
};

struct DeltaShared {
  float key[kKeySizeMax];
  float query[kKeySizeMax];
  float read[kDeltaWarps][kWarpThreads];  // Partial sums of k S,
  float out[kDeltaWarps][kWarpThreads];   // and of q S.
};

// target = source / length * scale, by one warp; zeros up to `padded`.
__device__ __forceinline__ void Normalize(const float* source, int size, int padded, float scale,
                                          float* target) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  float squares = 0;
  for (int i = lane; i < size; i += kWarpThreads) {
    squares = __fmaf_rn(source[i], source[i], squares);
  }
  const float factor = 1 / sqrtf(WarpSum(squares) + kLengthEpsilon);
  for (int i = lane; i < padded; i += kWarpThreads) {
    target[i] = i < size ? source[i] * factor * scale : 0.0f;
  }
}

// The warps' partial sums of a column, in order.
__device__ __forceinline__ float AddWarps(const float (&sums)[kDeltaWarps][kWarpThreads],
                                          int lane) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kDeltaWarps; ++warp) {
    sum += sums[warp][lane];
  }
  return sum;
}

// A CTA keeps 32 columns of a value head's state in registers while it follows the tokens of a
// sequence: a lane is a column, a warp has every eighth row. Columns need nothing of each other.
//
//   grid   sequences x value_heads x ceil(value_size / 32) CTAs
//   block  256 threads
//   bytes  8 read and written a number of the state, once a step; bound by latency a token (two
//          sums over warps), or by memory bandwidth with one token a sequence
template <int kLaneKeys>
__global__ void __launch_bounds__(kDeltaThreads)
    DeltaRuleKernel(Sequences sequences, const __grid_constant__ DeltaForm form) {
  __shared__ DeltaShared shared;
  const StepSequence sequence = SequenceAt(sequences, static_cast<int>(blockIdx.x));
  if (sequence.row_count == 0) {
    return;
  }
  const int head = static_cast<int>(blockIdx.y);
  const int key_head = head / (form.value_heads / form.key_heads);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int column = static_cast<int>(blockIdx.z) * kWarpThreads + lane;
  const bool holds = column < form.value_size;
  const int64_t state_size = static_cast<int64_t>(form.key_size) * form.value_size;
  float* const stored =
      form.state + (sequence.slot * form.value_heads + head) * state_size + column;

  float state[kLaneKeys];  // Rows warp, warp + 8, ...
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const int64_t k = i * kDeltaWarps + warp;
    const bool read = holds && k < form.key_size && !sequence.begins;
    state[i] = read ? stored[k * form.value_size] : 0.0f;
  }
  const float rate = expf(form.decay.At(head));
  const float bias = form.bias.At(head);
  const float query_scale = 1 / sqrtf(static_cast<float>(form.key_size));
  constexpr int kPadded = kLaneKeys * kDeltaWarps;
  for (int t = 0; t < sequence.row_count; ++t) {
    const int row = sequence.first_row + t;
    if (warp == 0) {
      Normalize(form.keys.At(row, key_head), form.key_size, kPadded, 1, shared.key);
    } else if (warp == 1) {
      Normalize(form.queries.At(row, key_head), form.key_size, kPadded, query_scale, shared.query);
    }
    const float factor = expf(-rate * Softplus(form.decay_gate.At(row)[head] + bias));
    const float beta = Sigmoid(form.write_gate.At(row)[head]);
    const float value = holds ? form.values.At(row, head)[column] : 0.0f;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      state[i] *= factor;
      sum = __fmaf_rn(state[i], shared.key[i * kDeltaWarps + warp], sum);
    }
    shared.read[warp][lane] = sum;
    __syncthreads();
    const float delta = (value - AddWarps(shared.read, lane)) * beta;
    sum = 0;
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      state[i] = __fmaf_rn(delta, shared.key[i * kDeltaWarps + warp], state[i]);
      sum = __fmaf_rn(state[i], shared.query[i * kDeltaWarps + warp], sum);
    }
    shared.out[warp][lane] = sum;
    // Also: the key and query have been read, and the next token's may be written.
    __syncthreads();
    if (warp == 0 && holds) {
      form.target.At(row, head)[column] = AddWarps(shared.out, lane);
    }
  }
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const int64_t k = i * kDeltaWarps + warp;
    if (holds && k < form.key_size) {
      stored[k * form.value_size] = state[i];
    }
  }
}

template <int kLaneKeys>
void Launch(const DeltaRuleArgs& args, cudaStream_t stream) {
  DeltaForm form = {};
  form.key_heads = static_cast<int>(args.key_heads);
  form.value_heads = static_cast<int>(args.value_heads);
  form.key_size = static_cast<int>(args.key_size);
  form.value_size = static_cast<int>(args.value_size);
  form.queries = RowsOf(args.queries);
  form.keys = RowsOf(args.keys);
  form.values = RowsOf(args.values);
  form.decay_gate = RowsOf(args.decay_gate);
  form.write_gate = RowsOf(args.write_gate);
  form.decay = WeightElementsOf(args.decay);
  form.bias = WeightElementsOf(args.bias);
  form.target = RowsOf(args.target);
  form.state = PointerTo<float>(args.state);
  const dim3 grid(static_cast<unsigned int>(args.sequences.bound),
                  static_cast<unsigned int>(args.value_heads),
                  CtasFor(args.value_size, kWarpThreads));
  DeltaRuleKernel<kLaneKeys><<<grid, kDeltaThreads, 0, stream>>>(
      SequencesOf(args.sequences, args.rows, args.slot_count), form);
}

}  // namespace

cudaError_t LaunchShortConvolution(const ShortConvolutionArgs& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned int>(args.sequences.bound),
                  CtasFor(args.source.width, kConvolutionThreads));
  ShortConvolutionKernel<<<grid, kConvolutionThreads, 0, stream>>>(
      SequencesOf(args.sequences, args.rows, args.slot_count), static_cast<int>(args.taps),
      WeightElementsOf(args.weight), RowsOf(args.source), RowsOf(args.target),
      PointerTo<float>(args.state));
  return cudaGetLastError();
}

cudaError_t LaunchDeltaRule(const DeltaRuleArgs& args, cudaStream_t stream) {
  if (args.key_size <= 8 * kDeltaWarps) {
    Launch<8>(args, stream);
  } else if (args.key_size <= 16 * kDeltaWarps) {
    Launch<16>(args, stream);
  } else if (args.key_size <= 32 * kDeltaWarps) {
    Launch<32>(args, stream);
  } else {
    Launch<kKeySizeMax / kDeltaWarps>(args, stream);
  }
  return cudaGetLastError();
}

cudaError_t LoadDeltaRule() {
  return Touch(ShortConvolutionKernel, DeltaRuleKernel<8>, DeltaRuleKernel<16>, DeltaRuleKernel<32>,
               DeltaRuleKernel<kKeySizeMax / kDeltaWarps>);
}

}  // namespace nibble
