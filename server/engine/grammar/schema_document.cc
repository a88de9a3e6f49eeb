#include "server/engine/grammar/schema_document.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "loader/json_reader.h"
#include "loader/printable.h"
#include "server/engine/grammar/grammar_limits.h"

namespace nibble {
namespace {

void CheckCount(JsonReader& reader, int64_t count, absl::string_view what) {
  if (count > kSchemaMembersMax) {
    reader.Refuse(absl::StrCat("expected at most ", kSchemaMembersMax, " ", what));
  }
}

// Walks a value to see that a tree of it may be built. The reader bounds the recursion.
void CheckValue(JsonReader& reader) {
  if (reader.Peek() == JsonReader::Kind::kObject) {
    reader.EnterObject();
    std::set<std::string> names;
    for (std::string name; reader.NextMember(name);) {
      if (!names.insert(name).second) {
        reader.Refuse(absl::StrCat("expected each member once, found a second ", Printable(name)));
        return;
      }
      CheckCount(reader, std::ssize(names), "members");
      CheckValue(reader);
    }
  } else if (reader.Peek() == JsonReader::Kind::kArray) {
    reader.EnterArray();
    for (int64_t count = 1; reader.NextElement(); ++count) {
      CheckCount(reader, count, "elements");
      CheckValue(reader);
    }
  } else {
    reader.SkipValue();
  }
}

// "%24defs" -> "$defs".
std::string DecodePercents(absl::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      result.push_back(
          static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16)));
      i += 2;
    } else {
      result.push_back(text[i]);
    }
  }
  return result;
}

const SchemaJson* FindStep(const SchemaJson& value, const std::string& step) {
  if (value.is_object()) {
    const auto found = value.find(step);
    return found == value.end() ? nullptr : &*found;
  }
  size_t index = 0;
  if (value.is_array() && absl::SimpleAtoi(step, &index) && index < value.size()) {
    return &value[index];
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<SchemaJson> ReadSchema(absl::string_view text) {
  if (std::ssize(text) > kSchemaBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("JSON schema: expected at most ",
                                                   kSchemaBytesMax, " bytes, found ", text.size()));
  }
  JsonReader reader(text, {.depth_max = kSchemaDepthMax});
  CheckValue(reader);
  reader.Finish();
  if (!reader.status().ok()) {
    return absl::InvalidArgumentError(absl::StrCat("JSON schema: ", reader.status().message()));
  }
  SchemaJson schema = SchemaJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (schema.is_discarded()) {
    return absl::InvalidArgumentError("JSON schema: expected JSON");
  }
  if (schema.is_object()) {
    // The whole schema's own name; within it, it would change what $refs mean.
    schema.erase("$id");
  }
  return schema;
}

absl::StatusOr<const SchemaJson*> FindReferenced(const SchemaJson& root, absl::string_view ref) {
  if (ref != "#" && ref.substr(0, 2) != "#/") {
    return absl::UnimplementedError(absl::StrCat("JSON schema: $ref ", Printable(ref),
                                                 " is not supported; expected #/$defs/NAME"));
  }
  const SchemaJson* value = &root;
  if (ref == "#") {
    return value;
  }
  for (const absl::string_view part : absl::StrSplit(ref.substr(2), '/')) {
    // ~01 is ~1, so ~1 goes first.
    const std::string step = absl::StrReplaceAll(DecodePercents(part), {{"~1", "/"}, {"~0", "~"}});
    value = FindStep(*value, step);
    if (value == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("JSON schema: $ref ", Printable(ref), " points at nothing"));
    }
  }
  return value;
}

}  // namespace nibble
