#include "server/engine/tokenizer/post_processor.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/component_file.h"

namespace nibble {
namespace {

using Template = std::vector<std::optional<uint32_t>>;

// Real templates have one or two pieces; each piece may repeat the text.
constexpr size_t kTemplatePiecesMax = 64;

// The ids of the special token `name` of a TemplateProcessing.
absl::Status AppendSpecialToken(const JsonTree& component, const std::string& name,
                                Template& pieces) {
  const JsonTree* const specials = component.Find("special_tokens");
  const JsonTree* const special = specials == nullptr ? nullptr : specials->Find(name);
  if (special == nullptr) {
    return absl::DataLossError(absl::StrCat("expected ", Printable(name), " in special_tokens"));
  }
  const auto ids = special->ArrayMember("ids");
  if (!ids.ok()) {
    return ids.status();
  }
  for (const JsonTree& id : (*ids)->elements) {
    const auto number = id.ToCount("ids");
    if (!number.ok()) {
      return number.status();
    }
    pieces.emplace_back(*number);
  }
  return absl::OkStatus();
}

absl::Status AppendPiece(const JsonTree& component, const JsonTree& piece, bool& holds_text,
                         Template& pieces) {
  if (piece.members.size() != 1) {
    return absl::DataLossError("single: expected {\"Sequence\": ..} or {\"SpecialToken\": ..}");
  }
  const auto& [kind, value] = piece.members.front();
  const auto name = value.StringMember("id");
  if (!name.ok()) {
    return name.status();
  }
  if (kind == "SpecialToken") {
    return AppendSpecialToken(component, *name, pieces);
  }
  // A text may stand once: its length would multiply otherwise.
  if (kind != "Sequence" || *name != "A" || holds_text) {
    return absl::UnimplementedError(absl::StrCat("the piece ", Printable(kind), " of ",
                                                 Printable(*name), " in a single template"));
  }
  holds_text = true;
  pieces.emplace_back(std::nullopt);
  return absl::OkStatus();
}

absl::StatusOr<Template> ParseTemplate(const JsonTree& component) {
  const auto single = component.ArrayMember("single");
  if (!single.ok()) {
    return single.status();
  }
  Template pieces;
  bool holds_text = false;
  for (const JsonTree& piece : (*single)->elements) {
    absl::Status status = AppendPiece(component, piece, holds_text, pieces);
    if (!status.ok()) {
      return status;
    }
    if (pieces.size() > kTemplatePiecesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("single: expected at most ", kTemplatePiecesMax, " tokens"));
    }
  }
  return pieces;
}

// [CLS] text [SEP], from "cls" and "sep": [text, id].
absl::StatusOr<Template> ParseBert(const JsonTree& component) {
  Template pieces;
  for (const absl::string_view name : {"cls", "sep"}) {
    const auto pair = component.ArrayMember(name);
    if (!pair.ok()) {
      return pair.status();
    }
    if ((*pair)->elements.size() != 2) {
      return absl::DataLossError(absl::StrCat(name, ": expected a token and its id"));
    }
    const auto id = (*pair)->elements[1].ToCount(name);
    if (!id.ok()) {
      return id.status();
    }
    pieces.emplace_back(*id);
  }
  pieces.insert(pieces.begin() + 1, std::nullopt);
  return pieces;
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::Parse(const JsonTree& tree,
                                                   absl::FunctionRef<bool(uint32_t id)> is_token) {
  PostProcessor processor;
  const auto parse = [&](absl::string_view type, const JsonTree& component) -> absl::Status {
    if (type == "ByteLevel") {
      return absl::OkStatus();
    }
    const bool bert = type == "BertProcessing" || type == "RobertaProcessing";
    if (!bert && type != "TemplateProcessing") {
      return UnknownComponent();
    }
    auto pieces = bert ? ParseBert(component) : ParseTemplate(component);
    if (!pieces.ok()) {
      return pieces.status();
    }
    for (const std::optional<uint32_t>& id : *pieces) {
      if (id.has_value() && !is_token(*id)) {
        return absl::DataLossError(absl::StrCat("expected the id of a token, found ", *id));
      }
    }
    processor.templates_.push_back(*std::move(pieces));
    return absl::OkStatus();
  };
  absl::Status status = ForEachComponent(tree, "processors", parse);
  if (!status.ok()) {
    return status;
  }
  return processor;
}

std::vector<uint32_t> PostProcessor::Apply(std::vector<uint32_t> ids,
                                           bool add_special_tokens) const {
  for (const Template& pieces : templates_) {
    std::vector<uint32_t> result;
    result.reserve(ids.size() + pieces.size());
    for (const std::optional<uint32_t>& id : pieces) {
      if (!id.has_value()) {
        result.insert(result.end(), ids.begin(), ids.end());
      } else if (add_special_tokens) {
        result.push_back(*id);
      }
    }
    ids = std::move(result);
  }
  return ids;
}

}  // namespace nibble
