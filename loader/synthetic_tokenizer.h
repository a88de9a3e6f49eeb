// A byte-level tokenizer for synthetic checkpoints: 256 bytes, one end-of-text token, and fillers
// so that every id of the vocabulary can be shown.

#pragma once

#include <cstdint>
#include <string>

namespace nibble {

// tokenizer.json of the `tokenizers` library. Requires: vocabulary_size > kSyntheticEndTokenId.
std::string SyntheticTokenizerJson(int64_t vocabulary_size);

std::string SyntheticTokenizerConfigJson();

}  // namespace nibble
