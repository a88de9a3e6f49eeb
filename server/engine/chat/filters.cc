#include "server/engine/chat/filters.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace nibble::jinja {

FilterFunction FindFilter(absl::string_view name) {
  for (const auto find : {FindTextFilter, FindSequenceFilter, FindSelectionFilter, FindOrderFilter,
                          FindNumberFilter}) {
    if (const FilterFunction filter = find(name); filter != nullptr) {
      return filter;
    }
  }
  return nullptr;
}

Value FollowPath(Interpreter& interpreter, const Value& item, const Value* path,
                 const Value* otherwise) {
  if (path == nullptr || path->is_none()) {
    return item;
  }
  Run& run = interpreter.run();
  Value value = item;
  const auto go = [&](const Value& part) {
    value = interpreter.GetItem(value, part);
    if (otherwise != nullptr && value.is_undefined()) {
      value = *otherwise;
    }
  };
  if (path->text() == nullptr) {
    go(*path);
    return value;
  }
  for (const absl::string_view part : absl::StrSplit(path->text()->bytes, '.')) {
    if (!run.Step()) {
      return Value();
    }
    int64_t index = 0;
    const bool is_number = std::all_of(part.begin(), part.end(), absl::ascii_isdigit) &&
                           absl::SimpleAtoi(part, &index);
    go(is_number ? Value(index) : MakeText(&run, std::string(part)));
  }
  return value;
}

}  // namespace nibble::jinja
