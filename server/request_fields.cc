#include "server/request_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

constexpr size_t kNameBytesShown = 200;  // Of a field that a client made up.

}  // namespace

RequestFields::RequestFields(const TemplateJson& object, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {
  if (!object.is_object()) {
    const std::string name(absl::StripSuffix(prefix_, "."));
    status_ = BadField(name, "expected an object");
  }
}

std::string RequestFields::NameOf(absl::string_view name) const {
  return absl::StrCat(prefix_, name.substr(0, kNameBytesShown));
}

const TemplateJson* RequestFields::Take(absl::string_view name) {
  known_.push_back(name);
  if (!status_.ok()) {
    return nullptr;
  }
  const auto found = object_.find(std::string(name));
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> RequestFields::TakeString(absl::string_view name) {
  const TemplateJson* const value = Take(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    Refuse(name, "expected a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

std::optional<bool> RequestFields::TakeBool(absl::string_view name) {
  const TemplateJson* const value = Take(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    Refuse(name, "expected true or false");
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<float> RequestFields::TakeFloat(absl::string_view name) {
  const TemplateJson* const value = Take(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number() || std::abs(value->get<double>()) > std::numeric_limits<float>::max()) {
    Refuse(name, "expected a number in a float's range");
    return std::nullopt;
  }
  return static_cast<float>(value->get<double>());
}

std::optional<int64_t> RequestFields::TakeInteger(absl::string_view name, int64_t least,
                                                  int64_t most) {
  const TemplateJson* const value = Take(name);
  if (value == nullptr) {
    return std::nullopt;
  }
  const bool is_integer =
      value->is_number_integer() && !(value->is_number_unsigned() &&
                                      value->get<uint64_t>() > std::numeric_limits<int64_t>::max());
  if (!is_integer || value->get<int64_t>() < least || value->get<int64_t>() > most) {
    Refuse(name, absl::StrCat("expected an integer from ", least, " to ", most, ", found ",
                              value->is_number() ? value->dump() : value->type_name()));
    return std::nullopt;
  }
  return value->get<int64_t>();
}

const TemplateJson* RequestFields::TakeObject(absl::string_view name) {
  const TemplateJson* const value = Take(name);
  if (value != nullptr && !value->is_object()) {
    Refuse(name, "expected an object");
    return nullptr;
  }
  return value;
}

const TemplateJson* RequestFields::TakeArray(absl::string_view name) {
  const TemplateJson* const value = Take(name);
  if (value != nullptr && !value->is_array()) {
    Refuse(name, "expected an array");
    return nullptr;
  }
  return value;
}

void RequestFields::Refuse(absl::string_view name, absl::string_view message) {
  status_.Update(BadField(NameOf(name), message));
}

absl::Status RequestFields::Finish() {
  if (!status_.ok()) {
    return status_;
  }
  for (const auto& [name, value] : object_.items()) {
    if (!value.is_null() && std::find(known_.begin(), known_.end(), name) == known_.end()) {
      Refuse(name, "this server does not know or does not honour this field");
      break;
    }
  }
  return status_;
}

}  // namespace nibble
