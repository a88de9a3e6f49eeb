// What a schema may ask for. Every limit is named in the error of what exceeds it. Schemas come
// from clients: without these, a page of text could ask for an automaton of any size.

#pragma once

#include <cstdint>

namespace nibble {

// Guess: twice the 120,000 characters that OpenAI's structured outputs allow.
inline constexpr int64_t kSchemaBytesMax = 256 << 10;

// Containers open at once in a schema's text. An inline object takes two levels.
inline constexpr int kSchemaDepthMax = 64;

// Members of one object of a schema, and elements of one array: `enum`, `properties`, `anyOf`.
// OpenAI allows 1,000 values of an enum.
inline constexpr int64_t kSchemaMembersMax = 1024;

// minLength and maxLength, minItems and maxItems: each unit takes states.
inline constexpr int64_t kLengthMax = 16'384;
inline constexpr int64_t kItemsMax = 4096;

inline constexpr int64_t kPatternBytesMax = 4096;
inline constexpr int kPatternDepthMax = 64;  // Groups in groups.
inline constexpr int64_t kPatternRepeatsMax = 4096;

// $ref to $ref to $ref, and allOf in allOf.
inline constexpr int kSchemaHopsMax = 64;

// Some 32 bytes a state.
inline constexpr int64_t kGrammarStatesMax = 65'536;
inline constexpr int64_t kGrammarNodesMax = 524'288;

// Time, counted so that the same schema always has the same verdict: nodes that are looked at while
// sets of them become states, bytes of schemas that are merged. All of it takes about a second.
inline constexpr int64_t kCompileWorkMax = 16 << 20;

// Rules that are open at once while text is written; arrays in arrays, mostly. Deeper values are
// never begun, so whatever is begun can be ended.
inline constexpr int kOpenRulesMax = 128;

// Stacks that meet in one state; of a schema that is more ambiguous than that some are dropped.
// What is written still satisfies it.
inline constexpr int64_t kStacksMax = 64;

// Digits of a number before the point, behind it, and of its exponent. 18 digits fit an int64_t,
// and 99 keeps every number within a double.
inline constexpr int kIntegerDigitsMax = 18;
inline constexpr int kFractionDigitsMax = 17;
inline constexpr int kExponentDigitsMax = 2;

// White space between two parts of a value: nothing, one space, or a newline with at most this many
// spaces or this many tabs behind it.
inline constexpr int kIndentSpacesMax = 64;
inline constexpr int kIndentTabsMax = 16;

}  // namespace nibble
