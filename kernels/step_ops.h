// The operations of a forward pass. A step is a list of calls whose arguments never change: what
// differs from step to step (ids, positions, lengths, places in the KV cache) lies in device
// memory, so that a step can be recorded once and replayed. Nothing here waits for the host or
// allocates memory.
//
// Activations are fp32. Sums run in an order that depends on the shapes and, unless ProductOptions
// forbid it, on the bound of rows.

#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/device.h"
#include "kernels/matrix.h"
#include "kernels/sample_ops.h"

namespace nibble {

// target[m] = table[ids[m]] * scale. An id outside the table is a caller's mistake that would read
// other memory: such a row becomes NaN.
struct EmbedArgs {
  RowCount rows;
  Matrix table;    // [V, K]
  DeviceSpan ids;  // int32 [M]
  float scale = 1;
  Activations target;  // [M, K]
};

enum class NormKind {
  kRms,             // x / sqrt(mean(x^2) + epsilon) * w
  kZeroCentredRms,  // ... * (1 + w)
  kLayer,           // (x - mean) / sqrt(var + epsilon) * w
};

// Normalizes each group of each row; the weight has one group for all or one for each.
struct NormArgs {
  RowCount rows;
  NormKind kind = NormKind::kRms;
  float epsilon = 0;
  WeightVector weight;  // [width] or [groups, width]
  Activations source;
  Activations target;  // May be the source.
};

// target[m, n] = sum over k of source[m, k] * weight[n, k] + bias[n].
struct LinearArgs {
  RowCount rows;
  Matrix weight;       // [N, K]
  WeightVector bias;   // [N], or none
  Activations source;  // [M, K]
  Activations target;  // [M, N]; no overlap with the source
  ProductOptions products;
};

// Turns each pair of the first 2 * frequency_count numbers of each group by position * frequency:
// (i, i + frequency_count), or (2 i, 2 i + 1) if interleaved. The rest of a group stays.
struct RopeArgs {
  RowCount rows;
  DeviceSpan positions;    // int32 [M]
  DeviceSpan frequencies;  // fp32 [frequency_count], radians a position
  int64_t frequency_count = 0;
  bool interleaved = false;
  float magnitude = 1;  // YaRN's attention scaling: cos and sin are multiplied by it.
  Activations heads;    // In place.

  friend bool operator==(const RopeArgs&, const RopeArgs&) = default;
};

enum class KvType { kF16, kBf16, kF32 };
constexpr int64_t BytesPerElement(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// The cache of one layer: keys and values of every slot, [slots, G, D] each. A page is a run of
// `page_tokens` slots.
struct KvCache {
  KvType type = KvType::kF16;  // F16 saturates at its largest finite number.
  int64_t slot_count = 0;
  int64_t heads = 0;      // G
  int64_t head_size = 0;  // D
  DeviceSpan keys;
  DeviceSpan values;
};

struct StoreKvArgs {
  RowCount rows;
  Activations keys;    // [M, G, D]
  Activations values;  // [M, G, D]
  DeviceSpan slots;    // int32 [M]: where each row's go; below 0: nowhere
  KvCache cache;
};

// target[m, h] = softmax over t of (source[m, h] . key[t] * scale) . value[t], where t runs over
// the row's sequence up to and including the row's own position, at most `window` tokens of it.
struct AttentionArgs {
  RowCount rows;
  Activations queries;       // [M, H, D]
  KvCache cache;             // H is a multiple of its heads: query head h reads h / (H / G)
  int64_t page_tokens = 0;   // A power of two.
  int64_t pages_max = 0;     // Of a sequence.
  DeviceSpan page_tables;    // int32 [sequences, pages_max]
  DeviceSpan row_sequences;  // int32 [M]: the row of page_tables
  DeviceSpan positions;      // int32 [M]
  float scale = 1;
  float softcap = 0;             // Scores become softcap * tanh(score / softcap); 0: they do not.
  int64_t window = 0;            // 0: everything.
  Activations target;            // [M, H, D]
  bool batch_invariant = false;  // The order of sums does not depend on the bound of rows.
};

enum class Activation { kSilu, kGeluTanh, kSigmoid };

// target = activation(gate) * value. A gate of width 1 serves all of its row.
struct GateArgs {
  RowCount rows;
  Activation activation = Activation::kSilu;
  Activations gate;
  Activations value;
  Activations target;  // May be the gate or the value.
};

// target += source.
struct AddArgs {
  RowCount rows;
  Activations source;
  Activations target;
};

// target[m] = source[row_indices[m]].
struct GatherRowsArgs {
  RowCount rows;           // Of the target.
  DeviceSpan row_indices;  // int32 [M]
  Activations source;
  Activations target;
};

// In place: x * scale, then softcap * tanh(x / softcap) unless softcap is 0.
struct ScaleLogitsArgs {
  RowCount rows;
  float scale = 1;
  float softcap = 0;
  Activations logits;
};

// Takes the `top_k` largest of softmax(logits[m]); of equal ones the lower expert first.
struct RouteArgs {
  RowCount rows;
  Activations logits;  // [M, E]
  int64_t top_k = 0;
  bool renormalize = false;  // The weights of a row are divided by their sum.
  DeviceSpan experts;        // int32 [M, top_k], written
  DeviceSpan weights;        // fp32 [M, top_k], written
};

// target[m, i] = expert experts[m, i]'s matrix times source[m, i], or times source[m] if the source
// has one group.
struct ExpertLinearArgs {
  RowCount rows;
  MatrixShape shape;         // [N, K] of each expert
  int64_t expert_count = 0;  // E
  DeviceSpan table;          // MatrixPlanes [E]
  int64_t top_k = 0;
  DeviceSpan experts;  // int32 [M, top_k]
  Activations source;  // [M, K] or [M, top_k, K]
  Activations target;  // [M, top_k, N]
  ProductOptions products;
};

// target[m] = sum over i of weights[m, i] * source[m, i].
struct CombineExpertsArgs {
  RowCount rows;
  int64_t top_k = 0;
  DeviceSpan weights;  // fp32 [M, top_k]
  Activations source;  // [M, top_k, K]
  Activations target;  // [M, K]
};

// The sequences of a step, for what keeps a state of its own for each: rows first_row to first_row
// + row_count - 1 are consecutive tokens of it.
struct StepSequences {
  int64_t bound = 0;
  DeviceSpan live;         // int32 [1]
  DeviceSpan first_rows;   // int32 [bound]
  DeviceSpan row_counts;   // int32 [bound]
  DeviceSpan state_slots;  // int32 [bound]
  DeviceSpan positions;    // int32 [M], of the rows. A sequence whose first row is at 0 begins
                           // with a state of zeros.
};

// A depthwise causal convolution over each sequence, then SiLU: target[t, c] = silu(sum over j of
// weight[c, j] * source[t - taps + 1 + j, c]). What came before the step is in the state.
struct ShortConvolutionArgs {
  RowCount rows;
  StepSequences sequences;
  int64_t taps = 0;
  WeightVector weight;  // [channels, taps]
  Activations source;   // [M, channels]
  Activations target;   // [M, channels]; not the source
  int64_t slot_count = 0;
  DeviceSpan state;  // fp32 [slot_count, taps - 1, channels], read and written
};

// The gated delta rule. For each value head, with k and q of key head h / (value_heads /
// key_heads), both divided by their length and q by sqrt(key_size) too:
//   S *= exp(-exp(decay) softplus(a + bias));  S += k (sigmoid(b) (v - k S))';  target = q S.
struct DeltaRuleArgs {
  RowCount rows;
  StepSequences sequences;
  int64_t key_heads = 0;
  int64_t value_heads = 0;  // A multiple of key_heads.
  int64_t key_size = 0;
  int64_t value_size = 0;
  Activations queries;     // [M, key_heads, key_size]
  Activations keys;        // [M, key_heads, key_size]
  Activations values;      // [M, value_heads, value_size]
  Activations decay_gate;  // a [M, value_heads]
  Activations write_gate;  // b [M, value_heads]
  WeightVector decay;      // A_log [value_heads]
  WeightVector bias;       // dt_bias [value_heads]
  Activations target;      // [M, value_heads, value_size]
  int64_t slot_count = 0;
  DeviceSpan state;  // fp32 [slot_count, value_heads, key_size, value_size], read and written
};

// Operations that often follow each other, in this order.
struct AddNormArgs {
  AddArgs add;
  NormArgs norm;
};
struct RopeStoreKvArgs {
  RopeArgs queries;
  RopeArgs keys;
  StoreKvArgs store;
};

// Work goes to `queue`, which must be of the same device. Thread-safe (a queue is not).
//
// Errors: INVALID_ARGUMENT if a span does not hold its shape (a caller's mistake, but one that
//   would corrupt memory); INTERNAL if the work cannot be queued; UNIMPLEMENTED on a device that
//   has no kernels for it.
class StepOps {
 public:
  virtual ~StepOps() = default;

  virtual absl::Status Embed(Queue& queue, const EmbedArgs& args) = 0;
  virtual absl::Status Norm(Queue& queue, const NormArgs& args) = 0;
  virtual absl::Status Linear(Queue& queue, const LinearArgs& args) = 0;
  virtual absl::Status Rope(Queue& queue, const RopeArgs& args) = 0;
  virtual absl::Status StoreKv(Queue& queue, const StoreKvArgs& args) = 0;
  virtual absl::Status Attention(Queue& queue, const AttentionArgs& args) = 0;
  virtual absl::Status Gate(Queue& queue, const GateArgs& args) = 0;
  virtual absl::Status Add(Queue& queue, const AddArgs& args) = 0;
  virtual absl::Status GatherRows(Queue& queue, const GatherRowsArgs& args) = 0;
  virtual absl::Status ScaleLogits(Queue& queue, const ScaleLogitsArgs& args) = 0;
  virtual absl::Status Route(Queue& queue, const RouteArgs& args) = 0;
  virtual absl::Status ExpertLinear(Queue& queue, const ExpertLinearArgs& args) = 0;
  virtual absl::Status CombineExperts(Queue& queue, const CombineExpertsArgs& args) = 0;
  virtual absl::Status ShortConvolution(Queue& queue, const ShortConvolutionArgs& args) = 0;
  virtual absl::Status DeltaRule(Queue& queue, const DeltaRuleArgs& args) = 0;
  virtual absl::Status Sample(Queue& queue, const SampleArgs& args) = 0;

  // What the operations do one after the other, which is also how a device does it that has no
  // faster way. Their sums may run in another order.
  virtual absl::Status AddNorm(Queue& queue, const AddNormArgs& args);
  virtual absl::Status RopeStoreKv(Queue& queue, const RopeStoreKvArgs& args);
  // Requires: none reads or writes what another writes.
  virtual absl::Status LinearSet(Queue& queue, std::span<const LinearArgs> products);
};

// The shape checks that every device shares.
absl::Status CheckArgs(const EmbedArgs& args);
absl::Status CheckArgs(const NormArgs& args);
absl::Status CheckArgs(const LinearArgs& args);
absl::Status CheckArgs(const RopeArgs& args);
absl::Status CheckArgs(const StoreKvArgs& args);
absl::Status CheckArgs(const AttentionArgs& args);
absl::Status CheckArgs(const GateArgs& args);
absl::Status CheckArgs(const AddArgs& args);
absl::Status CheckArgs(const GatherRowsArgs& args);
absl::Status CheckArgs(const ScaleLogitsArgs& args);
absl::Status CheckArgs(const RouteArgs& args);
absl::Status CheckArgs(const ExpertLinearArgs& args);
absl::Status CheckArgs(const CombineExpertsArgs& args);
absl::Status CheckArgs(const ShortConvolutionArgs& args);
absl::Status CheckArgs(const DeltaRuleArgs& args);
absl::Status CheckArgs(const AddNormArgs& args);
absl::Status CheckArgs(const RopeStoreKvArgs& args);

}  // namespace nibble
