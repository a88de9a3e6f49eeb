#include "kernels/cuda_step_ops.h"

#include "kernels/cuda_queue.h"
#include "kernels/step_kernels.h"

namespace nibble {

template <typename Args>
absl::Status CudaStepOps::Launch(Queue& queue, const Args& args,
                                 cudaError_t (*launch)(const Args&, cudaStream_t),
                                 const char* name) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  return context_.Check(launch(args, static_cast<CudaQueue&>(queue).stream()), name);
}

absl::Status CudaStepOps::LoadKernels() {
  for (const auto load : {LoadStepElementwise, LoadEmbedNorm, LoadWideNorm, LoadLinear,
                          LoadLinearMma, LoadStoreKv, LoadPagedAttention, LoadExperts,
                          LoadExpertLinear, LoadExpertLinearMma, LoadDeltaRule, LoadSample}) {
    if (absl::Status status = context_.Check(load(), "cudaFuncGetAttributes"); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CudaStepOps::Embed(Queue& queue, const EmbedArgs& args) {
  return Launch(queue, args, LaunchEmbed, "LaunchEmbed");
}

absl::Status CudaStepOps::Norm(Queue& queue, const NormArgs& args) {
  return Launch(queue, args, LaunchNorm, "LaunchNorm");
}

absl::Status CudaStepOps::Linear(Queue& queue, const LinearArgs& args) {
  return Launch(queue, args, LaunchLinear, "LaunchLinear");
}

absl::Status CudaStepOps::Rope(Queue& queue, const RopeArgs& args) {
  return Launch(queue, args, LaunchRope, "LaunchRope");
}

absl::Status CudaStepOps::StoreKv(Queue& queue, const StoreKvArgs& args) {
  return Launch(queue, args, LaunchStoreKv, "LaunchStoreKv");
}

absl::Status CudaStepOps::Attention(Queue& queue, const AttentionArgs& args) {
  return Launch(queue, args, LaunchAttention, "LaunchAttention");
}

absl::Status CudaStepOps::Gate(Queue& queue, const GateArgs& args) {
  return Launch(queue, args, LaunchGate, "LaunchGate");
}

absl::Status CudaStepOps::Add(Queue& queue, const AddArgs& args) {
  return Launch(queue, args, LaunchAdd, "LaunchAdd");
}

absl::Status CudaStepOps::GatherRows(Queue& queue, const GatherRowsArgs& args) {
  return Launch(queue, args, LaunchGatherRows, "LaunchGatherRows");
}

absl::Status CudaStepOps::ScaleLogits(Queue& queue, const ScaleLogitsArgs& args) {
  return Launch(queue, args, LaunchScaleLogits, "LaunchScaleLogits");
}

absl::Status CudaStepOps::Route(Queue& queue, const RouteArgs& args) {
  return Launch(queue, args, LaunchRoute, "LaunchRoute");
}

absl::Status CudaStepOps::ExpertLinear(Queue& queue, const ExpertLinearArgs& args) {
  return Launch(queue, args, LaunchExpertLinear, "LaunchExpertLinear");
}

absl::Status CudaStepOps::CombineExperts(Queue& queue, const CombineExpertsArgs& args) {
  return Launch(queue, args, LaunchCombineExperts, "LaunchCombineExperts");
}

absl::Status CudaStepOps::ShortConvolution(Queue& queue, const ShortConvolutionArgs& args) {
  return Launch(queue, args, LaunchShortConvolution, "LaunchShortConvolution");
}

absl::Status CudaStepOps::DeltaRule(Queue& queue, const DeltaRuleArgs& args) {
  return Launch(queue, args, LaunchDeltaRule, "LaunchDeltaRule");
}

absl::Status CudaStepOps::Sample(Queue& queue, const SampleArgs& args) {
  return Launch(queue, args, LaunchSample, "LaunchSample");
}

absl::Status CudaStepOps::AddNorm(Queue& queue, const AddNormArgs& args) {
  return Launch(queue, args, LaunchAddNorm, "LaunchAddNorm");
}

absl::Status CudaStepOps::RopeStoreKv(Queue& queue, const RopeStoreKvArgs& args) {
  return Launch(queue, args, LaunchRopeStoreKv, "LaunchRopeStoreKv");
}

absl::Status CudaStepOps::LinearSet(Queue& queue, std::span<const LinearArgs> products) {
  absl::Status status = context_.MakeCurrent();
  for (const LinearArgs& args : products) {
    status.Update(CheckArgs(args));
  }
  if (!status.ok() || products.empty()) {
    return status;
  }
  return context_.Check(LaunchLinearSet(products, static_cast<CudaQueue&>(queue).stream()),
                        "LaunchLinearSet");
}

}  // namespace nibble
