#include "server/engine/tokenizer/pre_tokenizer.h"

#include <utility>

#include "server/engine/tokenizer/component_file.h"
#include "server/engine/tokenizer/pre_tokenizer_steps.h"

namespace nibble {
namespace {

absl::StatusOr<PreTokenizerPointer> ParseStep(absl::string_view type, const JsonTree& component) {
  using Parse = absl::StatusOr<PreTokenizerPointer> (*)(const JsonTree&);
  constexpr struct {
    absl::string_view type;
    Parse parse;
  } kTypes[] = {
      {"ByteLevel", ParseByteLevelStep},     {"Split", ParseSplitStep},
      {"Digits", ParseDigitsStep},           {"Punctuation", ParsePunctuationStep},
      {"Metaspace", ParseMetaspaceStep},     {"CharDelimiterSplit", ParseCharDelimiterStep},
      {"FixedLength", ParseFixedLengthStep},
  };
  for (const auto& known : kTypes) {
    if (known.type == type) {
      return known.parse(component);
    }
  }
  if (type == "Whitespace") {
    return MakeWhitespaceStep();
  }
  if (type == "WhitespaceSplit") {
    return MakeWhitespaceSplitStep();
  }
  if (type == "BertPreTokenizer") {
    return MakeBertStep();
  }
  return UnknownComponent();
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Parse(const JsonTree& tree) {
  PreTokenizer pre_tokenizer;
  absl::Status status = ForEachComponent(tree, "pretokenizers",
                                         [&](absl::string_view type, const JsonTree& component) {
                                           auto step = ParseStep(type, component);
                                           if (!step.ok()) {
                                             return step.status();
                                           }
                                           pre_tokenizer.steps_.push_back(*std::move(step));
                                           return absl::OkStatus();
                                         });
  if (!status.ok()) {
    return status;
  }
  return pre_tokenizer;
}

absl::StatusOr<PreTokenizedText> PreTokenizer::Apply(std::string text, bool begins_input,
                                                     RegexScratch& scratch) const {
  PreTokenizedText result{.text = std::move(text), .begins_input = begins_input};
  if (!result.text.empty()) {
    result.pieces.push_back({.begin = 0, .end = result.text.size()});
  }
  for (const PreTokenizerPointer& step : steps_) {
    scratch.Refill(result.text.size());
    if (absl::Status status = step->Apply(result, scratch); !status.ok()) {
      return status;
    }
  }
  return result;
}

absl::Status SplitPieces(
    PreTokenizedText& text, SplitBehavior behavior,
    absl::FunctionRef<absl::Status(Span piece, std::vector<TextPart>& parts)> find_parts) {
  std::vector<Span> pieces;
  std::vector<TextPart> parts;
  for (const Span piece : text.pieces) {
    parts.clear();
    if (absl::Status status = find_parts(piece, parts); !status.ok()) {
      return status;
    }
    SplitParts(parts, behavior, pieces);
  }
  text.begins_input =
      text.begins_input && !pieces.empty() && pieces.front().begin == text.pieces.front().begin;
  text.pieces = std::move(pieces);
  return absl::OkStatus();
}

void RewritePieces(
    PreTokenizedText& text,
    absl::FunctionRef<void(size_t piece_index, absl::string_view piece, std::string& rewritten)>
        rewrite) {
  std::string rewritten;
  rewritten.reserve(text.text.size());
  for (size_t i = 0; i < text.pieces.size(); ++i) {
    Span& piece = text.pieces[i];
    const size_t begin = rewritten.size();
    rewrite(i, piece.Of(text.text), rewritten);
    piece = {.begin = begin, .end = rewritten.size()};
  }
  text.text = std::move(rewritten);
}

}  // namespace nibble
