// JSON as Python's json.dumps writes it: what transformers and bitsandbytes have written, and what
// a copy of it must equal.

#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// Appends `text` in quotes, escaped. (Python would escape what is not ASCII too.)
//
// Requires: `text` is UTF-8.
void AppendJsonString(std::string& json, absl::string_view text);

// The shortest digits that give `value` back, in Python's notation: "0.25", "3.0", "1e-05",
// "1.5e+16"; "NaN", "Infinity" and "-Infinity", which no other JSON has.
std::string PythonNumber(double value);

}  // namespace nibble
