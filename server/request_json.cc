#include "server/request_json.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "loader/json_reader.h"
#include "loader/printable.h"

namespace nibble {
namespace {

using Kind = JsonReader::Kind;

TemplateJson ReadValue(JsonReader& reader);

// An ordered object looks at every member to insert one; here the names are known to be new, so
// they are appended to the array that it is.
TemplateJson ReadObject(JsonReader& reader) {
  TemplateJson json = TemplateJson::object();
  auto& object = json.get_ref<TemplateJson::object_t&>();
  TemplateJson::object_t::Container& members = object;
  absl::flat_hash_set<std::string> names;
  std::string name;
  reader.EnterObject();
  while (reader.NextMember(name)) {
    if (!names.insert(name).second) {
      reader.Refuse(absl::StrCat("the member ", Printable(name), " stands twice"));
      break;
    }
    members.emplace_back(name, ReadValue(reader));
  }
  return json;
}

TemplateJson ReadNumber(JsonReader& reader) {
  absl::string_view text;
  if (!reader.ReadText(text)) {
    return nullptr;
  }
  int64_t integer = 0;
  uint64_t natural = 0;
  double real = 0;
  const bool is_integer = text.find_first_of(".eE") == absl::string_view::npos;
  if (is_integer && absl::SimpleAtoi(text, &integer)) {
    return integer;
  }
  if (is_integer && absl::SimpleAtoi(text, &natural)) {
    return natural;
  }
  if (!absl::SimpleAtod(text, &real)) {
    reader.Refuse("expected a number");
  }
  return real;
}

TemplateJson ReadValue(JsonReader& reader) {
  switch (reader.Peek()) {
    case Kind::kObject:
      return ReadObject(reader);
    case Kind::kArray: {
      TemplateJson json = TemplateJson::array();
      reader.EnterArray();
      while (reader.NextElement()) {
        json.push_back(ReadValue(reader));
      }
      return json;
    }
    case Kind::kString: {
      std::string value;
      reader.ReadString(value);
      return value;
    }
    case Kind::kBool: {
      bool value = false;
      reader.ReadBool(value);
      return value;
    }
    case Kind::kNumber:
      return ReadNumber(reader);
    default:
      reader.SkipValue();  // Null, or what is none.
      return nullptr;
  }
}

}  // namespace

absl::StatusOr<TemplateJson> ParseNestedJson(absl::string_view text) {
  JsonReader reader(text, JsonRules{.depth_max = kRequestDepthMax});
  TemplateJson json = ReadValue(reader);
  reader.Finish();
  if (!reader.status().ok()) {
    return absl::InvalidArgumentError(reader.status().message());
  }
  return json;
}

absl::StatusOr<TemplateJson> ParseRequestJson(absl::string_view body) {
  absl::StatusOr<TemplateJson> json = ParseNestedJson(body);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the body: ", json.status().message()));
  }
  if (!json->is_object()) {
    return absl::InvalidArgumentError("the body: expected a JSON object");
  }
  return json;
}

}  // namespace nibble
