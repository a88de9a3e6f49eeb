// What a template computes with: Python's values, as far as templates see them.
//
// Values are immutable, as in Jinja's immutable sandbox, but for two: a namespace, and how far a
// generator has been read. So a value can contain itself only by way of a namespace or a macro,
// both of which the interpreter owns to the end of its run; and how deep one lies is known when it
// is made, and bounded (kValueDepthMax).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/run.h"

namespace nibble::jinja {

class Value;
using Pairs = std::vector<std::pair<Value, Value>>;

// A string: UTF-8, always valid.
struct Text {
  std::string bytes;
  int64_t code_points = 0;
  // What the filters `safe` and `escape` give: what is added to it by + is escaped for HTML.
  bool is_markup = false;
  Charge charge;

  bool is_ascii() const { return code_points == static_cast<int64_t>(bytes.size()); }
};

// What has items in an order. They differ in how they print and in what may be asked of them.
enum class Flavor {
  kList,
  kTuple,
  kGroup,      // A tuple of groupby, whose parts have names too.
  kRange,      // range(...).
  kGenerator,  // What filters such as `map` give: read once, no length, no index, always true.
  kKeys,       // dict.keys(), .values(), .items(): a length, no index.
  kValues,
  kItems,
};

struct Sequence {
  Flavor flavor = Flavor::kList;
  std::vector<Value> items;
  size_t items_read = 0;  // Of a generator.
  std::string shown_as;   // Of a range.
  int depth = 0;          // Levels of lists and dicts in it, itself included.
  Charge charge;
};

// A dict, in the order of insertion. Keys are looked through one by one (and counted as steps):
// the dicts of templates and requests are small.
struct Map {
  Pairs entries;
  int depth = 0;
  Charge charge;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  Charge charge;
};

class Interpreter;
struct Arguments;

// A method of ours: what `receiver.name(arguments)` gives.
using MethodFunction = Value (*)(Interpreter& interpreter, const Value& receiver,
                                 const Arguments& arguments);

// What else the interpreter has: functions, methods, macros, loops, cyclers.
class Object {
 public:
  // `depth`: levels of lists and dicts in it.
  Object(Run* run, int depth);
  virtual ~Object() = default;

  // As print shows it.
  virtual std::string Shown() const = 0;
  virtual bool is_callable() const { return true; }
  virtual Value Call(Interpreter& interpreter, const Arguments& arguments) = 0;
  // An undefined value without a reason if there is none of this name.
  virtual Value GetAttribute(Interpreter& interpreter, absl::string_view name);
  // Null if there is none of this name.
  virtual MethodFunction FindMethod(absl::string_view name) const;

  int depth() const { return depth_; }

 private:
  const int depth_;
  Charge charge_;
};

struct None {};

// A name, an attribute or an item that is not there. Prints as nothing, is false and empty, and
// whatever else is done with it fails with `reason`.
struct Undefined {
  std::shared_ptr<const Text> reason;
};

class Value {
 public:
  Value() = default;  // Undefined, without a reason.
  Value(None none) : content_(none) {}
  Value(bool value) : content_(value) {}
  Value(int64_t value) : content_(value) {}
  Value(double value) : content_(value) {}
  Value(std::shared_ptr<const Text> text) : content_(std::move(text)) {}
  Value(std::shared_ptr<Sequence> sequence) : content_(std::move(sequence)) {}
  Value(std::shared_ptr<const Map> map) : content_(std::move(map)) {}
  Value(std::shared_ptr<Namespace> attributes) : content_(std::move(attributes)) {}
  Value(std::shared_ptr<Object> object) : content_(std::move(object)) {}
  Value(const char*) = delete;  // Would be a bool.

  static Value UndefinedBecause(Run& run, std::string reason);

  bool is_undefined() const { return std::holds_alternative<Undefined>(content_); }
  bool is_none() const { return std::holds_alternative<None>(content_); }
  bool is_bool() const { return std::holds_alternative<bool>(content_); }
  // Python's bool is an int.
  bool is_integer() const { return std::holds_alternative<int64_t>(content_) || is_bool(); }
  bool is_float() const { return std::holds_alternative<double>(content_); }
  bool is_number() const { return is_integer() || is_float(); }

  // Requires: is_integer().
  int64_t integer() const;
  // Requires: is_number().
  double number() const;

  // The content, or null if it is of another kind.
  const Text* text() const { return Get<std::shared_ptr<const Text>>(); }
  Sequence* sequence() const { return Get<std::shared_ptr<Sequence>>(); }
  const Map* map() const { return Get<std::shared_ptr<const Map>>(); }
  Namespace* attributes() const { return Get<std::shared_ptr<Namespace>>(); }
  Object* object() const { return Get<std::shared_ptr<Object>>(); }
  bool Is(Flavor flavor) const { return sequence() != nullptr && sequence()->flavor == flavor; }

  // Why it is undefined. Requires: is_undefined().
  absl::string_view reason() const;

  // Requires: is_undefined().
  bool has_reason() const { return std::get<Undefined>(content_).reason != nullptr; }

  // Python's name of the type: "str", "list", "NoneType".
  absl::string_view TypeName() const;

  // Whether `if` takes it for true.
  bool Truth() const;

  // Levels of lists and dicts in it: 0 for what has none.
  int Depth() const;

 private:
  template <typename Pointer>
  auto Get() const -> decltype(std::declval<Pointer>().get()) {
    const auto* pointer = std::get_if<Pointer>(&content_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<Sequence>, std::shared_ptr<const Map>, std::shared_ptr<Namespace>,
               std::shared_ptr<Object>>
      content_;
};

// These make values and charge them to `run` (null: to nobody). They fail the run and give an
// undefined value where its limits are reached.
//
// Requires: text is UTF-8.
Value MakeText(Run* run, std::string text, bool is_markup = false);
Value MakeSequence(Run* run, Flavor flavor, std::vector<Value> items);
// Of equal keys the first keeps its place and the last its value.
//
// Errors: in the run if a key can be none (a list or a dict).
Value MakeMap(Run& run, Pairs entries);
// Likewise, where the keys are known to differ.
Value MakeMapOfDistinctKeys(Run& run, Pairs entries);

// The value of a key, or null.
const Value* FindInMap(Run& run, const Map& map, const Value& key);
const Value* FindInMap(Run& run, const Map& map, absl::string_view key);

// Sets one, new or not.
void SetAttribute(Run& run, Namespace& attributes, absl::string_view name, const Value& value);

// The items that a `for` goes over: of a list, a dict's keys, a string's characters. A generator is
// read to its end. Shares them with the value where it can, and is charged where it cannot.
class Items {
 public:
  // Errors: in the run if `value` has none, which then gives none.
  Items(Run& run, const Value& value);

  const std::vector<Value>& all() const;
  size_t size() const { return all().size(); }
  bool empty() const { return all().empty(); }
  const Value& operator[](size_t index) const { return all()[index]; }
  std::vector<Value>::const_iterator begin() const { return all().begin(); }
  std::vector<Value>::const_iterator end() const { return all().end(); }

 private:
  Value sequence_;
};

}  // namespace nibble::jinja
