// The operations of ops.h on a GPU.

#pragma once

#include "kernels/cuda_context.h"
#include "kernels/ops.h"

namespace nibble {

// Checks shapes and hands the work to the launchers. Thread-safe.
class CudaOps final : public Ops {
 public:
  explicit CudaOps(CudaContext& context) : context_(context) {}

  // Loads every kernel onto the GPU.
  //
  // Errors: UNIMPLEMENTED if this binary holds no kernels for it.
  absl::Status LoadKernels();

  absl::Status Quantize(Queue& queue, const QuantizeArgs& args) override;
  absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) override;
  absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) override;
  absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) override;
  absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) override;
  absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) override;
  absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) override;
  absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) override;

 private:
  CudaContext& context_;
};

}  // namespace nibble
