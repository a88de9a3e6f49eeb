// Unicode's normalization forms (UAX 15), in linear time.

#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

struct UnicodeForm {
  bool compatible = false;  // The K of NFKC and NFKD: ligatures, widths and the like dissolve.
  bool composed = false;    // The C.
};

// `text` in `form`, by the tables of utf8proc's Unicode version.
//
// Requires: `text` is valid UTF-8.
// Cost: 4 bytes of memory for each character of the decomposition.
std::string ToUnicodeForm(absl::string_view text, UnicodeForm form);

// Each character in lower case, by Unicode's one-to-one mapping and, for U+0130, its full one.
std::string ToLowercase(absl::string_view text);

}  // namespace nibble
