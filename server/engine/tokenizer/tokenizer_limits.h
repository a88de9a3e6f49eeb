// What a tokenizer takes at most, of its file and of its texts.

#pragma once

#include <cstddef>
#include <cstdint>

namespace nibble {

// The largest files met (Gemma 3: 262145 tokens) have 33 MB.
inline constexpr size_t kTokenizerFileBytesMax = 64 << 20;
inline constexpr int kTokenizerFileDepthMax = 64;

// Ids lie below this; the largest vocabulary met has 262145 tokens. Tables have an entry for each
// id.
inline constexpr uint64_t kTokenIdsMax = 4 << 20;
inline constexpr size_t kMergesMax = 4 << 20;
inline constexpr size_t kAddedTokensMax = 1 << 20;

// Finding added tokens costs at most this many steps for each byte of text.
inline constexpr size_t kAddedTokenBytesMax = 1024;

// Normalizers, and so on, in one file; each sees the whole text.
inline constexpr size_t kComponentsMax = 64;

// A million tokens of context are about 4 MB. Merging takes some 64 bytes of memory for each byte.
inline constexpr size_t kEncodeTextBytesMax = 8 << 20;
// Normalizers can make a text longer, and each other's results, too.
inline constexpr size_t kNormalizedBytesMax = 32 << 20;

}  // namespace nibble
