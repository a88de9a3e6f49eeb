// What a template and its variables may take. Templates come with checkpoints, variables with
// requests, and nobody vouches for either: whatever they say, a rendering ends within these.

#pragma once

#include <cstdint>

#include "kernels/bytes.h"

namespace nibble::jinja {

// The largest templates of released models have some 30 kB. A tree takes up to 150 bytes a byte of
// its template, so this bounds it to 40 MB.
inline constexpr int64_t kTemplateBytesMax = 256_KiB;

// Levels of a syntax tree, expressions and blocks together. The parser, the interpreter and the
// tree's destructor recurse by it. Released templates have 30.
inline constexpr int kTreeDepthMax = 150;

// Levels of the interpreter, macros that call themselves included: about eight a call. A level
// takes below 1 KiB of stack with optimization, 4 KiB under ASan without.
inline constexpr int kEvaluationDepthMax = 500;

// Levels of lists and dicts in each other. What walks a value, its destructor included, recurses by
// it.
inline constexpr int kValueDepthMax = 100;

// A step is a node of the tree that is evaluated, an item that is visited, or so many bytes that
// are copied or searched, or characters, names and items that are looked at one by one. So the
// steps bound the time: the slowest of the loops in the tests takes 0.6 s on one core of an EPYC
// with optimization. A conversation of a hundred turns takes about ten thousand; one of a million
// tokens, some 5 MB, may go through each byte thirty times.
inline constexpr int64_t kStepsMax = 3'000'000;
inline constexpr int64_t kBytesPerStep = 64;
inline constexpr int64_t kLookupsPerStep = 8;

// Strings, lists and dicts that exist at one time, the variables and the output included.
inline constexpr int64_t kValueBytesMax = 64_MiB;

// What is printed. A million tokens have some 4 MB.
inline constexpr int64_t kOutputBytesMax = 16_MiB;

// Numbers in one range(), as in Jinja's sandbox.
inline constexpr int64_t kRangeItemsMax = 100'000;

// Of what raise_exception says, and of names that our messages quote.
inline constexpr int64_t kMessageBytesMax = 4096;

}  // namespace nibble::jinja
