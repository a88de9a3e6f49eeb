// An answer on its way to a person, or to a pipe.

#pragma once

#include <nibble/v1/generation.pb.h>

#include <string>

namespace nibble {

// Prints pieces of one answer to stdout as they come. On a terminal reasoning comes dimmed before
// the text; anywhere else it is left out, so that a pipe has the answer alone.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool is_terminal) : is_terminal_(is_terminal) {}

  void Print(const v1::GenerateResponse& piece);

  // Ends the last line, unless the text has.
  void Finish();

  const std::string& text() const { return text_; }
  const std::string& reasoning() const { return reasoning_; }

 private:
  const bool is_terminal_;
  std::string text_;
  std::string reasoning_;
};

// Whether stdout is a terminal that colours can be shown on.
bool StdoutIsTerminal();

}  // namespace nibble
