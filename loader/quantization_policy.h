// Which tensors of a checkpoint are loaded, and which of those in 4 bits: the rules of DESIGN 4,
// the client's globs, and the reason for everything that is kept or skipped.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "loader/load_plan.h"
#include "loader/load_spec.h"

namespace nibble {

// The client's globs, and which of them have matched a tensor yet.
class TensorGlobs {
 public:
  // Must not outlive `spec`. Requires: Validate(spec) is OK.
  explicit TensorGlobs(const QuantizationSpec& spec);

  enum class Choice { kNone, kKeep, kQuantize };

  // What the globs say about a tensor; `keep` wins.
  Choice Match(absl::string_view tensor_name);

  // Errors: INVALID_ARGUMENT that names the first glob that matched nothing.
  absl::Status CheckAllMatched() const;

 private:
  const QuantizationSpec* spec_;
  std::vector<bool> keep_matched_;
  std::vector<bool> quantize_matched_;
};

// Sets `loaded`, `format`, `reason` and how it is quantized from name, role, type and shape. A
// tensor that is in 4 bits in its file stays as it is. `partly_quantized`: other tensors of the
// checkpoint are in 4 bits, which is what keep_unquantized_rest is about.
//
// Errors: UNIMPLEMENTED if the tensor is a weight of a type that this version cannot load;
// DATA_LOSS
//   if a fused tensor has not the three dimensions of one.
absl::Status DecideFormat(const QuantizationSpec& spec, TensorGlobs::Choice choice,
                          bool partly_quantized, PlannedTensor& tensor);

// The runs of elements of a loaded tensor that are quantized, or kept, as tensors of their own; in
// the order of the file. Places in the slab are still 0.
//
// Requires: DecideFormat has accepted the tensor.
std::vector<PlannedPart> CutParts(const PlannedTensor& tensor);

// How many parts CutParts would give, without making them.
int64_t PartCount(const PlannedTensor& tensor);

}  // namespace nibble
