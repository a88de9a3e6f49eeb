// The single decoders.

#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/tokenizer/decoder.h"
#include "server/engine/tokenizer/json_tree.h"

namespace nibble {

using DecoderPointer = std::unique_ptr<const DecoderStep>;

// The byte of a token "<0x41>"; -1 for other tokens.
int ByteOfToken(absl::string_view token);

DecoderPointer MakeByteLevelDecoder();
DecoderPointer MakeByteFallbackDecoder();
DecoderPointer MakeFuseDecoder();
// What the library does without a decoder.
DecoderPointer MakeSpacingDecoder();
absl::StatusOr<DecoderPointer> ParseMetaspaceDecoder(const JsonTree& component);
absl::StatusOr<DecoderPointer> ParseReplaceDecoder(const JsonTree& component);
absl::StatusOr<DecoderPointer> ParseStripDecoder(const JsonTree& component);

}  // namespace nibble
