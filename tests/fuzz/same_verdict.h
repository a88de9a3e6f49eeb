// A second opinion on JSON from a parser that is not ours, for the fuzz targets.

#pragma once

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "kernels/check.h"
#include "loader/json_reader.h"
#include "nlohmann/json.hpp"

namespace nibble {

// Ends the process if JsonReader and nlohmann::json disagree on whether `text` is JSON. Leaves out
// what they mean to differ in: depth, a byte order mark, and NUL as the end of the text.
inline void CheckSameVerdict(absl::string_view text) {
  constexpr int kDepthMax = 64;
  JsonReader reader(text, {.depth_max = kDepthMax});
  reader.SkipValue();
  reader.Finish();
  const auto opening = [](char c) { return c == '{' || c == '['; };
  const bool deep = std::count_if(text.begin(), text.end(), opening) > kDepthMax;
  const bool differs_by_design =
      deep || text.find('\0') != text.npos || absl::StartsWith(text, "\xEF\xBB\xBF");
  if (!differs_by_design) {
    Check(reader.status().ok() == nlohmann::json::accept(text.begin(), text.end()),
          "both parsers agree");
  }
}

}  // namespace nibble
