// Linear attention on the host: what keeps a state of its own for each sequence. Tokens of a
// sequence follow one another; channels and heads are independent.

#include <array>
#include <cmath>
#include <vector>

#include "kernels/host_step_ops.h"
#include "kernels/linear.h"
#include "kernels/matrix_rows.h"

namespace nibble {
namespace {

constexpr int64_t kChannelGrain = 256;

// Added to the squared length of keys and queries before the root (Qwen3-Next's l2norm).
constexpr float kLengthEpsilon = 1e-6f;

// torch's softplus is the identity above this.
constexpr float kSoftplusLinear = 20;

float Softplus(float x) { return x > kSoftplusLinear ? x : std::log1p(std::exp(x)); }
float Sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// One sequence of a step.
struct StepSequence {
  int64_t first_row;
  int64_t row_count;
  int64_t slot;
  bool begins;
};

StepSequence SequenceAt(const StepSequences& sequences, int64_t index, const RowCount& rows,
                        int64_t slot_count) {
  const int64_t first_row = HostPointer<const int32_t>(sequences.first_rows)[index];
  const StepSequence sequence = {first_row, HostPointer<const int32_t>(sequences.row_counts)[index],
                                 HostPointer<const int32_t>(sequences.state_slots)[index],
                                 HostPointer<const int32_t>(sequences.positions)[first_row] == 0};
  Check(sequence.first_row >= 0 && sequence.row_count >= 0 &&
            sequence.first_row + sequence.row_count <= LiveRows(rows) && sequence.slot >= 0 &&
            sequence.slot < slot_count,
        "rows and state of a sequence");
  return sequence;
}

// One channel of a sequence's convolution.
void ConvolveChannel(const ShortConvolutionArgs& args, const StepSequence& sequence,
                     int64_t channel) {
  const int64_t kept = args.taps - 1;
  const int64_t channels = args.source.width;
  float* const state = HostPointer<float>(args.state) + sequence.slot * kept * channels + channel;
  std::array<float, 16> window;  // The last taps - 1 inputs, then the newest.
  for (int64_t i = 0; i < kept; ++i) {
    window[static_cast<size_t>(i)] = sequence.begins ? 0 : state[i * channels];
  }
  for (int64_t t = 0; t < sequence.row_count; ++t) {
    const int64_t row = sequence.first_row + t;
    window[static_cast<size_t>(kept)] = RowOf(args.source, row)[channel];
    float sum = 0;
    for (int64_t j = 0; j < args.taps; ++j) {
      sum += ReadElement(args.weight, channel * args.taps + j) * window[static_cast<size_t>(j)];
    }
    RowOf(args.target, row)[channel] = sum * Sigmoid(sum);
    std::copy(window.begin() + 1, window.begin() + args.taps, window.begin());
  }
  for (int64_t i = 0; i < kept; ++i) {
    state[i * channels] = window[static_cast<size_t>(i)];
  }
}

// One value head of a sequence.
class DeltaHead {
 public:
  DeltaHead(const DeltaRuleArgs& args, const StepSequence& sequence, int64_t head)
      : args_(args),
        sequence_(sequence),
        head_(head),
        key_head_(head / (args.value_heads / args.key_heads)),
        rate_(std::exp(ReadElement(args.decay, head))),
        bias_(ReadElement(args.bias, head)),
        state_(HostPointer<float>(args.state) +
               (sequence.slot * args.value_heads + head) * args.key_size * args.value_size),
        key_(static_cast<size_t>(args.key_size)),
        query_(static_cast<size_t>(args.key_size)),
        delta_(static_cast<size_t>(args.value_size)) {}

  void Run() {
    if (sequence_.begins) {
      std::fill_n(state_, args_.key_size * args_.value_size, 0.0f);
    }
    const float query_scale = 1 / std::sqrt(static_cast<float>(args_.key_size));
    for (int64_t t = 0; t < sequence_.row_count; ++t) {
      const int64_t row = sequence_.first_row + t;
      Normalize(RowOf(args_.keys, row, key_head_), 1, key_);
      Normalize(RowOf(args_.queries, row, key_head_), query_scale, query_);
      Decay(row);
      Write(row);
      Read(RowOf(args_.target, row, head_));
    }
  }

 private:
  void Normalize(const float* source, float scale, std::vector<float>& target) const {
    const float length2 = DotProduct(source, source, args_.key_size);
    const float factor = 1 / std::sqrt(length2 + kLengthEpsilon);
    for (size_t i = 0; i < target.size(); ++i) {
      target[i] = source[i] * factor * scale;
    }
  }

  void Decay(int64_t row) {
    const float gate = -rate_ * Softplus(RowOf(args_.decay_gate, row)[head_] + bias_);
    const float factor = std::exp(gate);
    for (int64_t i = 0; i < args_.key_size * args_.value_size; ++i) {
      state_[i] *= factor;
    }
  }

  void Write(int64_t row) {
    std::fill(delta_.begin(), delta_.end(), 0.0f);
    for (int64_t k = 0; k < args_.key_size; ++k) {
      AddScaled(state_ + k * args_.value_size, key_[static_cast<size_t>(k)], delta_.data());
    }
    const float* const value = RowOf(args_.values, row, head_);
    const float beta = Sigmoid(RowOf(args_.write_gate, row)[head_]);
    for (size_t i = 0; i < delta_.size(); ++i) {
      delta_[i] = (value[i] - delta_[i]) * beta;
    }
    for (int64_t k = 0; k < args_.key_size; ++k) {
      AddScaled(delta_.data(), key_[static_cast<size_t>(k)], state_ + k * args_.value_size);
    }
  }

  void Read(float* target) const {
    std::fill_n(target, args_.value_size, 0.0f);
    for (int64_t k = 0; k < args_.key_size; ++k) {
      AddScaled(state_ + k * args_.value_size, query_[static_cast<size_t>(k)], target);
    }
  }

  void AddScaled(const float* source, float factor, float* target) const {
    for (int64_t i = 0; i < args_.value_size; ++i) {
      target[i] += source[i] * factor;
    }
  }

  const DeltaRuleArgs& args_;
  const StepSequence& sequence_;
  const int64_t head_;
  const int64_t key_head_;
  const float rate_;
  const float bias_;
  float* const state_;  // [key_size, value_size]
  std::vector<float> key_;
  std::vector<float> query_;
  std::vector<float> delta_;  // [value_size]
};

}  // namespace

absl::Status HostStepOps::ShortConvolution(Queue&, const ShortConvolutionArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t count = LiveRows(args.sequences.bound, args.sequences.live);
  const int64_t channels = args.source.width;
  pool_.ParallelFor(count * channels, kChannelGrain, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      ConvolveChannel(args, SequenceAt(args.sequences, item / channels, args.rows, args.slot_count),
                      item % channels);
    }
  });
  return absl::OkStatus();
}

absl::Status HostStepOps::DeltaRule(Queue&, const DeltaRuleArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const int64_t count = LiveRows(args.sequences.bound, args.sequences.live);
  pool_.ParallelFor(count * args.value_heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t item = first; item < last; ++item) {
      const StepSequence sequence =
          SequenceAt(args.sequences, item / args.value_heads, args.rows, args.slot_count);
      DeltaHead(args, sequence, item % args.value_heads).Run();
    }
  });
  return absl::OkStatus();
}

}  // namespace nibble
