#include "server/engine/chat/text_search.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/engine/chat/unicode_text.h"

namespace nibble::jinja {

size_t FindText(absl::string_view text, absl::string_view wanted, size_t from) {
  if (from > text.size() || wanted.size() > text.size() - from) {
    return kNotFound;
  }
  if (wanted.empty()) {
    return from;
  }
  // glibc's is the two-way algorithm.
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? kNotFound
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

bool MayHaveParts(Run& run, size_t count) {
  return run.MayMake(static_cast<int64_t>(2 * count * sizeof(absl::string_view)));
}

size_t FindLastText(absl::string_view text, absl::string_view wanted) {
  const std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_wanted(wanted.rbegin(), wanted.rend());
  const size_t found = FindText(reversed_text, reversed_wanted);
  return found == kNotFound ? kNotFound : text.size() - found - wanted.size();
}

size_t CountText(absl::string_view text, absl::string_view wanted) {
  if (wanted.empty()) {
    return static_cast<size_t>(CodePointCount(text)) + 1;
  }
  size_t count = 0;
  for (size_t at = FindText(text, wanted); at != kNotFound;
       at = FindText(text, wanted, at + wanted.size())) {
    ++count;
  }
  return count;
}

std::vector<absl::string_view> LinesOf(Run& run, absl::string_view text, bool keep_breaks) {
  std::vector<absl::string_view> lines;
  size_t begin = 0;
  for (size_t position = 0; position < text.size() && MayHaveParts(run, lines.size());) {
    const size_t end = position;
    const char32_t c = NextCodePoint(text, position);
    const bool breaks = (c >= '\n' && c <= '\r') || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                        c == 0x2028 || c == 0x2029;
    if (!breaks) {
      continue;
    }
    if (c == '\r' && position < text.size() && text[position] == '\n') {
      ++position;
    }
    lines.push_back(text.substr(begin, (keep_breaks ? position : end) - begin));
    begin = position;
  }
  if (begin < text.size()) {
    lines.push_back(text.substr(begin));
  }
  return lines;
}

Value ReplaceText(Run& run, absl::string_view text, absl::string_view old, absl::string_view with,
                  int64_t count) {
  const auto found = static_cast<int64_t>(CountText(text, old));
  const int64_t replaced = count < 0 ? found : std::min(found, count);
  int64_t bytes = 0;
  if (!run.StepBytes(text.size()) || !run.Step(replaced) ||
      __builtin_mul_overflow(replaced, static_cast<int64_t>(with.size()), &bytes) ||
      !run.MayMake(bytes + static_cast<int64_t>(text.size()))) {
    run.MayMake(INT64_MAX);
    return Value();
  }
  std::string result;
  size_t position = 0;
  for (int64_t i = 0; i < replaced; ++i) {
    const size_t at = FindText(text, old, position);
    absl::StrAppend(&result, text.substr(position, at - position), with);
    position = at + old.size();
    if (old.empty() && position < text.size()) {  // Between the characters.
      NextCodePoint(text, position);
      absl::StrAppend(&result, text.substr(at, position - at));
    }
  }
  absl::StrAppend(&result, text.substr(position));
  return MakeText(&run, std::move(result));
}

}  // namespace nibble::jinja
