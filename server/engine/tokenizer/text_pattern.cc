#include "server/engine/tokenizer/text_pattern.h"

#include <utility>

#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

// Collects the parts of text.substr(span).
class PartList {
 public:
  PartList(Span span, std::vector<TextPart>& parts)
      : span_(span), parts_(parts), end_(span.begin) {}

  void AddMatch(size_t begin, size_t end) {
    FillTo(begin);
    parts_.push_back({.span = {begin, end}, .is_match = true});
    end_ = end;
  }

  void Finish() { FillTo(span_.end); }

 private:
  void FillTo(size_t begin) {
    if (end_ < begin) {
      parts_.push_back({.span = {end_, begin}});
    }
  }

  const Span span_;
  std::vector<TextPart>& parts_;
  size_t end_;  // Of the last match.
};

// Pieces grow at their ends: `joins` says whether a part belongs to the piece before it.
void AppendPieces(const std::vector<TextPart>& parts,
                  absl::FunctionRef<bool(bool previous, bool current)> joins,
                  std::vector<Span>& pieces) {
  bool previous = false;
  bool open = false;
  Span piece;
  const auto close = [&] {
    if (open && piece.begin < piece.end) {
      pieces.push_back(piece);
    }
  };
  for (const TextPart& part : parts) {
    if (open && joins(previous, part.is_match)) {
      piece.end = part.span.end;
    } else {
      close();
      piece = part.span;
      open = true;
    }
    previous = part.is_match;
  }
  close();
}

}  // namespace

absl::StatusOr<TextPattern> TextPattern::FromString(absl::string_view literal) {
  if (literal.empty()) {
    return FromRegex("");  // Matches between any two characters.
  }
  TextPattern pattern;
  pattern.literal_ = std::string(literal);
  return pattern;
}

absl::StatusOr<TextPattern> TextPattern::FromRegex(absl::string_view expression) {
  auto regex = Regex::Compile(expression);
  if (!regex.ok()) {
    return regex.status();
  }
  TextPattern pattern;
  pattern.regex_ = *std::move(regex);
  return pattern;
}

absl::Status TextPattern::FindParts(absl::string_view text, Span span, RegexScratch& scratch,
                                    std::vector<TextPart>& parts) const {
  const absl::string_view subject = span.Of(text);
  PartList list(span, parts);
  if (!literal_.empty()) {
    for (size_t found = subject.find(literal_); found != subject.npos;
         found = subject.find(literal_, found + literal_.size())) {
      list.AddMatch(span.begin + found, span.begin + found + literal_.size());
    }
    list.Finish();
    return absl::OkStatus();
  }
  size_t position = 0;
  std::optional<size_t> last_end;
  while (position <= subject.size()) {
    Span match;
    const auto found = scratch.Find(*regex_, subject, position, match);
    if (!found.ok()) {
      return found.status();
    }
    if (!*found) {
      break;
    }
    if (match.begin == match.end && match.end == last_end) {
      // An empty match right behind another: look on behind the next character.
      position += position < subject.size() ? Utf8Length(subject[position]) : 1;
      continue;
    }
    list.AddMatch(span.begin + match.begin, span.begin + match.end);
    position = match.end;
    last_end = match.end;
  }
  list.Finish();
  return absl::OkStatus();
}

void FindCharacterParts(absl::string_view text, Span span,
                        absl::FunctionRef<bool(uint32_t code)> matches,
                        std::vector<TextPart>& parts) {
  PartList list(span, parts);
  for (size_t position = span.begin; position < span.end;) {
    const size_t next = position + Utf8Length(text[position]);
    if (matches(CodeAt(text, position))) {
      list.AddMatch(position, next);
    }
    position = next;
  }
  list.Finish();
}

void SplitParts(const std::vector<TextPart>& parts, SplitBehavior behavior,
                std::vector<Span>& pieces) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const TextPart& part : parts) {
        if (!part.is_match && part.span.begin < part.span.end) {
          pieces.push_back(part.span);
        }
      }
      return;
    case SplitBehavior::kIsolated:
      return AppendPieces(
          parts, [](bool, bool) { return false; }, pieces);
    case SplitBehavior::kMergedWithPrevious:
      return AppendPieces(
          parts, [](bool previous, bool current) { return current && !previous; }, pieces);
    case SplitBehavior::kMergedWithNext:
      // The mirror image: a match takes in what follows it, unless that is a match.
      return AppendPieces(
          parts, [](bool previous, bool current) { return previous && !current; }, pieces);
    case SplitBehavior::kContiguous:
      return AppendPieces(
          parts, [](bool previous, bool current) { return previous == current; }, pieces);
  }
}

}  // namespace nibble
