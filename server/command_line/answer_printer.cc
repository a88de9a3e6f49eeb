#include "server/command_line/answer_printer.h"

#include <unistd.h>

#include <cstdio>

namespace nibble {
namespace {

constexpr char kDim[] = "\x1b[2m";
constexpr char kPlain[] = "\x1b[0m";

void Put(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

bool StdoutIsTerminal() { return isatty(STDOUT_FILENO) == 1; }

void AnswerPrinter::Print(const v1::GenerateResponse& piece) {
  reasoning_ += piece.reasoning();
  if (is_terminal_ && !piece.reasoning().empty()) {
    // Each piece by itself: whatever comes next, an interrupt too, is not dimmed.
    Put(kDim + piece.reasoning() + kPlain);
  }
  if (is_terminal_ && text_.empty() && !piece.text().empty() && !reasoning_.empty()) {
    Put("\n\n");
  }
  text_ += piece.text();
  Put(piece.text());
  std::fflush(stdout);
}

void AnswerPrinter::Finish() {
  if (text_.empty() || text_.back() != '\n') {
    std::fputc('\n', stdout);
  }
  std::fflush(stdout);
}

}  // namespace nibble
