// value[start:stop:step].

#include <algorithm>

#include "server/engine/chat/arithmetic.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {
namespace {

// Where a slice begins and ends, both within -1 and the length.
struct Bounds {
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
};

// An index as Python takes it: from the end if negative, and clipped.
int64_t Clipped(int64_t index, int64_t length, int64_t step) {
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? length : length - 1;
  return std::clamp(index < 0 ? index + length : index, lowest, highest);
}

bool IsIndex(Run& run, const Value& value) {
  if (!value.is_none() && !value.is_integer()) {
    run.Fail(value.is_undefined() ? value.reason() : "the parts of a slice are integers or None");
    return false;
  }
  return value.is_integer();
}

Bounds BoundsOf(Run& run, int64_t length, const Value& start, const Value& stop,
                const Value& step) {
  Bounds bounds;
  if (IsIndex(run, step)) {
    // A step of more than the length is as good as the length.
    bounds.step = std::clamp(step.integer(), -length - 1, length + 1);
    if (bounds.step == 0) {
      run.Fail("the step of a slice is not 0");
      bounds.step = 1;
    }
  }
  const bool forward = bounds.step > 0;
  bounds.start = IsIndex(run, start) ? Clipped(start.integer(), length, bounds.step)
                                     : (forward ? 0 : length - 1);
  bounds.stop =
      IsIndex(run, stop) ? Clipped(stop.integer(), length, bounds.step) : (forward ? length : -1);
  return bounds;
}

Value SliceText(Run& run, const Text& text, const Bounds& bounds) {
  if (bounds.step == 1) {
    if (bounds.start >= bounds.stop) {
      return MakeText(&run, "");
    }
    const absl::string_view from = absl::string_view(text.bytes)
                                       .substr(text.is_ascii() ? static_cast<size_t>(bounds.start)
                                                               : ByteAt(text.bytes, bounds.start));
    const int64_t count = bounds.stop - bounds.start;
    return MakeText(&run, std::string(from.substr(0, text.is_ascii() ? static_cast<size_t>(count)
                                                                     : ByteAt(from, count))));
  }
  std::u32string characters;
  for (size_t position = 0; position < text.bytes.size();) {
    characters += NextCodePoint(text.bytes, position);
  }
  std::string result;
  for (int64_t i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;
       i += bounds.step) {
    AppendCodePoint(result, characters[static_cast<size_t>(i)]);
  }
  return MakeText(&run, std::move(result));
}

}  // namespace

Value SliceOf(Run& run, const Value& value, const Value& start, const Value& stop,
              const Value& step) {
  const Text* text = value.text();
  const auto length =
      text != nullptr ? text->code_points : static_cast<int64_t>(value.sequence()->items.size());
  const Bounds bounds = BoundsOf(run, length, start, stop, step);
  if (text != nullptr) {
    const size_t bytes = text->bytes.size();
    if (!(text->is_ascii() && bounds.step == 1 ? run.StepBytes(bytes) : run.StepLookups(bytes))) {
      return Value();
    }
    // Four bytes for each character, in passing.
    return run.MayMake(4 * length) ? SliceText(run, *text, bounds) : Value();
  }
  if (!run.StepLookups(value.sequence()->items.size())) {
    return Value();
  }
  std::vector<Value> items;
  for (int64_t i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;
       i += bounds.step) {
    items.push_back(value.sequence()->items[static_cast<size_t>(i)]);
  }
  const Flavor flavor =
      value.sequence()->flavor == Flavor::kRange ? Flavor::kList : value.sequence()->flavor;
  return MakeSequence(&run, flavor == Flavor::kGroup ? Flavor::kTuple : flavor, std::move(items));
}

}  // namespace nibble::jinja
