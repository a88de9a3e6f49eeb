#include "server/engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/tokenizer/regex.h"
#include "server/engine/tokenizer/tokenizer_limits.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {

struct Tokenizer::EncodeState {
  bool parse_special = true;
  RegexScratch regex;
  BpeScratch bpe;
  std::vector<bool> none;  // No reserved tokens.
  std::vector<uint32_t> ids;
};

Tokenizer::Tokenizer(BpeModel model, AddedTokens added, Normalizer normalizer,
                     PreTokenizer pre_tokenizer, PostProcessor post_processor, Decoder decoder)
    : model_(std::move(model)),
      added_(std::move(added)),
      normalizer_(std::move(normalizer)),
      pre_tokenizer_(std::move(pre_tokenizer)),
      post_processor_(std::move(post_processor)),
      decoder_(std::move(decoder)),
      special_ids_(model_.ids_end()) {
  for (uint32_t id = 0; id < model_.ids_end(); ++id) {
    special_ids_[id] = IsSpecial(id);
  }
}

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(absl::string_view text,
                                                        const EncodeOptions& options) const {
  if (text.size() > kEncodeTextBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("text: expected at most ", kEncodeTextBytesMax,
                                                     " bytes, found ", text.size()));
  }
  const size_t invalid = FirstInvalidByte(text);
  if (invalid < text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: expected UTF-8, found other bytes at byte ", invalid));
  }
  EncodeState state;
  state.parse_special = options.parse_special;
  std::vector<TextSegment> segments;
  added_.Split(text, AddedTokens::Pass::kRaw, options.parse_special, segments);
  for (const TextSegment& segment : segments) {
    if (segment.id.has_value()) {
      state.ids.push_back(*segment.id);
      continue;
    }
    const bool begins_input = segment.span.begin == 0;
    if (absl::Status status = EncodeRaw(segment.span.Of(text), begins_input, state); !status.ok()) {
      return status;
    }
  }
  return post_processor_.Apply(std::move(state.ids), options.add_special_tokens);
}

absl::Status Tokenizer::EncodeRaw(absl::string_view text, bool begins_input,
                                  EncodeState& state) const {
  const auto normalized = normalizer_.Apply(text, state.regex);
  if (!normalized.ok()) {
    return normalized.status();
  }
  begins_input &= !normalized->beginning_removed;
  std::vector<TextSegment> segments;
  added_.Split(normalized->text, AddedTokens::Pass::kNormalized, state.parse_special, segments);
  for (const TextSegment& segment : segments) {
    if (segment.id.has_value()) {
      state.ids.push_back(*segment.id);
      continue;
    }
    absl::Status status = EncodeNormalized(std::string(segment.span.Of(normalized->text)),
                                           begins_input && segment.span.begin == 0, state);
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::EncodeNormalized(std::string text, bool begins_input,
                                         EncodeState& state) const {
  const auto cut = pre_tokenizer_.Apply(std::move(text), begins_input, state.regex);
  if (!cut.ok()) {
    return cut.status();
  }
  const std::vector<bool>& reserved = state.parse_special ? state.none : special_ids_;
  for (const Span piece : cut->pieces) {
    absl::Status status = model_.Encode(piece.Of(cut->text), reserved, state.bpe, state.ids);
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const uint32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const uint32_t id : ids) {
    text += detokenizer.Append(id);
  }
  return text + detokenizer.Finish();
}

const std::string* Tokenizer::FindText(uint32_t id) const {
  const std::string* const added = added_.TextOf(id);
  return added != nullptr ? added : model_.TokenOf(id);
}

std::optional<std::string> Tokenizer::TokenText(uint32_t id) const {
  const std::string* const text = FindText(id);
  return text == nullptr ? std::nullopt : std::optional(*text);
}

std::optional<std::string> Tokenizer::TokenBytes(uint32_t id) const {
  const std::string* const text = FindText(id);
  return text == nullptr ? std::nullopt : std::optional(decoder_.BytesOf(*text));
}

std::optional<uint32_t> Tokenizer::IdOf(absl::string_view token) const {
  const auto added = added_.IdOf(token);
  return added.has_value() ? added : model_.IdOf(token);
}

bool Tokenizer::IsSpecial(uint32_t id) const { return added_.IsSpecial(id); }

uint32_t Tokenizer::vocabulary_size() const { return std::max(model_.ids_end(), added_.ids_end()); }

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special, std::vector<uint32_t> shown)
    : tokenizer_(tokenizer),
      skip_special_(skip_special),
      shown_(std::move(shown)),
      stream_(tokenizer.decoder_.NewStream()) {}

std::string Detokenizer::Append(uint32_t id) {
  const std::string* const text = tokenizer_.FindText(id);
  // By the text, as the library does: a special token whose normalized text differs is not skipped.
  if (text != nullptr && (!skip_special_ || !tokenizer_.added_.IsSpecial(*text) ||
                          std::find(shown_.begin(), shown_.end(), id) != shown_.end())) {
    stream_.Append(*text);
  }
  return stream_.TakeText();
}

std::string Detokenizer::Finish() {
  stream_.Finish();
  return stream_.TakeText();
}

}  // namespace nibble
