// Regular expressions of `pattern`, in the part of ECMA-262's language that an automaton can
// follow.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/grammar/grammar_builder.h"
#include "server/engine/grammar/json_characters.h"

namespace nibble {

// A pattern's tree.
struct Pattern {
  enum class Kind { kCharacters, kSequence, kChoice, kRepeat };
  static constexpr int64_t kEndless = -1;

  Kind kind = Kind::kSequence;
  std::vector<CodePointRange> characters;  // kCharacters: one of them.
  std::vector<Pattern> parts;              // kRepeat: one.
  int64_t least = 0;                       // kRepeat
  int64_t most = 0;                        // kRepeat; kEndless: any number.
};

// Reads characters, '.', classes, \d \w \s and their opposites, escapes, groups, alternatives, * +
// ? {m,n}, and ^ and $ at the ends of the pattern's alternatives. Where they are missing any text
// may stand, as JSON schema says.
//
// Errors: UNIMPLEMENTED that names what else is in it (\b, lookaround, back references, \p, anchors
//   within); INVALID_ARGUMENT if it is no pattern or exceeds a limit.
absl::StatusOr<Pattern> ReadPattern(absl::string_view text);

// Draws the text that matches, in its plain spelling within a JSON string, without the quotes.
GrammarNode AddPattern(GrammarBuilder& builder, GrammarNode from, const Pattern& pattern);

}  // namespace nibble
