// Sets of characters, as patterns name them.

#pragma once

#include <optional>
#include <vector>

#include "server/engine/grammar/json_characters.h"

namespace nibble {

using CharacterClass = std::vector<CodePointRange>;

// Sorted, without overlaps.
CharacterClass Normalized(CharacterClass ranges);

// All the others.
CharacterClass Complement(CharacterClass ranges);

// The class of \d, \D, \w, \W, \s or \S by its letter, as ECMA-262 defines it without flags.
std::optional<CharacterClass> ClassOfLetter(uint32_t letter);

// '.': all but the line terminators.
CharacterClass AnyButLineEnds();

}  // namespace nibble
