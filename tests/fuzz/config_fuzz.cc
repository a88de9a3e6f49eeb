// Any bytes as config.json, and as a tensor's name. The shapes that follow from a config must
// neither overflow nor be negative.

#include <cstdint>

#include "kernels/check.h"
#include "loader/model_config.h"
#include "loader/printable.h"
#include "loader/weight_names.h"

namespace nibble {
namespace {

void CheckName(const ModelFamily* family, absl::string_view name) {
  const int64_t shape[] = {64, 64};
  const WeightName weight = ClassifyWeight(family, name, shape);
  Check(!RoleName(weight.role).empty(), "a role has a name");
  Check(weight.layer_index >= -1 && weight.expert_index >= -1, "indices are counts");
}

void CheckConfig(absl::string_view text) {
  CheckName(nullptr, text);
  CheckName(FindFamily("mixtral"), text);
  const auto config = ParseModelConfig("fuzz", text);
  if (!config.ok()) {
    const absl::string_view message = config.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  Check(!config->model_type.empty(), "a model has a type");
  for (int role = 0; role <= static_cast<int>(Role::kOther); ++role) {
    for (const int64_t dimension : ExpectedShape(*config, {.role = static_cast<Role>(role)})) {
      Check(dimension > 0, "dimensions are positive");
    }
  }
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckConfig({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
