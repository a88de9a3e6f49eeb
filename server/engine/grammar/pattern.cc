#include "server/engine/grammar/pattern.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_limits.h"
#include "server/engine/grammar/pattern_reader.h"

namespace nibble {
namespace {

Pattern Characters(CharacterClass characters) {
  return {.kind = Pattern::Kind::kCharacters, .characters = std::move(characters), .parts = {}};
}

Pattern Repeat(Pattern part, int64_t least, int64_t most) {
  Pattern repeat{
      .kind = Pattern::Kind::kRepeat, .characters = {}, .parts = {}, .least = least, .most = most};
  repeat.parts.push_back(std::move(part));
  return repeat;
}

Pattern AnyText() { return Repeat(Characters({{0, kCodePointMax}}), 0, Pattern::kEndless); }

class PatternParser {
 public:
  explicit PatternParser(absl::string_view text) : reader_(text) {}

  absl::StatusOr<Pattern> Parse() {
    Pattern pattern = ReadChoice(0);
    if (!reader_.at_end()) {
      reader_.Invalid(") without (");
    }
    if (!reader_.status().ok()) {
      return reader_.status();
    }
    return pattern;
  }

 private:
  Pattern ReadChoice(int depth) {
    Pattern choice{.kind = Pattern::Kind::kChoice, .characters = {}, .parts = {}};
    do {
      choice.parts.push_back(ReadSequence(depth));
    } while (reader_.Consume("|"));
    return choice;
  }

  // Up to '|', ')' or the end. Outside of groups ^ and $ say where the text may not go on.
  Pattern ReadSequence(int depth) {
    Pattern sequence;
    if (depth == 0 && !reader_.Consume("^")) {
      sequence.parts.push_back(AnyText());
    }
    while (!reader_.at_end() && reader_.Peek() != '|' && reader_.Peek() != ')') {
      if (depth == 0 && reader_.Peek() == '$' && (reader_.Peek(1) == '|' || IsLast())) {
        reader_.Next();
        return sequence;
      }
      sequence.parts.push_back(ReadRepeated(depth));
    }
    if (depth == 0) {
      sequence.parts.push_back(AnyText());
    }
    return sequence;
  }

  bool IsLast() const { return reader_.Peek(1) == 0; }

  Pattern ReadRepeated(int depth) {
    Pattern atom = ReadAtom(depth);
    int64_t least = 0;
    int64_t most = Pattern::kEndless;
    if (reader_.Consume("*")) {
    } else if (reader_.Consume("+")) {
      least = 1;
    } else if (reader_.Consume("?")) {
      most = 1;
    } else if (reader_.Consume("{")) {
      const std::optional<int64_t> count = reader_.ReadCount();
      least = count.value_or(0);
      most = least;
      if (reader_.Consume(",")) {
        most = reader_.ReadCount().value_or(Pattern::kEndless);
      }
      if (!count.has_value() || !reader_.Consume("}") ||
          (most != Pattern::kEndless && most < least)) {
        reader_.Invalid("expected {m}, {m,} or {m,n} behind what is repeated");
      }
    } else {
      return atom;
    }
    reader_.Consume("?");  // A lazy repetition matches the same texts.
    return Repeat(std::move(atom), least, most);
  }

  Pattern ReadAtom(int depth) {
    const uint32_t code = reader_.Next();
    switch (code) {
      case '(':
        return ReadGroup(depth);
      case '[':
        return Characters(reader_.ReadClass());
      case '.':
        return Characters(AnyButLineEnds());
      case '\\':
        return Characters(reader_.ReadEscape(false));
      case '^':
      case '$':
        reader_.Unsupported("^ or $ within");
        return {};
      case '*':
      case '+':
      case '?':
      case '{':
        reader_.Invalid("nothing to repeat");
        return {};
      default:
        return Characters({{code, code}});
    }
  }

  Pattern ReadGroup(int depth) {
    if (depth >= kPatternDepthMax) {
      reader_.Invalid(absl::StrCat("expected at most ", kPatternDepthMax, " groups in groups"));
      return {};
    }
    if (reader_.Peek() == '?' && !reader_.Consume("?:")) {
      reader_.Unsupported("a group that begins with (? but not with (?:");
      return {};
    }
    Pattern group = ReadChoice(depth + 1);
    if (!reader_.Consume(")")) {
      reader_.Invalid("( without )");
    }
    return group;
  }

  PatternReader reader_;
};

GrammarNode AddEmptyNode(GrammarBuilder& builder, GrammarNode from) {
  const GrammarNode to = builder.AddNode();
  builder.AddEmpty(from, to);
  return to;
}

GrammarNode AddRepeat(GrammarBuilder& builder, GrammarNode from, const Pattern& repeat) {
  const Pattern& part = repeat.parts.front();
  const GrammarNode to = builder.AddNode();
  int64_t count = 0;
  for (; count < repeat.least && builder.ok(); ++count) {
    from = AddPattern(builder, from, part);
  }
  for (; count < repeat.most && builder.ok(); ++count) {
    builder.AddEmpty(from, to);
    from = AddPattern(builder, from, part);
  }
  if (repeat.most == Pattern::kEndless) {
    // A node of its own: `from` may have other ways back to it.
    const GrammarNode again = AddEmptyNode(builder, from);
    builder.AddEmpty(AddPattern(builder, again, part), again);
    from = again;
  }
  builder.AddEmpty(from, to);
  return to;
}

}  // namespace

absl::StatusOr<Pattern> ReadPattern(absl::string_view text) {
  if (std::ssize(text) > kPatternBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("pattern: expected at most ", kPatternBytesMax,
                                                   " bytes, found ", text.size()));
  }
  return PatternParser(text).Parse();
}

GrammarNode AddPattern(GrammarBuilder& builder, GrammarNode from, const Pattern& pattern) {
  switch (pattern.kind) {
    case Pattern::Kind::kCharacters:
      return AddCharacter(builder, from, pattern.characters);
    case Pattern::Kind::kRepeat:
      return AddRepeat(builder, from, pattern);
    case Pattern::Kind::kSequence:
      // A node of its own, so that repeating nothing still counts against the limit of nodes.
      from = AddEmptyNode(builder, from);
      for (const Pattern& part : pattern.parts) {
        from = AddPattern(builder, from, part);
      }
      return from;
    case Pattern::Kind::kChoice:
      break;
  }
  const GrammarNode to = builder.AddNode();
  for (const Pattern& part : pattern.parts) {
    builder.AddEmpty(AddPattern(builder, from, part), to);
  }
  return to;
}

}  // namespace nibble
