// \p{..}: the names that regular expressions give to sets of characters.

#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/regex_set.h"

namespace nibble {

// The set that Oniguruma calls `name` in \p{name}: a general category by its short or long name, a
// script, a binary property, or one of the names of [[:alpha:]]. Case, spaces, '-' and '_' do not
// count.
//
// Errors: UNIMPLEMENTED for a name that PCRE2 does not know either.
absl::StatusOr<CharacterSet> PropertySet(absl::string_view name);

// [[:name:]], which differs in two: symbols are "punct", and Latin-1's superscripts no "word".
absl::StatusOr<CharacterSet> PosixSet(absl::string_view name);

}  // namespace nibble
