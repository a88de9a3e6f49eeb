#include "kernels/cuda_step_ops.h"

namespace nibble {

absl::Status CudaStepOps::Embed(Queue&, const EmbedArgs&) {
  return absl::UnimplementedError("Embed on CUDA");
}

absl::Status CudaStepOps::Norm(Queue&, const NormArgs&) {
  return absl::UnimplementedError("Norm on CUDA");
}

absl::Status CudaStepOps::Linear(Queue&, const LinearArgs&) {
  return absl::UnimplementedError("Linear on CUDA");
}

absl::Status CudaStepOps::Rope(Queue&, const RopeArgs&) {
  return absl::UnimplementedError("Rope on CUDA");
}

absl::Status CudaStepOps::StoreKv(Queue&, const StoreKvArgs&) {
  return absl::UnimplementedError("StoreKv on CUDA");
}

absl::Status CudaStepOps::Attention(Queue&, const AttentionArgs&) {
  return absl::UnimplementedError("Attention on CUDA");
}

absl::Status CudaStepOps::Gate(Queue&, const GateArgs&) {
  return absl::UnimplementedError("Gate on CUDA");
}

absl::Status CudaStepOps::Add(Queue&, const AddArgs&) {
  return absl::UnimplementedError("Add on CUDA");
}

absl::Status CudaStepOps::GatherRows(Queue&, const GatherRowsArgs&) {
  return absl::UnimplementedError("GatherRows on CUDA");
}

absl::Status CudaStepOps::ScaleLogits(Queue&, const ScaleLogitsArgs&) {
  return absl::UnimplementedError("ScaleLogits on CUDA");
}

absl::Status CudaStepOps::Route(Queue&, const RouteArgs&) {
  return absl::UnimplementedError("Route on CUDA");
}

absl::Status CudaStepOps::ExpertLinear(Queue&, const ExpertLinearArgs&) {
  return absl::UnimplementedError("ExpertLinear on CUDA");
}

absl::Status CudaStepOps::CombineExperts(Queue&, const CombineExpertsArgs&) {
  return absl::UnimplementedError("CombineExperts on CUDA");
}

absl::Status CudaStepOps::ShortConvolution(Queue&, const ShortConvolutionArgs&) {
  return absl::UnimplementedError("ShortConvolution on CUDA");
}

absl::Status CudaStepOps::DeltaRule(Queue&, const DeltaRuleArgs&) {
  return absl::UnimplementedError("DeltaRule on CUDA");
}

absl::Status CudaStepOps::Sample(Queue&, const SampleArgs&) {
  return absl::UnimplementedError("Sample on CUDA");
}

}  // namespace nibble
