#include "server/engine/chat/json_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "loader/python_json.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

constexpr int64_t kJsonBytesPerByte = 6;  // "\u0000" for a zero.

void AppendUnit(std::string& json, uint32_t unit) {
  absl::StrAppend(&json, "\\u", absl::Hex(unit, absl::kZeroPad4));
}

void AppendEscape(std::string& json, char32_t code_point) {
  switch (code_point) {
    case '"':
      json += "\\\"";
      return;
    case '\\':
      json += "\\\\";
      return;
    case '\n':
      json += "\\n";
      return;
    case '\r':
      json += "\\r";
      return;
    case '\t':
      json += "\\t";
      return;
    case '\f':
      json += "\\f";
      return;
    case '\b':
      json += "\\b";
      return;
    default:
      break;
  }
  auto unit = static_cast<uint32_t>(code_point);
  if (unit >= 0x10000) {  // As a pair of surrogates.
    unit -= 0x10000;
    AppendUnit(json, 0xD800 + (unit >> 10));
    unit = 0xDC00 + (unit & 0x3FF);
  }
  AppendUnit(json, unit);
}

class JsonWriter {
 public:
  JsonWriter(Run& run, const JsonStyle& style) : run_(run), style_(style) {}

  void Write(const Value& value) {
    if (!run_.Step() || !run_.MayMake(static_cast<int64_t>(json_.size()))) {
      return;
    }
    if (value.text() != nullptr) {
      WriteText(value.text()->bytes);
    } else if (value.map() != nullptr) {
      WriteMap(*value.map());
    } else if (value.Is(Flavor::kList) || value.Is(Flavor::kTuple) || value.Is(Flavor::kGroup)) {
      WriteList(value.sequence()->items);
    } else if (!WriteScalar(value)) {
      run_.Fail(absl::StrCat("a value of type '", value.TypeName(), "' has no form in JSON"));
    }
  }

  std::string Take() { return std::move(json_); }

 private:
  void WriteText(absl::string_view text) {
    if (!run_.StepLookups(text.size()) ||
        !run_.MayMake(static_cast<int64_t>(json_.size()) +
                      kJsonBytesPerByte * static_cast<int64_t>(text.size()))) {
      return;
    }
    json_ += '"';
    for (size_t position = 0; position < text.size();) {
      const size_t begin = position;
      const char32_t code_point = NextCodePoint(text, position);
      if (code_point < 0x20 || code_point == '"' || code_point == '\\' ||
          (code_point >= 0x7F && style_.ascii_only)) {
        AppendEscape(json_, code_point);
      } else {
        absl::StrAppend(&json_, text.substr(begin, position - begin));
      }
    }
    json_ += '"';
  }

  bool WriteScalar(const Value& value) {
    if (value.is_none()) {
      json_ += "null";
    } else if (value.is_bool()) {
      json_ += value.integer() != 0 ? "true" : "false";
    } else if (value.is_integer()) {
      absl::StrAppend(&json_, value.integer());
    } else if (value.is_float()) {
      json_ += PythonNumber(value.number());
    } else {
      return false;
    }
    return true;
  }

  // Line break and indent, where the style has them.
  void Break() {
    if (style_.indent == nullptr) {
      return;
    }
    const auto bytes = static_cast<int64_t>(style_.indent->size()) * level_;
    if (!run_.StepBytes(static_cast<size_t>(bytes)) ||
        !run_.MayMake(static_cast<int64_t>(json_.size()) + bytes)) {
      return;
    }
    json_ += '\n';
    for (int i = 0; i < level_; ++i) {
      json_ += *style_.indent;
    }
  }

  // What stands before an item.
  void Separate(bool first) {
    if (!first) {
      json_ += style_.item_separator;
    }
    Break();
  }

  void WriteList(const std::vector<Value>& items) {
    json_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size() && !run_.failed(); ++i) {
      Separate(i == 0);
      Write(items[i]);
    }
    --level_;
    if (!items.empty()) {
      Break();
    }
    json_ += ']';
  }

  void WriteKey(const Value& key) {
    if (key.text() != nullptr) {
      WriteText(key.text()->bytes);
      return;
    }
    json_ += '"';
    if (!WriteScalar(key)) {
      run_.Fail(absl::StrCat("keys of JSON are strings, not of type '", key.TypeName(), "'"));
    }
    json_ += '"';
  }

  void WriteMap(const Map& map) {
    json_ += '{';
    ++level_;
    const Pairs* entries = &map.entries;
    Pairs sorted;
    if (style_.sort_keys) {
      sorted = map.entries;
      std::stable_sort(sorted.begin(), sorted.end(), [&](const auto& left, const auto& right) {
        return Compare(run_, left.first, right.first) == -1;
      });
      entries = &sorted;
    }
    for (size_t i = 0; i < entries->size() && !run_.failed(); ++i) {
      Separate(i == 0);
      WriteKey((*entries)[i].first);
      json_ += style_.key_separator;
      Write((*entries)[i].second);
    }
    --level_;
    if (!entries->empty()) {
      Break();
    }
    json_ += '}';
  }

  Run& run_;
  const JsonStyle& style_;
  std::string json_;
  int level_ = 0;
};

}  // namespace

std::string ToJson(Run& run, const Value& value, const JsonStyle& style) {
  JsonWriter writer(run, style);
  writer.Write(value);
  return writer.Take();
}

}  // namespace nibble::jinja
