#include "loader/tensor_path.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace nibble {
namespace {

constexpr size_t kDigitsMax = 6;

bool CountsLayers(absl::string_view component) {
  return component == "layers" || component == "layer" || component == "h" ||
         component == "block" || component == "blocks";
}

std::optional<int> ParseIndex(absl::string_view component) {
  const bool plain = !component.empty() && component.size() <= kDigitsMax &&
                     (component == "0" || component[0] != '0') &&
                     std::all_of(component.begin(), component.end(), absl::ascii_isdigit);
  int index = 0;
  return plain && absl::SimpleAtoi(component, &index) ? std::optional(index) : std::nullopt;
}

}  // namespace

TensorPath ParseTensorPath(absl::string_view tensor_name) {
  TensorPath path;
  path.name.reserve(tensor_name.size() + sizeof("{layer}{expert}"));
  absl::string_view previous;
  absl::string_view separator;
  for (const absl::string_view component : absl::StrSplit(tensor_name, '.')) {
    absl::string_view written = component;
    if (CountsLayers(previous) && path.layer_index < 0) {
      if (const std::optional<int> index = ParseIndex(component)) {
        path.layer_index = *index;
        written = "{layer}";
      }
    } else if (previous == "experts" && path.expert_index < 0) {
      if (const std::optional<int> index = ParseIndex(component)) {
        path.expert_index = *index;
        written = "{expert}";
      }
    }
    // Braces of the name's own must not look like ours.
    const bool foreign = written.data() == component.data() && absl::StartsWith(component, "{");
    absl::StrAppend(&path.name, separator, foreign ? "{" : "", written);
    separator = ".";
    previous = component;
  }
  return path;
}

}  // namespace nibble
