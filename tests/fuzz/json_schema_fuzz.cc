// Any bytes up to the first zero as a JSON schema; those behind it choose among the tokens that its
// grammar allows. Something must always be allowed, and what is whole must be JSON.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "loader/printable.h"
#include "nlohmann/json.hpp"
#include "server/engine/grammar/grammar_constraint.h"
#include "server/engine/grammar/json_schema.h"

namespace nibble {
namespace {

constexpr int32_t kEnd = 256;

std::shared_ptr<const TokenVocabulary> Bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(std::string(1, static_cast<char>(byte)));
  }
  tokens.insert(tokens.end(), {"", "{\"", "\":", "\",\"", "}}", "null"});
  return std::make_shared<TokenVocabulary>(std::move(tokens), std::vector<int32_t>{kEnd});
}

void Write(const std::shared_ptr<const Grammar>& grammar, absl::string_view choices) {
  static const auto vocabulary = Bytes();
  const auto constraint = MakeConstraint(grammar, vocabulary);
  std::vector<uint32_t> mask(static_cast<size_t>(vocabulary->size() + 31) / 32);
  std::string text;
  for (const char choice : choices) {
    constraint->FillMask(mask);
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id < vocabulary->size(); ++id) {
      if ((mask[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0) {
        allowed.push_back(id);
      }
    }
    Check(!allowed.empty(), "something may always be written");
    if ((mask[kEnd / 32] >> (kEnd % 32) & 1) != 0) {
      Check(nlohmann::json::accept(text), "what is whole is JSON");
    }
    const int32_t id = allowed[static_cast<uint8_t>(choice) % allowed.size()];
    if (id == kEnd) {
      return;
    }
    text += std::string(vocabulary->bytes(id));
    constraint->Accept(id);
  }
}

void CheckSchema(absl::string_view input) {
  const size_t end = std::min(input.find('\0'), input.size());
  const auto grammar = CompileJsonSchema(input.substr(0, end));
  if (!grammar.ok()) {
    const absl::string_view message = grammar.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  Write(*grammar, end < input.size() ? input.substr(end + 1) : "\1\2\3\4\5\6\7\10");
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckSchema({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
