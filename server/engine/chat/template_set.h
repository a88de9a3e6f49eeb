// The chat templates that come with a model, and the tokens that they print.

#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"

namespace nibble {

// What a checkpoint says of its templates, as bytes of its files. Empty where there is no such
// file.
struct TemplateFiles {
  absl::string_view tokenizer_config = {};  // tokenizer_config.json
  absl::string_view chat_template = {};     // chat_template.jinja
  // additional_chat_templates/NAME.jinja: names and bytes.
  std::vector<std::pair<std::string, absl::string_view>> additional = {};
};

// Immutable. Thread-safe.
class TemplateSet {
 public:
  // Reads the files of a checkpoint. A file goes before the member `chat_template` of
  // tokenizer_config.json, which is a string or a list of {name, template}; one that has no name is
  // "default".
  //
  // Errors: DATA_LOSS if tokenizer_config.json is not what transformers writes; those of
  //   ChatTemplate::Parse, with the template's name.
  static absl::StatusOr<TemplateSet> Parse(const TemplateFiles& files);

  // The template for a request: "tool_use" if it has tools and there is one, else "default", or the
  // only one there is. Null if there is none.
  const ChatTemplate* Find(bool has_tools) const;
  // By its name; null if there is none.
  const ChatTemplate* FindByName(absl::string_view name) const;

  // bos_token, eos_token and so on, each a string: variables for ChatTemplate::Render, which the
  // request's own go before.
  const TemplateJson& special_tokens() const { return special_tokens_; }

 private:
  std::map<std::string, ChatTemplate, std::less<>> templates_;
  TemplateJson special_tokens_ = TemplateJson::object();
};

}  // namespace nibble
