// The operations of step_ops.h on a GPU.

#pragma once

#include "kernels/cuda_context.h"
#include "kernels/step_ops.h"

namespace nibble {

// Checks shapes and hands the work to the launchers. Thread-safe.
class CudaStepOps final : public StepOps {
 public:
  // `context` must outlive the operations.
  explicit CudaStepOps(CudaContext& context) : context_(context) {}

  // Loads every kernel onto the GPU. CudaOps::LoadKernels() goes first and says so if this binary
  // holds none for it.
  absl::Status LoadKernels();

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
  absl::Status AddNorm(Queue& queue, const AddNormArgs& args) override;
  absl::Status RopeStoreKv(Queue& queue, const RopeStoreKvArgs& args) override;
  absl::Status LinearSet(Queue& queue, std::span<const LinearArgs> products) override;

 private:
  template <typename Args>
  absl::Status Launch(Queue& queue, const Args& args,
                      cudaError_t (*launch)(const Args&, cudaStream_t), const char* name);

  CudaContext& context_;
};

}  // namespace nibble
