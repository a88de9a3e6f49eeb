#include "kernels/cuda_ops.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "kernels/block_kernels.h"
#include "kernels/cuda_queue.h"

namespace nibble {
namespace {

template <typename T>
T* Pointer(DeviceSpan span) {
  return std::bit_cast<T*>(span.address());
}

cudaStream_t StreamOf(Queue& queue) { return static_cast<CudaQueue&>(queue).stream(); }

}  // namespace

absl::Status CudaOps::LoadKernels() {
  for (const auto load :
       {LoadBlockQuantize, LoadScaleSearch, LoadBlockDequantize, LoadFindNonFinite}) {
    const cudaError_t error = load();
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
      cudaGetLastError();
      return absl::UnimplementedError(
          absl::StrCat(context_.name(),
                       ": this build has no kernels for this GPU's architecture; "
                       "set NIBBLE_CUDA_ARCHITECTURES when building"));
    }
    if (absl::Status status = context_.Check(error, "cudaFuncGetAttributes"); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status CudaOps::Quantize(Queue& queue, const QuantizeArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  BlockQuantizeLaunch launch;
  launch.codebook = args.codebook;
  launch.source_type = args.source_type;
  launch.block_size = static_cast<int>(args.block_size);
  launch.element_count = args.element_count;
  launch.source = Pointer<const void>(args.source);
  launch.codes = Pointer<uint8_t>(args.codes);
  launch.scales = Pointer<float>(args.scales);
  launch.first_non_finite = Pointer<uint64_t>(args.first_non_finite);
  status = context_.Check(LaunchBlockQuantize(launch, StreamOf(queue)), "LaunchBlockQuantize");
  if (!status.ok() || args.scale_search == ScaleSearch::kNone) {
    return status;
  }
  return context_.Check(LaunchScaleSearch(launch, args.scale_search, StreamOf(queue)),
                        "LaunchScaleSearch");
}

absl::Status CudaOps::Dequantize(Queue& queue, const DequantizeArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  BlockDequantizeLaunch launch;
  launch.codebook = args.codebook;
  launch.target_type = args.target_type;
  launch.block_size = static_cast<int>(args.block_size);
  launch.element_count = args.element_count;
  launch.codes = Pointer<const uint8_t>(args.codes);
  launch.scales = Pointer<const float>(args.scales);
  launch.target = Pointer<void>(args.target);
  return context_.Check(LaunchBlockDequantize(launch, StreamOf(queue)), "LaunchBlockDequantize");
}

absl::Status CudaOps::FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  FindNonFiniteLaunch launch;
  launch.source_type = args.source_type;
  launch.element_count = args.element_count;
  launch.source = Pointer<const void>(args.source);
  launch.first_non_finite = Pointer<uint64_t>(args.first_non_finite);
  return context_.Check(LaunchFindNonFinite(launch, StreamOf(queue)), "LaunchFindNonFinite");
}

}  // namespace nibble
