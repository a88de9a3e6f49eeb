#include "server/engine/tokenizer/component_file.h"

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/regex_syntax.h"
#include "server/engine/tokenizer/tokenizer_limits.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

using ParseComponent =
    absl::FunctionRef<absl::Status(absl::string_view type, const JsonTree& component)>;

absl::Status Visit(const JsonTree& tree, absl::string_view members, ParseComponent parse,
                   size_t& count) {
  if (tree.is_null()) {
    return absl::OkStatus();
  }
  const auto type = tree.StringMember("type");
  if (!type.ok()) {
    return type.status();
  }
  if (++count > kComponentsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", kComponentsMax, " ", members));
  }
  if (*type == "Sequence") {
    const auto list = tree.ArrayMember(members);
    if (!list.ok()) {
      return list.status();
    }
    for (const JsonTree& component : (*list)->elements) {
      if (absl::Status status = Visit(component, members, parse, count); !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  absl::Status status = parse(*type, tree);
  return absl::Status(status.code(),
                      absl::StrCat("type ", Printable(*type), ": ", status.message()));
}

}  // namespace

absl::Status ForEachComponent(const JsonTree& tree, absl::string_view members,
                              ParseComponent parse) {
  size_t count = 0;
  return Visit(tree, members, parse, count);
}

absl::Status UnknownComponent() { return absl::UnimplementedError("not supported"); }

absl::StatusOr<TextPattern> PatternMember(const JsonTree& component) {
  const JsonTree* const pattern = component.Find("pattern");
  if (pattern != nullptr && pattern->members.size() == 1) {
    const auto& [kind, text] = pattern->members.front();
    if (text.string.size() > kRegexBytesMax) {
      return absl::ResourceExhaustedError(absl::StrCat("pattern: expected at most ", kRegexBytesMax,
                                                       " bytes, found ", text.string.size()));
    }
    if (kind == "String" && text.kind == JsonReader::Kind::kString) {
      return TextPattern::FromString(text.string);
    }
    if (kind == "Regex" && text.kind == JsonReader::Kind::kString) {
      return TextPattern::FromRegex(text.string);
    }
  }
  return absl::DataLossError("pattern: expected {\"String\": ..} or {\"Regex\": ..}");
}

absl::StatusOr<std::string> CharacterMember(const JsonTree& component, absl::string_view name) {
  auto text = component.StringMember(name);
  if (text.ok() && (text->empty() || text->size() != Utf8Length(text->front()))) {
    return absl::DataLossError(
        absl::StrCat(name, ": expected one character, found ", Printable(*text)));
  }
  return text;
}

absl::StatusOr<SplitBehavior> BehaviorMember(const JsonTree& component) {
  const auto name = component.StringMember("behavior");
  if (!name.ok()) {
    return name.status();
  }
  constexpr struct {
    absl::string_view name;
    SplitBehavior behavior;
  } kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  };
  for (const auto& known : kBehaviors) {
    if (known.name == *name) {
      return known.behavior;
    }
  }
  return absl::UnimplementedError(absl::StrCat("the behavior ", Printable(*name)));
}

absl::StatusOr<SplitBehavior> BehaviorMember(const JsonTree& component, SplitBehavior fallback) {
  return component.Find("behavior") == nullptr ? fallback : BehaviorMember(component);
}

}  // namespace nibble
