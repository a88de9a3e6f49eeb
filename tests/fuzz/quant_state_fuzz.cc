// Any bytes as the JSON of a quant_state. What is accepted must be what another parser reads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "loader/printable.h"
#include "loader/quant_state.h"
#include "tests/fuzz/same_verdict.h"

namespace nibble {
namespace {

void CheckState(const QuantState& state, absl::string_view text) {
  const auto json = nlohmann::json::parse(text.begin(), text.end());
  Check(json["quant_type"] == (state.codebook == Codebook::kNf4 ? "nf4" : "fp4"), "same codebook");
  Check(json["blocksize"] == state.block_size && IsBlockSize(state.block_size), "a block size");
  Check(json["shape"].get<std::vector<int64_t>>() == state.shape, "same shape");
  Check(AsFloatType(state.dtype).has_value(), "elements are floats");
  int64_t elements = 1;
  for (const int64_t dimension : state.shape) {
    Check(dimension > 0, "dimensions are positive");
    Check(!__builtin_mul_overflow(elements, dimension, &elements), "nothing overflows");
  }
  Check(elements == state.element_count && elements <= int64_t{1} << 60, "the product is bounded");
  Check(json.contains("nested_offset") == state.double_quantized, "nested or not");
  if (state.double_quantized) {
    Check(std::isfinite(state.scale_mean), "offsets are finite");
    Check(json["nested_blocksize"] == kNestedBlockSize, "the only block size");
    Check(json["nested_offset"].get<float>() == state.scale_mean, "same offset");
  }
}

void CheckText(absl::string_view text) {
  CheckSameVerdict(text);
  const auto state = ParseQuantState(text);
  if (!state.ok()) {
    const absl::string_view message = state.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  CheckState(*state, text);
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckText({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
