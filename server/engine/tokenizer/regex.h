// Regular expressions of tokenizer.json, run by PCRE2 under limits of our own: neither the
// expression nor the text can make a search run for ever.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nibble {

// Bytes of a text, [begin, end).
struct Span {
  size_t begin = 0;
  size_t end = 0;

  absl::string_view Of(absl::string_view text) const { return text.substr(begin, end - begin); }
};

// A search may walk each byte of its text this many times, backtracking included. The expressions
// of Llama, Qwen and GPT take at most 5 on a run of any one character (measured, 2026-11-24).
inline constexpr int64_t kRegexStepsPerByteMax = 64;
inline constexpr int64_t kRegexStepsBase = 1 << 16;  // For short texts.

// PCRE2's own limits, for each place where a match is tried. Ours bind first; these are the second
// line. The heap is used only where the compiled code's stack does not suffice.
inline constexpr uint32_t kRegexMatchesMax = 200'000'000;
inline constexpr uint32_t kRegexDepthMax = 10'000'000;
inline constexpr uint32_t kRegexHeapKiBMax = 256 << 10;
inline constexpr size_t kRegexStackBytesMax = 1 << 20;

// Immutable and thread-safe; each thread searches with a RegexScratch of its own.
class Regex {
 public:
  // Errors: as ToPcre2Syntax, and INVALID_ARGUMENT for what PCRE2 refuses.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);

  const std::string& pattern() const { return pattern_; }

 private:
  friend class RegexScratch;
  struct Free {
    void operator()(void* code) const;
  };
  Regex(std::string pattern, void* code) : pattern_(std::move(pattern)), code_(code) {}

  std::string pattern_;
  std::unique_ptr<void, Free> code_;  // pcre2_code
};

// What a search needs while it runs, and the steps that it has left.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

  // Gives the searches that follow, together, the steps for `bytes` of text.
  void Refill(size_t bytes);

  // Finds the first match in `text` at or after `begin`.
  //
  // Requires: `text` is valid UTF-8; a character begins at `begin`, or it is text.size().
  // Returns: false if there is none.
  // Errors: RESOURCE_EXHAUSTED when the steps are used up.
  absl::StatusOr<bool> Find(const Regex& regex, absl::string_view text, size_t begin, Span& match);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace nibble
