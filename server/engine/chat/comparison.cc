#include "server/engine/chat/comparison.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/text_search.h"

namespace nibble::jinja {
namespace {

constexpr int kUnordered = 2;

template <typename Number>
int CompareNumbers(Number left, Number right) {
  return left < right ? -1 : (left > right ? 1 : (left == right ? 0 : kUnordered));
}

// A double has 53 bits, so converting the integer could make unequal numbers equal.
int CompareMixed(int64_t left, double right) {
  constexpr double kIntegerEnd = 9223372036854775808.0;  // 2^63
  if (std::isnan(right)) {
    return kUnordered;
  }
  if (right >= kIntegerEnd || right < -kIntegerEnd) {
    return right > 0 ? -1 : 1;
  }
  const double whole = std::floor(right);
  const int order = CompareNumbers(left, static_cast<int64_t>(whole));
  return order == 0 && whole < right ? -1 : order;
}

int CompareAsNumbers(const Value& left, const Value& right) {
  if (left.is_integer() && right.is_integer()) {
    return CompareNumbers(left.integer(), right.integer());
  }
  if (left.is_integer()) {
    return CompareMixed(left.integer(), right.number());
  }
  if (right.is_integer()) {
    const int order = CompareMixed(right.integer(), left.number());
    return order == kUnordered ? order : -order;
  }
  return CompareNumbers(left.number(), right.number());
}

bool IsTuple(const Value& value) { return value.Is(Flavor::kTuple) || value.Is(Flavor::kGroup); }

// Whether both are lists, both tuples, both ranges.
bool AreAlike(const Value& left, const Value& right) {
  return left.sequence() != nullptr && right.sequence() != nullptr &&
         (left.sequence()->flavor == right.sequence()->flavor || (IsTuple(left) && IsTuple(right)));
}

bool SequencesEqual(Run& run, const Value& left, const Value& right) {
  if (left.sequence() == right.sequence()) {
    return true;
  }
  const auto& items = left.sequence()->items;
  const auto& others = right.sequence()->items;
  if (!AreAlike(left, right) || left.Is(Flavor::kGenerator) || items.size() != others.size()) {
    return false;
  }
  for (size_t i = 0; i < items.size(); ++i) {
    if (!Equals(run, items[i], others[i])) {
      return false;
    }
  }
  return true;
}

bool MapsEqual(Run& run, const Map& left, const Map& right) {
  if (&left == &right) {
    return true;
  }
  if (left.entries.size() != right.entries.size()) {
    return false;
  }
  for (const auto& [key, value] : left.entries) {
    const Value* other = FindInMap(run, right, key);
    if (other == nullptr || !Equals(run, value, *other)) {
      return false;
    }
  }
  return true;
}

int CompareSequences(Run& run, const Value& left, const Value& right) {
  const auto& items = left.sequence()->items;
  const auto& others = right.sequence()->items;
  for (size_t i = 0; i < std::min(items.size(), others.size()); ++i) {
    if (!Equals(run, items[i], others[i])) {
      return Compare(run, items[i], others[i]);
    }
  }
  return CompareNumbers(items.size(), others.size());
}

bool ItemsContain(Run& run, const Value& container, const Value& item) {
  for (const Value& candidate : Items(run, container)) {
    if (run.failed()) {
      return false;
    }
    if (Equals(run, candidate, item)) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool Equals(Run& run, const Value& left, const Value& right) {
  if (!run.Step()) {
    return false;
  }
  if (left.is_number() && right.is_number()) {
    return CompareAsNumbers(left, right) == 0;
  }
  if (left.text() != nullptr && right.text() != nullptr) {
    const std::string& text = left.text()->bytes;
    return text.size() == right.text()->bytes.size() && run.StepBytes(text.size()) &&
           text == right.text()->bytes;
  }
  if (left.sequence() != nullptr && right.sequence() != nullptr) {
    return SequencesEqual(run, left, right);
  }
  if (left.map() != nullptr && right.map() != nullptr) {
    return MapsEqual(run, *left.map(), *right.map());
  }
  if (left.attributes() != nullptr || left.object() != nullptr) {
    return left.attributes() == right.attributes() && left.object() == right.object();
  }
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

int Compare(Run& run, const Value& left, const Value& right) {
  if (!run.Step()) {
    return kUnordered;
  }
  if (left.is_number() && right.is_number()) {
    return CompareAsNumbers(left, right);
  }
  if (left.text() != nullptr && right.text() != nullptr) {
    run.StepBytes(std::min(left.text()->bytes.size(), right.text()->bytes.size()));
    // The order of UTF-8's bytes is the order of code points.
    return CompareNumbers(left.text()->bytes.compare(right.text()->bytes), 0);
  }
  if (AreAlike(left, right) && (left.Is(Flavor::kList) || IsTuple(left))) {
    return CompareSequences(run, left, right);
  }
  const Value& undefined = left.is_undefined() ? left : right;
  if (undefined.is_undefined()) {
    run.Fail(undefined.reason());
  } else {
    run.Fail(
        absl::StrCat("a '", left.TypeName(), "' and a '", right.TypeName(), "' are in no order"));
  }
  return kUnordered;
}

bool Relate(Run& run, Relation relation, const Value& left, const Value& right) {
  switch (relation) {
    case Relation::kEqual:
      return Equals(run, left, right);
    case Relation::kNotEqual:
      return !Equals(run, left, right);
    case Relation::kIn:
      return Contains(run, right, left);
    case Relation::kNotIn:
      return !Contains(run, right, left);
    default:
      break;
  }
  const int order = Compare(run, left, right);
  switch (relation) {
    case Relation::kLess:
      return order == -1;
    case Relation::kLessEqual:
      return order == -1 || order == 0;
    case Relation::kGreater:
      return order == 1;
    default:
      return order == 1 || order == 0;
  }
}

bool Contains(Run& run, const Value& container, const Value& item) {
  if (container.text() != nullptr) {
    if (item.text() == nullptr) {
      run.Fail(absl::StrCat("'in <string>' requires a string on its left, not a '", item.TypeName(),
                            "'"));
      return false;
    }
    return run.StepBytes(container.text()->bytes.size()) &&
           FindText(container.text()->bytes, item.text()->bytes) != kNotFound;
  }
  if (container.map() != nullptr) {
    if (!IsHashable(run, item)) {
      run.Fail(absl::StrCat("a '", item.TypeName(), "' cannot be a key of a dict"));
      return false;
    }
    return FindInMap(run, *container.map(), item) != nullptr;
  }
  return ItemsContain(run, container, item);
}

bool IsHashable(Run& run, const Value& value) {
  if (!run.Step() || value.map() != nullptr) {
    return false;
  }
  if (!IsTuple(value)) {
    return !value.Is(Flavor::kList);
  }
  const auto& items = value.sequence()->items;
  return std::all_of(items.begin(), items.end(),
                     [&](const Value& item) { return IsHashable(run, item); });
}

}  // namespace nibble::jinja
