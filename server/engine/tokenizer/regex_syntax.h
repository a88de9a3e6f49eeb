// tokenizer.json writes its regular expressions in Oniguruma's dialect; we match with PCRE2. Where
// the two read the same characters differently, the text is rewritten.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// The longest expression taken. Real ones are below 1 KiB.
inline constexpr size_t kRegexBytesMax = 64 << 10;

// The same expression for PCRE2 with UTF, UCP and MULTILINE, and newline LF. What differs between
// the dialects:
//
//   \s \w \b \h \v \O \uHHHH     Unicode's white space, word characters, ...; a hex digit; U+000B
//   {,m}  {n}?  {n,m}+  a+{2}    0 to m; optional; repeated, not possessive; stacked quantifiers
//   (?m)  a(?i)b|c               the dot matches newlines; an option reaches to the group's end
//   [a[bc]]  [a&&[^b]]           sets in sets, and what two sets have in common
//   \p{Han}  \p{Letter}          the script, not its extensions; long names
//
// A callout follows each quantifier and each opening bracket, so that a search can count its steps
// and stop. Nothing is captured.
//
// Errors: UNIMPLEMENTED for back-references, recursion, conditions, verbs, absent groups, extended
//   mode and unknown properties, naming them; INVALID_ARGUMENT for what is no expression, and one
//   longer than kRegexBytesMax.
absl::StatusOr<std::string> ToPcre2Syntax(absl::string_view pattern);

}  // namespace nibble
