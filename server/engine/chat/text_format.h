// Python's two ways of formatting: "%s has %d" and "{} has {:>5}".

#pragma once

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/arguments.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// `format % value`: a tuple's items in their order, a dict's by name, anything else alone.
//
// Errors: in the run, as Python has them.
Value FormatPercent(Run& run, absl::string_view format, const Value& value);

// How fields such as {0.name[key]} look into a value.
using Lookup = absl::FunctionRef<Value(const Value& value, const Value& name, bool is_attribute)>;

// format.format(arguments). Fields within a field's specification are not supported.
//
// Errors: in the run.
Value FormatBraces(Run& run, absl::string_view format, const Arguments& arguments, Lookup lookup);

// How one value is laid out.
struct FieldStyle {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '='; 0: as the type has it.
  char sign = '-';
  bool alternate = false;
  bool thousands = false;
  int64_t width = 0;
  int64_t precision = -1;  // None.
  char type = 0;
};

// A number in this style, without its padding; sign included.
//
// Errors: in the run, if the type is none of the value's.
std::string NumberInStyle(Run& run, const Value& value, const FieldStyle& style);

// `text` filled up to the style's width; a sign stays in front of zeros.
std::string Padded(Run& run, std::string text, const FieldStyle& style, char default_align);

}  // namespace nibble::jinja
