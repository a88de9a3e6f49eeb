// Finding strings in strings in linear time. std::string::find takes the product of both lengths at
// its worst ("aaa...ab" in "aaa..."), which a template could ask for with a few megabytes.

#pragma once

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

inline constexpr size_t kNotFound = absl::string_view::npos;

// Where `wanted` first occurs in `text` at or behind `from`; kNotFound if it does not.
size_t FindText(absl::string_view text, absl::string_view wanted, size_t from = 0);

// Where it last occurs.
//
// Cost: a reversed copy of both.
size_t FindLastText(absl::string_view text, absl::string_view wanted);

// How often it occurs, without overlaps; an empty one before and behind each code point.
size_t CountText(absl::string_view text, absl::string_view wanted);

// Whether a text may be cut into so many parts; fails the run if not.
bool MayHaveParts(Run& run, size_t count);

// str.splitlines(): at each of Unicode's line breaks, "\r\n" being one.
std::vector<absl::string_view> LinesOf(Run& run, absl::string_view text, bool keep_breaks);

// `text` with the first `count` (all, if negative) of `old` replaced; str.replace().
Value ReplaceText(Run& run, absl::string_view text, absl::string_view old, absl::string_view with,
                  int64_t count);

}  // namespace nibble::jinja
