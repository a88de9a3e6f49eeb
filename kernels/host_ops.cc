#include "kernels/host_ops.h"

#include "kernels/block_quantize.h"
#include "kernels/expand_f8.h"
#include "kernels/measure_error.h"
#include "kernels/scale_quantize.h"
#include "kernels/scale_search.h"

namespace nibble {

absl::Status HostOps::Quantize(Queue&, const QuantizeArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  const std::byte* const source = HostPointer(args.source);
  auto* const codes = HostPointer<uint8_t>(args.codes);
  auto* const scales = HostPointer<float>(args.scales);
  const uint64_t first_non_finite =
      args.scale_search == ScaleSearch::kNone
          ? QuantizeBlocks(args.codebook, args.block_size, args.source_type, source,
                           args.element_count, codes, scales)
          : SearchBlockScales(args.scale_search, args.codebook, args.block_size, args.source_type,
                              source, args.element_count, codes, scales);
  if (!args.first_non_finite.empty()) {
    *HostPointer<uint64_t>(args.first_non_finite) = first_non_finite;
  }
  return absl::OkStatus();
}

absl::Status HostOps::Dequantize(Queue&, const DequantizeArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  DequantizeBlocks(args.codebook, args.block_size, args.target_type,
                   HostPointer<const uint8_t>(args.codes), HostPointer<const float>(args.scales),
                   args.element_count, HostPointer(args.target));
  return absl::OkStatus();
}

absl::Status HostOps::FindNonFinite(Queue&, const FindNonFiniteArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  *HostPointer<uint64_t>(args.first_non_finite) =
      FindFirstNonFinite(args.source_type, HostPointer(args.source), args.element_count);
  return absl::OkStatus();
}

absl::Status HostOps::ExpandF8(Queue&, const ExpandF8Args& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  ExpandF8Range(args.range, HostPointer<const uint8_t>(args.source), HostPointer(args.scales),
                HostPointer<float>(args.target));
  return absl::OkStatus();
}

absl::Status HostOps::MeasureError(Queue&, const MeasureErrorArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  MeasureBlockError(args.codebook, args.block_size, args.source_type, HostPointer(args.source),
                    HostPointer<const uint8_t>(args.codes), HostPointer<const float>(args.scales),
                    args.element_count, HostPointer<ErrorSums>(args.sums));
  return absl::OkStatus();
}

absl::Status HostOps::MeanScale(Queue&, const MeanScaleArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  *HostPointer<float>(args.offset) =
      nibble::MeanScale(HostPointer<const float>(args.scales), args.scale_count);
  return absl::OkStatus();
}

absl::Status HostOps::QuantizeScales(Queue&, const QuantizeScalesArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  nibble::QuantizeScales(HostPointer<const float>(args.scales), args.scale_count,
                         *HostPointer<const float>(args.offset),
                         HostPointer<uint8_t>(args.scale_codes), HostPointer<float>(args.absmax2));
  return absl::OkStatus();
}

absl::Status HostOps::DequantizeScales(Queue&, const DequantizeScalesArgs& args) {
  if (absl::Status status = CheckArgs(args); !status.ok()) {
    return status;
  }
  nibble::DequantizeScales(
      HostPointer<const uint8_t>(args.scale_codes), HostPointer<const float>(args.absmax2),
      *HostPointer<const float>(args.offset), HostPointer<const float>(args.map), args.scale_count,
      HostPointer<float>(args.scales));
  return absl::OkStatus();
}

}  // namespace nibble
