#include "server/engine/chat/arguments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble::jinja {

BoundArguments::BoundArguments(Run& run, absl::string_view function, const Arguments& arguments,
                               std::initializer_list<absl::string_view> parameters, size_t required)
    : run_(run), function_(function), values_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters.size()) {
    run.Fail(absl::StrCat(function, " takes ", parameters.size(), " arguments, found ",
                          arguments.positional.size()));
  }
  for (size_t i = 0; i < std::min(arguments.positional.size(), values_.size()); ++i) {
    values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto* place = std::find(parameters.begin(), parameters.end(), name);
    if (place == parameters.end()) {
      run.Fail(absl::StrCat(function, " has no argument named ", Printable(name)));
      return;
    }
    const Value*& taken = values_[static_cast<size_t>(place - parameters.begin())];
    if (taken != nullptr) {
      run.Fail(absl::StrCat(function, " is given '", name, "' twice"));
    }
    taken = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      run.Fail(absl::StrCat(function, " lacks its argument '", parameters.begin()[i], "'"));
    }
  }
}

const Value* BoundArguments::GetSome(size_t index) const {
  const Value* value = values_[index];
  return value == nullptr || value->is_none() ? nullptr : value;
}

bool BoundArguments::Truth(size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : values_[index]->Truth();
}

int64_t BoundArguments::Integer(size_t index, int64_t otherwise) {
  if (values_[index] == nullptr) {
    return otherwise;
  }
  if (!values_[index]->is_integer()) {
    run_.Fail(
        absl::StrCat(function_, " wants an integer, found a '", values_[index]->TypeName(), "'"));
    return otherwise;
  }
  return values_[index]->integer();
}

std::string BoundArguments::Text(size_t index, absl::string_view otherwise) {
  if (values_[index] == nullptr) {
    return std::string(otherwise);
  }
  if (values_[index]->text() == nullptr) {
    run_.Fail(
        absl::StrCat(function_, " wants a string, found a '", values_[index]->TypeName(), "'"));
    return "";
  }
  return values_[index]->text()->bytes;
}

}  // namespace nibble::jinja
