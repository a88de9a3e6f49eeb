// The tensors that bitsandbytes makes of one, and where their bytes come from.
//
//   P                       U8 [(n + 1) / 2, 1]     codes
//   P.absmax                F32 [blocks], or U8     scales, or their codes
//   P.quant_map             F32 [16]                the codebook
//   P.nested_absmax         F32 [blocks / 256]      double-quantized: scales of the scales,
//   P.nested_quant_map      F32 [256]               and what their codes stand for
//   P.quant_state.bitsandbytes__nf4 (or __fp4)  U8  JSON: format, block size, source dtype, shape,
//                                                   and of double-quantized scales the offset
//
// Source: bitsandbytes functional.py (QuantState.as_dict), utils.py (pack_dict_to_tensor).

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "loader/export_names.h"
#include "loader/load_plan.h"
#include "loader/safetensors.h"

namespace nibble {

struct ExportedTensor {
  enum class Content {
    kPlane,    // A plane of the unit's parts, one part after the other.
    kLiteral,  // `literal`.
    kScaleMap,
    kCodebook,
  };

  SafetensorsEntry entry;
  ExportUnit unit;
  Content content = Content::kPlane;
  Plane plane = Plane::kData;  // Of kPlane.
  std::string literal;
};

// `scale_mean` is that of the unit's part; of no meaning unless it is double-quantized.
std::vector<ExportedTensor> TensorsOf(const ModelConfig& config, const ExportUnit& unit,
                                      float scale_mean);

// The bytes of a tensor whose content is no plane.
std::span<const std::byte> BytesOf(const LoadPlan& plan, const ExportedTensor& tensor);

// The name of a source dtype in the words of torch: "bfloat16".
absl::string_view TorchDtypeName(const PlannedTensor& tensor);

}  // namespace nibble
