// Reads JSON that nobody vouches for, value by value, without building a tree: a header of 100 MB
// takes no memory beyond what its reader keeps.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

struct JsonRules {
  int depth_max = 64;  // Containers open at once.

  // Python writes these for floats that JSON has no word for; other readers refuse them.
  bool allow_nan_and_infinity = false;
};

// A cursor over one JSON text (RFC 8259: UTF-8 without a byte order mark, no lone surrogates, no
// number beyond a double's range). The first error sticks: from then on every call returns false,
// so a caller may walk first and look at status() once:
//
//   reader.EnterObject();
//   while (reader.NextMember(key)) {
//     if (key == "size") { reader.ReadUnsigned(size); } else { reader.SkipValue(); }
//   }
//   reader.Finish();
//   if (!reader.status().ok()) ...
//
// Each member and element must be read or skipped before the next is asked for. `json` must outlive
// the reader.
class JsonReader {
 public:
  enum class Kind { kObject, kArray, kString, kNumber, kBool, kNull, kInvalid };

  // Cost: one pass over `json`, to see that it is UTF-8.
  JsonReader(absl::string_view json, const JsonRules& rules);

  // DATA_LOSS that says where, what was expected and what was found; the caller adds the file.
  const absl::Status& status() const { return status_; }

  // Says that the value just read is not what the caller can use. Returns false.
  bool Refuse(absl::string_view message);

  // What the next value is, by its first character.
  Kind Peek();

  bool EnterObject();
  // False at the object's end, and leaves it.
  bool NextMember(std::string& key);

  bool EnterArray();
  // False at the array's end, and leaves it.
  bool NextElement();
  // An estimate of the elements left in an array of numbers, for reserving memory; exact if the
  // array is well formed.
  int64_t NumbersAhead() const;

  bool ReadString(std::string& value);
  bool ReadBool(bool& value);
  // Digits alone: neither 4.0 nor 4e0 nor -0 is one.
  bool ReadUnsigned(uint64_t& value);
  // Any number but those that JSON has no word for, which are refused even where they are allowed.
  bool ReadDouble(double& value);

  bool SkipValue();
  // Skips it, and gives its text as it stands, a view into `json`.
  bool ReadText(absl::string_view& text);

  // After the outermost value: only white space may follow.
  bool Finish();

 private:
  bool Fail(absl::string_view expected);
  void SkipSpace();
  bool Consume(char c);
  bool Enter(char open, absl::string_view what);
  bool Next(char close);
  bool ConsumeWord(absl::string_view word);
  bool ConsumeDigits();
  bool ConsumeNumber();
  bool ConsumeEscape(std::string& value);
  bool ConsumeHex4(uint32_t& code);
  bool SkipNumber();

  const absl::string_view json_;
  const JsonRules rules_;
  absl::Status status_;
  size_t position_ = 0;
  std::vector<bool> begun_;  // For each open container: whether it had a value yet.
  std::string skipped_;      // Where skipped strings are unescaped to.
};

}  // namespace nibble
