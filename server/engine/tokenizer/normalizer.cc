#include "server/engine/tokenizer/normalizer.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/tokenizer/byte_level.h"
#include "server/engine/tokenizer/component_file.h"
#include "server/engine/tokenizer/text_pattern.h"
#include "server/engine/tokenizer/tokenizer_limits.h"
#include "server/engine/tokenizer/unicode_form.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

using StepPointer = std::unique_ptr<const NormalizerStep>;

absl::Status CheckLength(size_t bytes) {
  if (bytes <= kNormalizedBytesMax) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat("normalized text: expected at most ",
                                                   kNormalizedBytesMax, " bytes, found ", bytes));
}

class FormStep : public NormalizerStep {
 public:
  explicit FormStep(UnicodeForm form) : form_(form) {}
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    text.text = ToUnicodeForm(text.text, form_);
    return absl::OkStatus();
  }

 private:
  const UnicodeForm form_;
};

class LowercaseStep : public NormalizerStep {
 public:
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    text.text = ToLowercase(text.text);
    return absl::OkStatus();
  }
};

class StripStep : public NormalizerStep {
 public:
  StripStep(bool left, bool right) : left_(left), right_(right) {}
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    const absl::string_view whole = text.text;
    size_t begin = 0;
    size_t end = whole.size();
    while (left_ && begin < end && IsWhiteSpace(CodeAt(whole, begin))) {
      begin += Utf8Length(whole[begin]);
    }
    while (right_ && end > begin && IsWhiteSpace(CodeAt(whole, PreviousPosition(whole, end)))) {
      end = PreviousPosition(whole, end);
    }
    text.beginning_removed |= begin > 0;
    text.text = text.text.substr(begin, end - begin);
    return absl::OkStatus();
  }

 private:
  const bool left_;
  const bool right_;
};

class StripAccentsStep : public NormalizerStep {
 public:
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    std::string kept;
    for (size_t position = 0; position < text.text.size();) {
      const size_t length = Utf8Length(text.text[position]);
      if (IsMark(CodeAt(text.text, position))) {
        text.beginning_removed |= position == 0;
      } else {
        kept.append(text.text, position, length);
      }
      position += length;
    }
    text.text = std::move(kept);
    return absl::OkStatus();
  }
};

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    if (!text.text.empty()) {
      text.text.insert(0, prefix_);
    }
    return absl::OkStatus();
  }

 private:
  const std::string prefix_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(TextPattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::Status Apply(NormalizedText& text, RegexScratch& scratch) const override {
    std::vector<TextPart> parts;
    const Span whole = {.begin = 0, .end = text.text.size()};
    if (absl::Status status = pattern_.FindParts(text.text, whole, scratch, parts); !status.ok()) {
      return status;
    }
    std::string result;
    for (const TextPart& part : parts) {
      const absl::string_view piece = part.is_match ? content_ : part.span.Of(text.text);
      result.append(piece.data(), piece.size());
      text.beginning_removed |=
          part.is_match && part.span.begin == 0 && part.span.end > 0 && content_.empty();
      if (absl::Status status = CheckLength(result.size()); !status.ok()) {
        return status;
      }
    }
    text.text = std::move(result);
    return absl::OkStatus();
  }

 private:
  const TextPattern pattern_;
  const std::string content_;
};

class ByteLevelStep : public NormalizerStep {
 public:
  absl::Status Apply(NormalizedText& text, RegexScratch&) const override {
    std::string mapped;
    AppendByteLevel(text.text, mapped);
    text.text = std::move(mapped);
    return absl::OkStatus();
  }
};

absl::StatusOr<StepPointer> ParseStrip(const JsonTree& component) {
  const auto left = component.BoolMember("strip_left");
  const auto right = component.BoolMember("strip_right");
  if (!left.ok() || !right.ok()) {
    return left.ok() ? right.status() : left.status();
  }
  return std::make_unique<StripStep>(*left, *right);
}

absl::StatusOr<StepPointer> ParsePrepend(const JsonTree& component) {
  auto prefix = component.StringMember("prepend");
  if (!prefix.ok()) {
    return prefix.status();
  }
  return std::make_unique<PrependStep>(*std::move(prefix));
}

absl::StatusOr<StepPointer> ParseReplace(const JsonTree& component) {
  auto pattern = PatternMember(component);
  auto content = component.StringMember("content");
  if (!pattern.ok() || !content.ok()) {
    return pattern.ok() ? content.status() : pattern.status();
  }
  return std::make_unique<ReplaceStep>(*std::move(pattern), *std::move(content));
}

absl::StatusOr<StepPointer> ParseStep(absl::string_view type, const JsonTree& component) {
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    return std::make_unique<FormStep>(
        UnicodeForm{.compatible = type.size() == 4, .composed = type.back() == 'C'});
  }
  if (type == "Lowercase") {
    return std::make_unique<LowercaseStep>();
  }
  if (type == "Strip") {
    return ParseStrip(component);
  }
  if (type == "StripAccents") {
    return std::make_unique<StripAccentsStep>();
  }
  if (type == "Prepend") {
    return ParsePrepend(component);
  }
  if (type == "Replace") {
    return ParseReplace(component);
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevelStep>();
  }
  return UnknownComponent();
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Parse(const JsonTree& tree) {
  Normalizer normalizer;
  absl::Status status =
      ForEachComponent(tree, "normalizers", [&](absl::string_view type, const JsonTree& component) {
        auto step = ParseStep(type, component);
        if (!step.ok()) {
          return step.status();
        }
        normalizer.steps_.push_back(*std::move(step));
        return absl::OkStatus();
      });
  if (!status.ok()) {
    return status;
  }
  return normalizer;
}

absl::StatusOr<NormalizedText> Normalizer::Apply(absl::string_view text,
                                                 RegexScratch& scratch) const {
  NormalizedText normalized{.text = std::string(text)};
  for (const StepPointer& step : steps_) {
    scratch.Refill(normalized.text.size());
    absl::Status status = step->Apply(normalized, scratch);
    if (status.ok()) {
      status = CheckLength(normalized.text.size());
    }
    if (!status.ok()) {
      return status;
    }
  }
  return normalized;
}

}  // namespace nibble
