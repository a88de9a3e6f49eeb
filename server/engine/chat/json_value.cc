#include "server/engine/chat/json_value.h"

#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble::jinja {
namespace {

using Json = nlohmann::ordered_json;

Value TextFrom(Run& run, const std::string& text) {
  if (!IsUtf8(text)) {
    run.FailWith(absl::InvalidArgumentError("chat template: a variable holds what is not UTF-8"));
    return Value();
  }
  return MakeText(&run, text);
}

Value Convert(Run& run, const Json& json, int depth);

Value ListFrom(Run& run, const Json& json, int depth) {
  std::vector<Value> items;
  for (const Json& item : json) {
    if (run.failed()) {
      return Value();
    }
    items.push_back(Convert(run, item, depth + 1));
  }
  return MakeSequence(&run, Flavor::kList, std::move(items));
}

Value MapFrom(Run& run, const Json& json, int depth) {
  Pairs entries;
  for (const auto& [name, item] : json.items()) {
    if (run.failed()) {
      return Value();
    }
    Value key = TextFrom(run, name);
    entries.emplace_back(std::move(key), Convert(run, item, depth + 1));
  }
  return MakeMapOfDistinctKeys(run, std::move(entries));
}

Value Convert(Run& run, const Json& json, int depth) {
  if (depth > kValueDepthMax) {
    run.FailWith(absl::ResourceExhaustedError(
        absl::StrCat("chat template: a variable is more than ", kValueDepthMax, " levels deep")));
  }
  if (!run.Step()) {
    return Value();
  }
  switch (json.type()) {
    case Json::value_t::null:
      return Value(None());
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
      return Value(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        run.FailWith(absl::InvalidArgumentError(
            "chat template: a variable holds an integer of more than 63 bits"));
        return Value();
      }
      return Value(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string:
      return TextFrom(run, json.get_ref<const std::string&>());
    case Json::value_t::array:
      return ListFrom(run, json, depth);
    case Json::value_t::object:
      return MapFrom(run, json, depth);
    default:
      run.FailWith(absl::InvalidArgumentError("chat template: a variable holds binary data"));
      return Value();
  }
}

}  // namespace

Value ValueFromJson(Run& run, const nlohmann::ordered_json& json) { return Convert(run, json, 1); }

}  // namespace nibble::jinja
