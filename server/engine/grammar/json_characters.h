// Characters as they are written within a JSON string.

#pragma once

#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

struct CodePointRange {
  uint32_t first;
  uint32_t last;

  friend bool operator==(const CodePointRange&, const CodePointRange&) = default;
};

inline constexpr uint32_t kCodePointMax = 0x10FFFF;

// One character of `ranges` in its plain spelling: as UTF-8, or with the shortest escape if it must
// be escaped (\u001f in either case of letters). Surrogates are left out.
GrammarNode AddCharacter(GrammarBuilder& builder, GrammarNode from,
                         std::span<const CodePointRange> ranges);

// One character of any kind in any spelling: also \/ and \u00e9, and \ud83d\ude00, but no surrogate
// alone.
GrammarNode AddAnyCharacter(GrammarBuilder& builder, GrammarNode from);

// A whole string in quotes, in its plain spelling.
//
// Requires: `text` is UTF-8.
GrammarNode AddStringLiteral(GrammarBuilder& builder, GrammarNode from, absl::string_view text);

// The same without quotes.
GrammarNode AddCharacters(GrammarBuilder& builder, GrammarNode from, absl::string_view text);

}  // namespace nibble
