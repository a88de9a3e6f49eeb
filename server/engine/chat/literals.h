// Numbers and strings as templates write them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble::jinja {

// The length of the number that `text` begins with; 0 if it begins with none. Underscores between
// digits and the prefixes 0b, 0o and 0x are part of it.
size_t NumberLength(absl::string_view text, bool may_be_float, bool& is_float);

// The value of what NumberLength has measured; nothing if it has more than 63 bits.
std::optional<int64_t> ParseIntegerLiteral(absl::string_view text);
double ParseFloatLiteral(absl::string_view text);

// What stands between the quotes, with Python's escapes resolved; nothing if one is malformed or
// names a surrogate. An unknown escape stays as it is, backslash included.
std::optional<std::string> UnescapeString(absl::string_view text);

}  // namespace nibble::jinja
