#include "server/engine/tokenizer/pre_tokenizer_steps.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/byte_level.h"
#include "server/engine/tokenizer/component_file.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

using CharacterKind = bool (*)(uint32_t code);

// GPT-2's own expression, which ByteLevel uses unless told otherwise.
constexpr absl::string_view kGpt2Regex =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

absl::Status SplitByPattern(PreTokenizedText& text, const TextPattern& pattern,
                            SplitBehavior behavior, bool invert, RegexScratch& scratch) {
  return SplitPieces(text, behavior, [&](Span piece, std::vector<TextPart>& parts) {
    absl::Status status = pattern.FindParts(text.text, piece, scratch, parts);
    for (TextPart& part : parts) {
      part.is_match = part.is_match != invert;
    }
    return status;
  });
}

absl::Status SplitByKind(PreTokenizedText& text, absl::FunctionRef<bool(uint32_t code)> kind,
                         SplitBehavior behavior) {
  return SplitPieces(text, behavior, [&](Span piece, std::vector<TextPart>& parts) {
    FindCharacterParts(text.text, piece, kind, parts);
    return absl::OkStatus();
  });
}

// Splits by pattern.
class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(TextPattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch& scratch) const override {
    return SplitByPattern(text, pattern_, behavior_, invert_, scratch);
  }

 private:
  const TextPattern pattern_;
  const SplitBehavior behavior_;
  const bool invert_;
};

// Splits at characters of a kind.
class KindStep : public PreTokenizerStep {
 public:
  KindStep(CharacterKind kind, SplitBehavior behavior) : kind_(kind), behavior_(behavior) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    return SplitByKind(text, kind_, behavior_);
  }

 private:
  const CharacterKind kind_;
  const SplitBehavior behavior_;
};

class ByteLevelStep : public PreTokenizerStep {
 public:
  ByteLevelStep(bool add_prefix_space, std::optional<TextPattern> pattern)
      : add_prefix_space_(add_prefix_space), pattern_(std::move(pattern)) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch& scratch) const override {
    if (add_prefix_space_) {
      RewritePieces(text, [](size_t, absl::string_view piece, std::string& rewritten) {
        absl::StrAppend(&rewritten, absl::StartsWith(piece, " ") ? "" : " ", piece);
      });
    }
    if (pattern_.has_value()) {
      scratch.Refill(text.text.size());
      absl::Status status =
          SplitByPattern(text, *pattern_, SplitBehavior::kIsolated, /*invert=*/false, scratch);
      if (!status.ok()) {
        return status;
      }
    }
    RewritePieces(text, [](size_t, absl::string_view piece, std::string& rewritten) {
      AppendByteLevel(piece, rewritten);
    });
    return absl::OkStatus();
  }

 private:
  const bool add_prefix_space_;
  const std::optional<TextPattern> pattern_;
};

enum class PrependScheme { kAlways, kFirst, kNever };

class MetaspaceStep : public PreTokenizerStep {
 public:
  MetaspaceStep(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    RewritePieces(text, [&](size_t index, absl::string_view piece, std::string& rewritten) {
      const bool prepend = scheme_ == PrependScheme::kAlways ||
                           (scheme_ == PrependScheme::kFirst && index == 0 && text.begins_input);
      if (prepend && !absl::StartsWith(piece, " ") && !absl::StartsWith(piece, replacement_)) {
        rewritten += replacement_;
      }
      for (const char c : piece) {
        absl::StrAppend(&rewritten,
                        c == ' ' ? absl::string_view(replacement_) : absl::string_view(&c, 1));
      }
    });
    if (!split_) {
      return absl::OkStatus();
    }
    const uint32_t mark = CodeAt(replacement_, 0);
    return SplitByKind(
        text, [mark](uint32_t code) { return code == mark; }, SplitBehavior::kMergedWithNext);
  }

 private:
  const std::string replacement_;
  const PrependScheme scheme_;
  const bool split_;
};

// Words, and runs of what is neither word nor white space.
class WhitespaceStep : public PreTokenizerStep {
 public:
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    absl::Status status = SplitByKind(text, IsWhiteSpace, SplitBehavior::kRemoved);
    return status.ok() ? SplitByKind(text, IsWordCharacter, SplitBehavior::kContiguous) : status;
  }
};

// Words, and each punctuation mark.
class BertStep : public PreTokenizerStep {
 public:
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    absl::Status status = SplitByKind(text, IsWhiteSpace, SplitBehavior::kRemoved);
    return status.ok() ? SplitByKind(text, IsPunctuation, SplitBehavior::kIsolated) : status;
  }
};

class CharDelimiterStep : public PreTokenizerStep {
 public:
  explicit CharDelimiterStep(uint32_t delimiter) : delimiter_(delimiter) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    return SplitByKind(
        text, [this](uint32_t code) { return code == delimiter_; }, SplitBehavior::kRemoved);
  }

 private:
  const uint32_t delimiter_;
};

class FixedLengthStep : public PreTokenizerStep {
 public:
  explicit FixedLengthStep(uint32_t length) : length_(length) {}
  absl::Status Apply(PreTokenizedText& text, RegexScratch&) const override {
    return SplitPieces(text, SplitBehavior::kIsolated,
                       [&](Span piece, std::vector<TextPart>& parts) {
                         uint32_t count = 0;
                         size_t begin = piece.begin;
                         for (size_t end = piece.begin; end < piece.end;) {
                           end += Utf8Length(text.text[end]);
                           if (++count == length_ || end == piece.end) {
                             parts.push_back({.span = {begin, end}});
                             begin = end;
                             count = 0;
                           }
                         }
                         return absl::OkStatus();
                       });
  }

 private:
  const uint32_t length_;
};

}  // namespace

absl::StatusOr<PreTokenizerPointer> ParseByteLevelStep(const JsonTree& component) {
  const auto add_prefix_space = component.BoolMember("add_prefix_space");
  const auto use_regex = component.BoolMember("use_regex", true);
  if (!add_prefix_space.ok() || !use_regex.ok()) {
    return add_prefix_space.ok() ? use_regex.status() : add_prefix_space.status();
  }
  std::optional<TextPattern> pattern;
  if (*use_regex) {
    auto compiled = TextPattern::FromRegex(kGpt2Regex);
    if (!compiled.ok()) {
      return compiled.status();
    }
    pattern = *std::move(compiled);
  }
  return std::make_unique<ByteLevelStep>(*add_prefix_space, std::move(pattern));
}

absl::StatusOr<PreTokenizerPointer> ParseMetaspaceStep(const JsonTree& component) {
  auto replacement = CharacterMember(component, "replacement");
  const auto scheme = component.StringMember("prepend_scheme", "always");
  const auto split = component.BoolMember("split", true);
  const auto add_prefix_space = component.BoolMember("add_prefix_space", true);
  for (const absl::Status& status :
       {replacement.status(), scheme.status(), split.status(), add_prefix_space.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  if (!*add_prefix_space && *scheme != "never") {
    return absl::DataLossError(
        absl::StrCat("add_prefix_space is false, but prepend_scheme is ", Printable(*scheme)));
  }
  for (const auto& [name, meaning] :
       {std::pair("always", PrependScheme::kAlways), std::pair("first", PrependScheme::kFirst),
        std::pair("never", PrependScheme::kNever)}) {
    if (*scheme == name) {
      return std::make_unique<MetaspaceStep>(*std::move(replacement), meaning, *split);
    }
  }
  return absl::UnimplementedError(absl::StrCat("the prepend_scheme ", Printable(*scheme)));
}

absl::StatusOr<PreTokenizerPointer> ParseSplitStep(const JsonTree& component) {
  auto pattern = PatternMember(component);
  const auto behavior = BehaviorMember(component);
  const auto invert = component.BoolMember("invert");
  for (const absl::Status& status : {pattern.status(), behavior.status(), invert.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  return std::make_unique<SplitStep>(*std::move(pattern), *behavior, *invert);
}

absl::StatusOr<PreTokenizerPointer> ParseDigitsStep(const JsonTree& component) {
  const auto individual = component.BoolMember("individual_digits");
  if (!individual.ok()) {
    return individual.status();
  }
  return std::make_unique<KindStep>(
      IsNumeric, *individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

absl::StatusOr<PreTokenizerPointer> ParsePunctuationStep(const JsonTree& component) {
  const auto behavior = BehaviorMember(component, SplitBehavior::kIsolated);
  if (!behavior.ok()) {
    return behavior.status();
  }
  return std::make_unique<KindStep>(IsPunctuation, *behavior);
}

absl::StatusOr<PreTokenizerPointer> ParseCharDelimiterStep(const JsonTree& component) {
  const auto delimiter = CharacterMember(component, "delimiter");
  if (!delimiter.ok()) {
    return delimiter.status();
  }
  return std::make_unique<CharDelimiterStep>(CodeAt(*delimiter, 0));
}

absl::StatusOr<PreTokenizerPointer> ParseFixedLengthStep(const JsonTree& component) {
  const auto length = component.CountMember("length");
  if (!length.ok() || *length == 0) {
    return length.ok() ? absl::DataLossError("length: expected more than 0") : length.status();
  }
  return std::make_unique<FixedLengthStep>(*length);
}

PreTokenizerPointer MakeWhitespaceStep() { return std::make_unique<WhitespaceStep>(); }
PreTokenizerPointer MakeWhitespaceSplitStep() {
  return std::make_unique<KindStep>(IsWhiteSpace, SplitBehavior::kRemoved);
}
PreTokenizerPointer MakeBertStep() { return std::make_unique<BertStep>(); }

}  // namespace nibble
