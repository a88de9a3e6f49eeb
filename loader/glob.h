// Globs over tensor names, as `keep` and `quantize` take them.
//
//   *       any run of bytes, dots included      [abc]  one of these
//   ?       any one byte                         [a-z]  one of this range
//   [!abc], [^abc]  none of these; a `]` that comes first in a set stands for itself

#pragma once

#include "absl/strings/string_view.h"

namespace nibble {

// Whether every `[` has its `]`.
bool IsGlob(absl::string_view glob);

// Whether `glob` matches the whole of `name`.
//
// Requires: IsGlob(glob).
// Cost: at most the product of the two lengths, whatever the glob.
bool GlobMatches(absl::string_view glob, absl::string_view name);

}  // namespace nibble
