#include "server/engine/chat/value.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/comparison.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// Control block, header and bookkeeping of the allocator, roughly.
constexpr int64_t kObjectBytes = 64;

int64_t BytesOf(const std::vector<Value>& items) {
  return kObjectBytes + static_cast<int64_t>(sizeof(Sequence) + items.size() * sizeof(Value));
}

int64_t BytesOf(const Pairs& entries) {
  return kObjectBytes + static_cast<int64_t>(sizeof(Map) + entries.size() * 2 * sizeof(Value));
}

bool MayLieAt(Run* run, int depth) {
  if (depth <= kValueDepthMax) {
    return true;
  }
  if (run != nullptr) {
    run->FailWith(absl::ResourceExhaustedError(absl::StrCat("chat template, line ", run->line(),
                                                            ": lists and dicts lie more than ",
                                                            kValueDepthMax, " levels deep")));
  }
  return false;
}

std::vector<Value> CharactersOf(Run& run, const Text& text) {
  std::vector<Value> characters;
  if (!run.MayMake(text.code_points *
                   static_cast<int64_t>(sizeof(Value) + sizeof(Text) + kObjectBytes))) {
    return characters;
  }
  for (size_t position = 0; position < text.bytes.size() && run.Step();) {
    const size_t begin = position;
    NextCodePoint(text.bytes, position);
    characters.push_back(MakeText(&run, text.bytes.substr(begin, position - begin)));
  }
  return characters;
}

}  // namespace

Object::Object(Run* run, int depth) : depth_(depth), charge_(run, kObjectBytes * 2) {
  MayLieAt(run, depth);
}

Value Object::GetAttribute(Interpreter&, absl::string_view) { return Value(); }

MethodFunction Object::FindMethod(absl::string_view) const { return nullptr; }

Value Value::UndefinedBecause(Run& run, std::string reason) {
  Value value;
  const Value text = MakeText(&run, std::move(reason));
  if (text.text() != nullptr) {
    value.content_ = Undefined{std::get<std::shared_ptr<const Text>>(text.content_)};
  }
  return value;
}

int64_t Value::integer() const {
  return is_bool() ? static_cast<int64_t>(std::get<bool>(content_)) : std::get<int64_t>(content_);
}

double Value::number() const {
  return is_float() ? std::get<double>(content_) : static_cast<double>(integer());
}

absl::string_view Value::reason() const {
  const auto& reason = std::get<Undefined>(content_).reason;
  return reason == nullptr ? absl::string_view("a value is undefined")
                           : absl::string_view(reason->bytes);
}

absl::string_view Value::TypeName() const {
  // In the order of the variant; a sequence's name is below.
  static constexpr std::array<absl::string_view, 10> kNames = {
      "Undefined", "NoneType", "bool", "int", "float", "str", "", "dict", "Namespace", "function"};
  static constexpr std::array<absl::string_view, 8> kSequenceNames = {
      "list", "tuple", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
  return sequence() != nullptr ? kSequenceNames[static_cast<size_t>(sequence()->flavor)]
                               : kNames[content_.index()];
}

bool Value::Truth() const {
  if (is_number()) {
    return number() != 0;
  }
  if (text() != nullptr) {
    return !text()->bytes.empty();
  }
  if (sequence() != nullptr) {
    return sequence()->flavor == Flavor::kGenerator || !sequence()->items.empty();
  }
  if (map() != nullptr) {
    return !map()->entries.empty();
  }
  return !is_undefined() && !is_none();
}

int Value::Depth() const {
  if (sequence() != nullptr) {
    return sequence()->depth;
  }
  if (object() != nullptr) {
    return object()->depth();
  }
  return map() != nullptr ? map()->depth : 0;
}

Value MakeText(Run* run, std::string text, bool is_markup) {
  const auto bytes = kObjectBytes + static_cast<int64_t>(sizeof(Text) + text.size());
  if (run != nullptr && !(run->MayMake(bytes) && run->StepBytes(text.size()))) {
    return Value();
  }
  const int64_t code_points = CodePointCount(text);
  return Value(std::shared_ptr<const Text>(
      new Text{std::move(text), code_points, is_markup, Charge(run, bytes)}));
}

Value MakeSequence(Run* run, Flavor flavor, std::vector<Value> items) {
  const int64_t bytes = BytesOf(items);
  if (run != nullptr && !(run->MayMake(bytes) && run->StepLookups(items.size()))) {
    return Value();
  }
  int depth = 0;
  for (const Value& item : items) {
    depth = std::max(depth, item.Depth());
  }
  if (!MayLieAt(run, depth + 1)) {
    return Value();
  }
  return Value(std::shared_ptr<Sequence>(
      new Sequence{flavor, std::move(items), 0, "", depth + 1, Charge(run, bytes)}));
}

Value MakeMapOfDistinctKeys(Run& run, Pairs entries) {
  const int64_t bytes = BytesOf(entries);
  if (!run.MayMake(bytes) || !run.StepLookups(entries.size())) {
    return Value();
  }
  int depth = 0;
  for (const auto& [key, value] : entries) {
    depth = std::max({depth, key.Depth(), value.Depth()});
  }
  if (!MayLieAt(&run, depth + 1)) {
    return Value();
  }
  return Value(
      std::shared_ptr<const Map>(new Map{std::move(entries), depth + 1, Charge(&run, bytes)}));
}

Value MakeMap(Run& run, Pairs entries) {
  Pairs distinct;
  for (auto& given : entries) {
    const Value& key = given.first;
    if (!IsHashable(run, key)) {
      run.Fail(absl::StrCat("a '", key.TypeName(), "' cannot be a key of a dict"));
    }
    if (!run.StepLookups(distinct.size())) {
      return Value();
    }
    const auto place = std::find_if(distinct.begin(), distinct.end(), [&](const auto& entry) {
      return Equals(run, entry.first, key);
    });
    if (place == distinct.end()) {
      distinct.push_back(std::move(given));
    } else {
      place->second = std::move(given.second);
    }
  }
  return MakeMapOfDistinctKeys(run, std::move(distinct));
}

const Value* FindInMap(Run& run, const Map& map, const Value& key) {
  if (key.text() != nullptr) {
    return FindInMap(run, map, key.text()->bytes);
  }
  for (const auto& [candidate, value] : map.entries) {
    if (!run.Step()) {
      return nullptr;
    }
    if (Equals(run, candidate, key)) {
      return &value;
    }
  }
  return nullptr;
}

const Value* FindInMap(Run& run, const Map& map, absl::string_view key) {
  if (!run.StepLookups(map.entries.size())) {
    return nullptr;
  }
  for (const auto& [candidate, value] : map.entries) {
    if (candidate.text() != nullptr && candidate.text()->bytes == key) {
      return &value;
    }
  }
  return nullptr;
}

void SetAttribute(Run& run, Namespace& attributes, absl::string_view name, const Value& value) {
  if (!run.StepLookups(attributes.attributes.size())) {
    return;
  }
  for (auto& [known, place] : attributes.attributes) {
    if (known == name) {
      place = value;
      return;
    }
  }
  const auto bytes = static_cast<int64_t>(sizeof(attributes.attributes[0]) + name.size());
  if (run.MayMake(bytes)) {
    attributes.charge.Add(bytes);
    attributes.attributes.emplace_back(name, value);
  }
}

Items::Items(Run& run, const Value& value) {
  if (Sequence* sequence = value.sequence(); sequence != nullptr) {
    if (sequence->flavor != Flavor::kGenerator) {
      sequence_ = value;
      return;
    }
    const auto begin = sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->items_read);
    const auto left = static_cast<int64_t>(sequence->items.end() - begin);
    sequence->items_read = sequence->items.size();
    if (run.MayMake(left * static_cast<int64_t>(sizeof(Value)))) {
      sequence_ = MakeSequence(&run, Flavor::kList, {begin, sequence->items.end()});
    }
  } else if (value.map() != nullptr) {
    std::vector<Value> keys;
    if (run.StepLookups(value.map()->entries.size())) {
      for (const auto& [key, unused] : value.map()->entries) {
        keys.push_back(key);
      }
    }
    sequence_ = MakeSequence(&run, Flavor::kList, std::move(keys));
  } else if (value.text() != nullptr) {
    sequence_ = MakeSequence(&run, Flavor::kList, CharactersOf(run, *value.text()));
  } else if (!value.is_undefined()) {
    run.Fail(absl::StrCat("a '", value.TypeName(), "' has no items to go over"));
  }
}

const std::vector<Value>& Items::all() const {
  static const std::vector<Value> kNone;
  return sequence_.sequence() == nullptr ? kNone : sequence_.sequence()->items;
}

}  // namespace nibble::jinja
