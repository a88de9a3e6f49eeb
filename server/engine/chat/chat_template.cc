#include "server/engine/chat/chat_template.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/interpreter.h"
#include "server/engine/chat/json_value.h"
#include "server/engine/chat/parser.h"

namespace nibble {

struct ChatTemplate::Tree {
  jinja::Body body;
  std::string source;
};

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(absl::string_view source) {
  absl::StatusOr<jinja::Body> body = jinja::ParseTemplate(source);
  if (!body.ok()) {
    return body.status();
  }
  return ChatTemplate(std::shared_ptr<const Tree>(new Tree{*std::move(body), std::string(source)}));
}

absl::StatusOr<std::string> ChatTemplate::Render(const TemplateJson& variables,
                                                 const RenderOptions& options) const {
  if (!variables.is_object()) {
    return absl::InvalidArgumentError("chat template: its variables are not an object");
  }
  jinja::Run run;
  const jinja::Clock clock = {options.now, options.zone};
  std::string prompt;
  {
    jinja::Interpreter interpreter(run, clock);
    std::vector<std::pair<absl::string_view, jinja::Value>> values;
    for (const auto& [name, json] : variables.items()) {
      values.emplace_back(name, jinja::ValueFromJson(run, json));
    }
    if (!run.failed()) {
      prompt = interpreter.Render(tree_->body, std::move(values));
    }
  }
  if (run.failed()) {
    return run.status();
  }
  return prompt;
}

const std::string& ChatTemplate::source() const { return tree_->source; }

}  // namespace nibble
