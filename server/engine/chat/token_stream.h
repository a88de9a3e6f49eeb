// The tokens of a template, one after the other, and the first error of its parser.

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/lexer.h"

namespace nibble::jinja {

// The first error sticks and ends the tokens: a parser that goes on sees nothing but the end, so it
// looks at failed() only where it loops.
class TokenStream {
 public:
  // Requires: the last token is of kind kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& following() const {
    return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_];
  }
  Token Take();

  bool IsName(absl::string_view name) const;
  bool IsOperator(absl::string_view op) const;
  bool Is(Token::Kind kind) const { return current().kind == kind; }

  // Whether it was there; if so it is passed.
  bool TakeName(absl::string_view name);
  bool TakeOperator(absl::string_view op);

  // Passed, or the first error.
  void ExpectOperator(absl::string_view op);
  void Expect(Token::Kind kind, absl::string_view what);
  std::string ExpectAnyName();

  void Fail(absl::string_view message);
  void FailWith(absl::Status status);
  // "expected ..., found ..." with what is at hand.
  void FailExpecting(absl::string_view what);

  bool failed() const { return !status_.ok(); }
  const absl::Status& status() const { return status_; }
  int line() const { return current().line; }

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
  absl::Status status_;
};

}  // namespace nibble::jinja
