// Which tensors of a checkpoint belong together, because bitsandbytes stores a 4-bit tensor W as
//
//   W                                   codes      any dtype (quant_storage)
//   W.absmax                            scales     F32 [blocks], or U8 if they are quantized too
//   W.quant_map                         codebook   F32 [16]
//   W.quant_state.bitsandbytes__nf4     JSON       U8 [bytes], see quant_state.h; or __fp4
//   W.nested_absmax                     if so      F32 [ceil(blocks / 256)]
//   W.nested_quant_map                  if so      F32 [256]
//
// in any shards.
//
// Source: bitsandbytes functional.py, QuantState.as_dict and from_dict; nn/modules.py.

#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/block_format.h"
#include "loader/checkpoint.h"

namespace nibble {

// What stands beside the codes.
enum class Side { kAbsmax, kQuantMap, kQuantState, kNestedAbsmax, kNestedQuantMap };
inline constexpr size_t kSideCount = 5;

// Indices are those of Checkpoint::tensors, -1 for none.
struct TensorGroup {
  absl::string_view name;  // Of the codes, W above; a part of some tensor's name.
  int codes = -1;
  std::array<int, kSideCount> sides = {-1, -1, -1, -1, -1};
  Codebook codebook = Codebook::kNf4;  // As the name of its quant_state says.

  int side(Side which) const { return sides[static_cast<size_t>(which)]; }
  bool double_quantized() const { return side(Side::kNestedAbsmax) >= 0; }
};

// The groups, in the order of their first tensors. All that belongs to one is there, of the right
// type, and small enough to be read; the sizes of codes, absmax and nested_absmax depend on the
// JSON and are not checked. Must not outlive the checkpoint's tensors.
//
// Errors: DATA_LOSS if something is missing, twice, unknown, or of another type or size;
//   UNIMPLEMENTED for a quant_state other than nf4 and fp4. All name file, tensor, what was
//   expected and found.
absl::StatusOr<std::vector<TensorGroup>> FindTensorGroups(const Checkpoint& checkpoint);

}  // namespace nibble
