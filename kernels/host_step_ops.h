// The operations of step_ops.h on the host device, done within the call by all cores.

#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/check.h"
#include "kernels/host_ops.h"
#include "kernels/step_ops.h"
#include "kernels/worker_pool.h"

namespace nibble {

// The rows of a step that are computed.
inline int64_t LiveRows(int64_t bound, DeviceSpan live) {
  const int64_t count = *HostPointer<const int32_t>(live);
  Check(count >= 0 && count <= bound, "a step has at most as many rows as it is sized for");
  return count;
}
inline int64_t LiveRows(const RowCount& rows) { return LiveRows(rows.bound, rows.live); }

// The numbers of a row's group.
inline float* RowOf(const Activations& activations, int64_t row, int64_t group = 0) {
  return HostPointer<float>(activations.span) + row * activations.row_stride +
         group * activations.group_stride;
}

// Checks shapes and computes on the cores of `pool`, the caller's included. Thread-safe.
class HostStepOps final : public StepOps {
 public:
  // `pool` must outlive the operations.
  explicit HostStepOps(WorkerPool& pool) : pool_(pool) {}

  absl::Status Embed(Queue& queue, const EmbedArgs& args) override;
  absl::Status Norm(Queue& queue, const NormArgs& args) override;
  absl::Status Linear(Queue& queue, const LinearArgs& args) override;
  absl::Status Rope(Queue& queue, const RopeArgs& args) override;
  absl::Status StoreKv(Queue& queue, const StoreKvArgs& args) override;
  absl::Status Attention(Queue& queue, const AttentionArgs& args) override;
  absl::Status Gate(Queue& queue, const GateArgs& args) override;
  absl::Status Add(Queue& queue, const AddArgs& args) override;
  absl::Status GatherRows(Queue& queue, const GatherRowsArgs& args) override;
  absl::Status ScaleLogits(Queue& queue, const ScaleLogitsArgs& args) override;
  absl::Status Route(Queue& queue, const RouteArgs& args) override;
  absl::Status ExpertLinear(Queue& queue, const ExpertLinearArgs& args) override;
  absl::Status CombineExperts(Queue& queue, const CombineExpertsArgs& args) override;
  absl::Status ShortConvolution(Queue& queue, const ShortConvolutionArgs& args) override;
  absl::Status DeltaRule(Queue& queue, const DeltaRuleArgs& args) override;
  absl::Status Sample(Queue& queue, const SampleArgs& args) override;

 private:
  WorkerPool& pool_;
};

}  // namespace nibble
