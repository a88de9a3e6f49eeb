// The launchers of the CUDA kernels of a step: what cuda_step_ops.cc calls and the .cu files
// implement. They check nothing but the launch; shapes have been checked by CheckArgs(). They
// neither allocate nor wait, and choose kernels by shapes, alignment and bounds alone, so that a
// launch can be recorded and replayed. Contract: step_ops.h.

#pragma once

#include <cuda_runtime_api.h>

#include <span>

#include "kernels/step_ops.h"

namespace nibble {

// step_elementwise.cu
cudaError_t LaunchRope(const RopeArgs& args, cudaStream_t stream);
cudaError_t LaunchGate(const GateArgs& args, cudaStream_t stream);
cudaError_t LaunchAdd(const AddArgs& args, cudaStream_t stream);
cudaError_t LaunchGatherRows(const GatherRowsArgs& args, cudaStream_t stream);
cudaError_t LaunchScaleLogits(const ScaleLogitsArgs& args, cudaStream_t stream);
cudaError_t LoadStepElementwise();

// embed_norm.cu
cudaError_t LaunchEmbed(const EmbedArgs& args, cudaStream_t stream);
cudaError_t LaunchNorm(const NormArgs& args, cudaStream_t stream);
cudaError_t LoadEmbedNorm();

// wide_norm.cu
cudaError_t LaunchAddNorm(const AddNormArgs& args, cudaStream_t stream);
// With nothing to add if the addend has no span. False, and nothing is launched, if shapes or
// places are odd. Called by LaunchNorm() and LaunchAddNorm() alone.
bool LaunchWideNorm(const Activations& addend, const NormArgs& args, cudaStream_t stream);
cudaError_t LoadWideNorm();

// linear.cu
cudaError_t LaunchLinear(const LinearArgs& args, cudaStream_t stream);
// Requires: there is a product.
cudaError_t LaunchLinearSet(std::span<const LinearArgs> set, cudaStream_t stream);
cudaError_t LoadLinear();

// linear_mma.cu, on tensor cores, one product or several at once. False, and nothing is launched,
// if they do not take these: products in fp32, matrices in F32, 4 bits in blocks of 32 or
// double-quantized, odd shapes, places that are not aligned, several that differ in more than N.
// Called by LaunchLinear() and LaunchLinearSet() alone.
inline constexpr size_t kLinearSetMax = 3;
bool LaunchLinearMma(std::span<const LinearArgs> set, cudaStream_t stream);
cudaError_t LoadLinearMma();

// store_kv.cu
cudaError_t LaunchStoreKv(const StoreKvArgs& args, cudaStream_t stream);
cudaError_t LaunchRopeStoreKv(const RopeStoreKvArgs& args, cudaStream_t stream);
cudaError_t LoadStoreKv();

// paged_attention.cu
cudaError_t LaunchAttention(const AttentionArgs& args, cudaStream_t stream);
cudaError_t LoadPagedAttention();

// experts.cu
cudaError_t LaunchRoute(const RouteArgs& args, cudaStream_t stream);
cudaError_t LaunchCombineExperts(const CombineExpertsArgs& args, cudaStream_t stream);
cudaError_t LoadExperts();

// expert_linear.cu
cudaError_t LaunchExpertLinear(const ExpertLinearArgs& args, cudaStream_t stream);
cudaError_t LoadExpertLinear();

// expert_linear_mma.cu, as linear_mma.cu. Called by LaunchExpertLinear() alone.
bool LaunchExpertLinearMma(const ExpertLinearArgs& args, cudaStream_t stream);
cudaError_t LoadExpertLinearMma();

// delta_rule.cu
cudaError_t LaunchShortConvolution(const ShortConvolutionArgs& args, cudaStream_t stream);
cudaError_t LaunchDeltaRule(const DeltaRuleArgs& args, cudaStream_t stream);
cudaError_t LoadDeltaRule();

// sample.cu
cudaError_t LaunchSample(const SampleArgs& args, cudaStream_t stream);
cudaError_t LoadSample();

}  // namespace nibble
