#include "server/engine/chat/token_stream.h"

#include "absl/strings/str_cat.h"
#include "loader/printable.h"

namespace nibble::jinja {
namespace {

std::string Described(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kText:
      return "text";
    case Token::Kind::kPrintBegin:
      return "'{{'";
    case Token::Kind::kPrintEnd:
      return "'}}'";
    case Token::Kind::kBlockBegin:
      return "'{%'";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kEnd:
      return "the end of the template";
    default:
      return Printable(token.text);
  }
}

}  // namespace

Token TokenStream::Take() {
  Token token = current();
  if (position_ + 1 < tokens_.size()) {
    ++position_;
  }
  return token;
}

bool TokenStream::IsName(absl::string_view name) const {
  return Is(Token::Kind::kName) && current().text == name;
}

bool TokenStream::IsOperator(absl::string_view op) const {
  return Is(Token::Kind::kOperator) && current().text == op;
}

bool TokenStream::TakeName(absl::string_view name) {
  const bool found = IsName(name);
  if (found) {
    Take();
  }
  return found;
}

bool TokenStream::TakeOperator(absl::string_view op) {
  const bool found = IsOperator(op);
  if (found) {
    Take();
  }
  return found;
}

void TokenStream::ExpectOperator(absl::string_view op) {
  if (!TakeOperator(op)) {
    FailExpecting(absl::StrCat("'", op, "'"));
  }
}

void TokenStream::Expect(Token::Kind kind, absl::string_view what) {
  if (Is(kind)) {
    Take();
  } else {
    FailExpecting(what);
  }
}

std::string TokenStream::ExpectAnyName() {
  if (!Is(Token::Kind::kName)) {
    FailExpecting("a name");
    return "";
  }
  return Take().text;
}

void TokenStream::Fail(absl::string_view message) {
  FailWith(absl::InvalidArgumentError(absl::StrCat("chat template, line ", line(), ": ", message)));
}

void TokenStream::FailWith(absl::Status status) {
  if (status_.ok()) {
    status_ = std::move(status);
  }
  position_ = tokens_.size() - 1;
}

void TokenStream::FailExpecting(absl::string_view what) {
  Fail(absl::StrCat("expected ", what, ", found ", Described(current())));
}

}  // namespace nibble::jinja
