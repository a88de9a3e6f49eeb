#include "loader/glob.h"

namespace nibble {
namespace {

constexpr size_t kNone = absl::string_view::npos;

// The place of the `]` that ends the set that opens at `open`, or kNone.
size_t SetEnd(absl::string_view glob, size_t open) {
  size_t index = open + 1;
  if (index < glob.size() && (glob[index] == '!' || glob[index] == '^')) {
    ++index;
  }
  return index < glob.size() ? glob.find(']', index + 1) : kNone;
}

// `set` is what stands between the brackets.
bool SetContains(absl::string_view set, char byte) {
  const bool negated = set.front() == '!' || set.front() == '^';
  if (negated) {
    set.remove_prefix(1);
  }
  const auto value = static_cast<unsigned char>(byte);
  bool found = false;
  for (size_t index = 0; index < set.size(); ++index) {
    const auto first = static_cast<unsigned char>(set[index]);
    auto last = first;
    if (index + 2 < set.size() && set[index + 1] == '-') {
      last = static_cast<unsigned char>(set[index + 2]);
      index += 2;
    }
    found = found || (first <= value && value <= last);
  }
  return found != negated;
}

// The place after the element at `index` if that element, no star, matches `byte`; else kNone.
size_t MatchOne(absl::string_view glob, size_t index, char byte) {
  if (glob[index] == '[') {
    const size_t end = SetEnd(glob, index);
    return SetContains(glob.substr(index + 1, end - index - 1), byte) ? end + 1 : kNone;
  }
  return glob[index] == '?' || glob[index] == byte ? index + 1 : kNone;
}

}  // namespace

bool IsGlob(absl::string_view glob) {
  for (size_t index = 0; index < glob.size(); ++index) {
    if (glob[index] == '[') {
      index = SetEnd(glob, index);
      if (index == kNone) {
        return false;
      }
    }
  }
  return true;
}

// On a mismatch only the last star is tried again, one byte longer. That is enough: whatever an
// earlier star could give up, the last one can take, so no search is exponential.
bool GlobMatches(absl::string_view glob, absl::string_view name) {
  size_t glob_index = 0;
  size_t name_index = 0;
  size_t star = kNone;
  size_t star_name_index = 0;
  while (name_index < name.size()) {
    if (glob_index < glob.size() && glob[glob_index] == '*') {
      star = glob_index++;
      star_name_index = name_index;
      continue;
    }
    const size_t next =
        glob_index < glob.size() ? MatchOne(glob, glob_index, name[name_index]) : kNone;
    if (next != kNone) {
      glob_index = next;
      ++name_index;
    } else if (star != kNone) {
      glob_index = star + 1;
      name_index = ++star_name_index;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', glob_index) == kNone;
}

}  // namespace nibble
