// Values as Python's json.dumps() writes them, which the prompts of tool calls are made of: models
// were trained on its very spaces.

#pragma once

#include <string>

#include "server/engine/chat/value.h"

namespace nibble::jinja {

struct JsonStyle {
  // Of a level; none: all on one line.
  const std::string* indent = nullptr;
  std::string item_separator = ", ";  // "," where there is an indent.
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ascii_only = false;
};

// Errors: in the run for what JSON has no form of (undefined values, functions), for keys that are
//   neither strings, numbers nor None, and if it becomes too long.
std::string ToJson(Run& run, const Value& value, const JsonStyle& style);

}  // namespace nibble::jinja
