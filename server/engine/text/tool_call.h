// Calls of tools as models write them.

#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/string_view.h"
#include "server/engine/chat/chat_template.h"

namespace nibble {

struct ToolCall {
  std::string name;
  std::string arguments;  // A JSON object, as the model wrote it.
};

// Of each tool the parameters that are no text: numbers, lists and the like.
using JsonParameters = std::map<std::string, std::set<std::string, std::less<>>, std::less<>>;

// Of tools in OpenAI's form; what is not of that form has none.
JsonParameters FindJsonParameters(const TemplateJson& tools);

// {"name": "f", "arguments": {...}}, as Hermes and Qwen write it, or with "parameters", as Llama 3
// does. Other members ("type", "id") are passed over. Arguments may also be JSON in a string.
//
// Returns: nothing unless `json` is one object with a name and arguments; arguments may be missing
//   only where `may_lack_arguments`.
std::optional<ToolCall> ReadJsonCall(absl::string_view json, bool may_lack_arguments);

// <function=f><parameter=a>text</parameter>...</function>, as Qwen3-Coder and Qwen3.5 write it; a
// line break after an opening and before a closing tag is not part of a value. Values are text,
// those of `json_parameters` JSON if they are JSON.
//
// Returns: nothing if `text` is anything else.
std::optional<ToolCall> ReadTaggedCall(absl::string_view text,
                                       const JsonParameters& json_parameters);

}  // namespace nibble
