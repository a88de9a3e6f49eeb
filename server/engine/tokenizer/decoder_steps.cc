// Decoders that change the text of tokens.

#include "server/engine/tokenizer/decoder_steps.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/component_file.h"
#include "server/engine/tokenizer/text_pattern.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

// All tokens become one.
class FuseStage : public DecoderStage {
 public:
  void Append(absl::string_view piece) override { next().Append(piece); }
  void EndToken() override {}
  void EndStream() override {
    next().EndToken();
    next().EndStream();
  }
};

class SpacingStage : public DecoderStage {
 public:
  void Append(absl::string_view piece) override {
    if (std::exchange(behind_token_, false)) {
      next().Append(" ");
    }
    next().Append(piece);
  }
  void EndToken() override {
    // Also an empty token has a space on either side.
    if (behind_token_) {
      next().Append(" ");
    }
    behind_token_ = true;
    next().EndToken();
  }
  void EndStream() override { next().EndStream(); }

 private:
  bool behind_token_ = false;
};

class MetaspaceStage : public DecoderStage {
 public:
  MetaspaceStage(absl::string_view replacement, bool drops_first)
      : replacement_(replacement), dropping_(drops_first) {}

  void Append(absl::string_view piece) override {
    for (size_t position = 0; position < piece.size();) {
      const absl::string_view character = piece.substr(position, Utf8Length(piece[position]));
      position += character.size();
      if (character != replacement_) {
        next().Append(character);
      } else if (!dropping_) {
        next().Append(" ");
      }
    }
  }
  void EndToken() override {
    dropping_ = false;
    next().EndToken();
  }
  void EndStream() override { next().EndStream(); }

 private:
  const absl::string_view replacement_;
  bool dropping_;  // In the first token.
};

// Replaces a string within each token.
class ReplaceStringStage : public DecoderStage {
 public:
  ReplaceStringStage(absl::string_view pattern, absl::string_view content)
      : pattern_(pattern), content_(content) {}

  void Append(absl::string_view piece) override {
    held_.append(piece.data(), piece.size());
    const absl::string_view held = held_;
    size_t begin = 0;
    for (size_t found = held.find(pattern_); found != held.npos;
         found = held.find(pattern_, begin)) {
      Pass(begin, found);
      next().Append(content_);
      begin = found + pattern_.size();
    }
    // The longest end that may be the pattern's beginning stays.
    size_t kept = std::min(pattern_.size() - 1, held.size() - begin);
    while (kept > 0 && held.substr(held.size() - kept) != pattern_.substr(0, kept)) {
      --kept;
    }
    Pass(begin, held.size() - kept);
    held_.erase(0, held_.size() - kept);
  }
  void EndToken() override {
    Pass(0, held_.size());
    held_.clear();
    next().EndToken();
  }
  void EndStream() override { next().EndStream(); }

 private:
  void Pass(size_t begin, size_t end) {
    if (begin < end) {
      next().Append(absl::string_view(held_).substr(begin, end - begin));
    }
  }

  const absl::string_view pattern_;
  const absl::string_view content_;
  std::string held_;
};

std::string ReplaceAll(const TextPattern& pattern, absl::string_view content,
                       absl::string_view token) {
  RegexScratch scratch;
  scratch.Refill(token.size());
  std::vector<TextPart> parts;
  if (!pattern.FindParts(token, {.begin = 0, .end = token.size()}, scratch, parts).ok()) {
    return std::string(token);  // Past its limits the expression replaces nothing.
  }
  std::string result;
  for (const TextPart& part : parts) {
    absl::StrAppend(&result, part.is_match ? content : part.span.Of(token));
  }
  return result;
}

// Replaces what a regular expression matches within each token, once the token is whole.
class ReplaceRegexStage : public DecoderStage {
 public:
  ReplaceRegexStage(const TextPattern& pattern, absl::string_view content)
      : pattern_(pattern), content_(content) {}

  void Append(absl::string_view piece) override { token_.append(piece.data(), piece.size()); }
  void EndToken() override {
    next().Append(ReplaceAll(pattern_, content_, token_));
    token_.clear();
    next().EndToken();
  }
  void EndStream() override { next().EndStream(); }

 private:
  const TextPattern& pattern_;
  const absl::string_view content_;
  std::string token_;
};

// Takes up to `start` of a character off the beginning of each token, and up to `stop` off its end.
class StripStage : public DecoderStage {
 public:
  StripStage(absl::string_view character, uint32_t start, uint32_t stop)
      : character_(character), start_(start), stop_(stop), start_left_(start) {}

  void Append(absl::string_view piece) override {
    for (size_t position = 0; position < piece.size();) {
      const absl::string_view character = piece.substr(position, Utf8Length(piece[position]));
      position += character.size();
      if (character != character_) {
        start_left_ = 0;
        Release(held_);
        next().Append(character);
      } else if (start_left_ > 0) {
        --start_left_;
      } else if (++held_ > stop_) {
        Release(1);
      }
    }
  }
  void EndToken() override {
    held_ = 0;
    start_left_ = start_;
    next().EndToken();
  }
  void EndStream() override { next().EndStream(); }

 private:
  void Release(uint32_t count) {
    held_ -= count;
    for (; count > 0; --count) {
      next().Append(character_);
    }
  }

  const absl::string_view character_;
  const uint32_t start_;
  const uint32_t stop_;
  uint32_t start_left_;
  uint32_t held_ = 0;  // Of the character, at the end of the token so far.
};

class FuseDecoder : public DecoderStep {
 public:
  std::unique_ptr<DecoderStage> MakeStage() const override { return std::make_unique<FuseStage>(); }
};

class SpacingDecoder : public DecoderStep {
 public:
  std::unique_ptr<DecoderStage> MakeStage() const override {
    return std::make_unique<SpacingStage>();
  }
};

class ReplaceDecoder : public DecoderStep {
 public:
  ReplaceDecoder(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::unique_ptr<DecoderStage> MakeStage() const override {
    if (pattern_.literal().empty()) {
      return std::make_unique<ReplaceRegexStage>(pattern_, content_);
    }
    return std::make_unique<ReplaceStringStage>(pattern_.literal(), content_);
  }
  std::string BytesOf(std::string token) const override {
    return FirstInvalidByte(token) < token.size() ? std::move(token)
                                                  : ReplaceAll(pattern_, content_, token);
  }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

class MetaspaceDecoder : public DecoderStep {
 public:
  MetaspaceDecoder(TextPattern replacement, bool drops_first)
      : replacement_(std::move(replacement)), drops_first_(drops_first) {}
  std::unique_ptr<DecoderStage> MakeStage() const override {
    return std::make_unique<MetaspaceStage>(replacement_.literal(), drops_first_);
  }
  std::string BytesOf(std::string token) const override {
    return ReplaceAll(replacement_, " ", token);
  }

 private:
  const TextPattern replacement_;
  const bool drops_first_;
};

class StripDecoder : public DecoderStep {
 public:
  StripDecoder(std::string character, uint32_t start, uint32_t stop)
      : character_(std::move(character)), start_(start), stop_(stop) {}
  std::unique_ptr<DecoderStage> MakeStage() const override {
    return std::make_unique<StripStage>(character_, start_, stop_);
  }

 private:
  const std::string character_;
  const uint32_t start_;
  const uint32_t stop_;
};

}  // namespace

DecoderPointer MakeFuseDecoder() { return std::make_unique<FuseDecoder>(); }
DecoderPointer MakeSpacingDecoder() { return std::make_unique<SpacingDecoder>(); }

absl::StatusOr<DecoderPointer> ParseMetaspaceDecoder(const JsonTree& component) {
  const auto replacement = CharacterMember(component, "replacement");
  const auto scheme = component.StringMember("prepend_scheme", "always");
  const auto add_prefix_space = component.BoolMember("add_prefix_space", true);
  for (const absl::Status& status :
       {replacement.status(), scheme.status(), add_prefix_space.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  if (*scheme != "always" && *scheme != "first" && *scheme != "never") {
    return absl::UnimplementedError(absl::StrCat("the prepend_scheme ", Printable(*scheme)));
  }
  if (!*add_prefix_space && *scheme != "never") {
    return absl::DataLossError(
        absl::StrCat("add_prefix_space is false, but prepend_scheme is ", Printable(*scheme)));
  }
  auto pattern = TextPattern::FromString(*replacement);
  if (!pattern.ok()) {
    return pattern.status();
  }
  return std::make_unique<MetaspaceDecoder>(*std::move(pattern), *scheme != "never");
}

absl::StatusOr<DecoderPointer> ParseReplaceDecoder(const JsonTree& component) {
  auto pattern = PatternMember(component);
  auto content = component.StringMember("content");
  if (!pattern.ok() || !content.ok()) {
    return pattern.ok() ? content.status() : pattern.status();
  }
  return std::make_unique<ReplaceDecoder>(*std::move(pattern), *std::move(content));
}

absl::StatusOr<DecoderPointer> ParseStripDecoder(const JsonTree& component) {
  auto character = CharacterMember(component, "content");
  const auto start = component.CountMember("start");
  const auto stop = component.CountMember("stop");
  for (const absl::Status& status : {character.status(), start.status(), stop.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  return std::make_unique<StripDecoder>(*std::move(character), *start, *stop);
}

}  // namespace nibble
