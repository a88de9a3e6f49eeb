// The arguments of a call, and how a function of ours takes them.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments of one call in the order of a function's parameters. Accessors give `otherwise`
// where an argument was not given, and fail the run where it is of another type.
class BoundArguments {
 public:
  // Errors: in the run, if there are too many, one has an unknown name or comes twice, or one of
  //   the first `required` is missing.
  BoundArguments(Run& run, absl::string_view function, const Arguments& arguments,
                 std::initializer_list<absl::string_view> parameters, size_t required = 0);

  // Null if it was not given.
  const Value* Get(size_t index) const { return values_[index]; }
  // Null if it was not given or is None.
  const Value* GetSome(size_t index) const;

  // An undefined value if it was not given.
  Value Any(size_t index) const { return values_[index] == nullptr ? Value() : *values_[index]; }
  bool Truth(size_t index, bool otherwise) const;
  int64_t Integer(size_t index, int64_t otherwise);
  std::string Text(size_t index, absl::string_view otherwise);

 private:
  Run& run_;
  std::string function_;
  std::vector<const Value*> values_;
};

}  // namespace nibble::jinja
