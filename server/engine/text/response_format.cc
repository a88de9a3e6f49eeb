#include "server/engine/text/response_format.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/grammar/grammar_constraint.h"
#include "server/engine/grammar/json_schema.h"

namespace nibble {
namespace {

constexpr absl::string_view kAnyObject = R"({"type":"object"})";

// As templates write it between reasoning and answer.
constexpr absl::string_view kAfterReasoning = "\n\n";

absl::StatusOr<ConstraintMaker> MakeMaker(std::vector<FramedSchema> alternatives,
                                          const AnswerFormat& format, const ModelText& text,
                                          int64_t vocabulary_size) {
  absl::string_view free_until;
  if (format.begins_in_reasoning) {
    free_until = kReasoningEnd;
    for (FramedSchema& one : alternatives) {
      one.before = absl::StrCat(kAfterReasoning, one.before);
    }
  }
  absl::StatusOr<std::shared_ptr<const Grammar>> grammar =
      CompileFramedSchemas(free_until, alternatives);
  if (!grammar.ok()) {
    return grammar.status();
  }
  absl::StatusOr<std::shared_ptr<const TokenVocabulary>> vocabulary =
      text.Vocabulary(vocabulary_size);
  if (!vocabulary.ok()) {
    return vocabulary.status();
  }
  return [grammar = *std::move(grammar), vocabulary = *std::move(vocabulary)] {
    return absl::StatusOr<std::unique_ptr<TokenConstraint>>(MakeConstraint(grammar, vocabulary));
  };
}

std::string Dump(const TemplateJson& json) {
  return json.dump(-1, ' ', false, TemplateJson::error_handler_t::replace);
}

// Arguments are an object, also where the parameters do not say so.
std::string ArgumentsSchema(const TemplateJson& function) {
  const auto parameters = function.find("parameters");
  if (parameters == function.end() || !parameters->is_object()) {
    return R"({"type":"object","properties":{},"additionalProperties":false})";
  }
  return parameters->empty() ? std::string(kAnyObject) : Dump(*parameters);
}

}  // namespace

absl::StatusOr<ConstraintMaker> MakeJsonFormat(const std::optional<std::string>& schema,
                                               const AnswerFormat& format, const ModelText& text,
                                               int64_t vocabulary_size) {
  return MakeMaker({{"", schema.value_or(std::string(kAnyObject)), "", ""}}, format, text,
                   vocabulary_size);
}

absl::StatusOr<ConstraintMaker> MakeCallFormat(const TemplateJson& tools,
                                               const AnswerFormat& format, const ModelText& text,
                                               int64_t vocabulary_size) {
  const bool is_bare = format.calls == CallForm::kBare;
  if (!is_bare && format.calls != CallForm::kJson) {
    return absl::UnimplementedError("the model's chat template has no form of calls to hold it to");
  }
  std::vector<FramedSchema> alternatives;
  for (const TemplateJson& tool : tools) {
    const TemplateJson& function = tool["function"];
    const std::string call = absl::StrCat("{\"name\": ", Dump(function["name"]), ", \"",
                                          is_bare ? "parameters" : "arguments", "\": ");
    alternatives.push_back({is_bare ? call : absl::StrCat(kCallBegin, "\n", call),
                            ArgumentsSchema(function),
                            is_bare ? "}" : absl::StrCat("}\n", kCallEnd),
                            absl::StrCat(Dump(function["name"]), ": ")});
  }
  return MakeMaker(std::move(alternatives), format, text, vocabulary_size);
}

}  // namespace nibble
