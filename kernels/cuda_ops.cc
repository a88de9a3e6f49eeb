#include "kernels/cuda_ops.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "kernels/block_kernels.h"
#include "kernels/cuda_queue.h"
#include "kernels/scale_kernels.h"

namespace nibble {
namespace {

template <typename T>
T* Pointer(DeviceSpan span) {
  return std::bit_cast<T*>(span.address());
}

cudaStream_t StreamOf(Queue& queue) { return static_cast<CudaQueue&>(queue).stream(); }

}  // namespace

absl::Status CudaOps::LoadKernels() {
  for (const auto load : {LoadBlockQuantize, LoadScaleSearch, LoadBlockDequantize,
                          LoadFindNonFinite, LoadExpandF8, LoadMeasureError, LoadScaleQuantize}) {
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

absl::Status CudaOps::ExpandF8(Queue& queue, const ExpandF8Args& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  ExpandF8Launch launch;
  launch.range = args.range;
  launch.source = Pointer<const uint8_t>(args.source);
  launch.scales = Pointer<const void>(args.scales);
  launch.target = Pointer<float>(args.target);
  return context_.Check(LaunchExpandF8(launch, StreamOf(queue)), "LaunchExpandF8");
}

absl::Status CudaOps::MeasureError(Queue& queue, const MeasureErrorArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  MeasureErrorLaunch launch;
  launch.codebook = args.codebook;
  launch.source_type = args.source_type;
  launch.block_size = static_cast<int>(args.block_size);
  launch.element_count = args.element_count;
  launch.source = Pointer<const void>(args.source);
  launch.codes = Pointer<const uint8_t>(args.codes);
  launch.scales = Pointer<const float>(args.scales);
  launch.sums = Pointer<ErrorSums>(args.sums);
  return context_.Check(LaunchMeasureError(launch, StreamOf(queue)), "LaunchMeasureError");
}

absl::Status CudaOps::MeanScale(Queue& queue, const MeanScaleArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  MeanScaleLaunch launch;
  launch.scale_count = args.scale_count;
  launch.scales = Pointer<const float>(args.scales);
  launch.offset = Pointer<float>(args.offset);
  return context_.Check(LaunchMeanScale(launch, StreamOf(queue)), "LaunchMeanScale");
}

absl::Status CudaOps::QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  QuantizeScalesLaunch launch;
  launch.scale_count = args.scale_count;
  launch.scales = Pointer<const float>(args.scales);
  launch.offset = Pointer<const float>(args.offset);
  launch.scale_codes = Pointer<uint8_t>(args.scale_codes);
  launch.absmax2 = Pointer<float>(args.absmax2);
  return context_.Check(LaunchQuantizeScales(launch, StreamOf(queue)), "LaunchQuantizeScales");
}

absl::Status CudaOps::DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) {
  absl::Status status = CheckArgs(args);
  status.Update(context_.MakeCurrent());
  if (!status.ok()) {
    return status;
  }
  DequantizeScalesLaunch launch;
  launch.scale_count = args.scale_count;
  launch.scale_codes = Pointer<const uint8_t>(args.scale_codes);
  launch.absmax2 = Pointer<const float>(args.absmax2);
  launch.offset = Pointer<const float>(args.offset);
  launch.map = Pointer<const float>(args.map);
  launch.scales = Pointer<float>(args.scales);
  return context_.Check(LaunchDequantizeScales(launch, StreamOf(queue)), "LaunchDequantizeScales");
}

}  // namespace nibble
