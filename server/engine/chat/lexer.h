// Cuts a template into tokens, white space control included: what the parser sees of the text
// between tags is what will be printed.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble::jinja {

struct Token {
  enum class Kind {
    kText,        // Between tags.
    kPrintBegin,  // {{
    kPrintEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd,  // Of the template; always the last.
  };

  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // Of a string: without quotes and escapes.
  int64_t integer = 0;
  double number = 0;
};

// As Jinja does with trim_blocks and lstrip_blocks: the line break behind a block or comment and
// the white space before one on its line belong to it; `-` takes all white space on its side, `+`
// leaves it. Line breaks become "\n", and one at the end of the template is dropped.
//
// Requires: the template is UTF-8.
// Errors: INVALID_ARGUMENT with the line.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace nibble::jinja
