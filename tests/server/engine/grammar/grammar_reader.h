// Feeds text to a grammar.

#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "server/engine/grammar/grammar_run.h"
#include "server/engine/grammar/json_schema.h"

namespace nibble {

inline std::shared_ptr<const Grammar> Compiled(absl::string_view schema) {
  auto grammar = CompileJsonSchema(schema);
  EXPECT_TRUE(grammar.ok()) << grammar.status() << "\n" << schema;
  return grammar.ok() ? *grammar : JsonObjectGrammar();
}

// What becomes of `text`: "whole", "open" if more must follow, or "refused at N".
inline std::string Verdict(GrammarRun& run, absl::string_view text) {
  int32_t situation = run.start();
  for (size_t i = 0; i < text.size(); ++i) {
    situation = run.Step(situation, static_cast<uint8_t>(text[i]));
    if (situation == GrammarRun::kDead) {
      return absl::StrCat("refused at ", i);
    }
  }
  return run.IsComplete(situation) ? "whole" : "open";
}

inline std::string Verdict(const Grammar& grammar, absl::string_view text) {
  GrammarRun run(grammar);
  return Verdict(run, text);
}

inline std::string Verdict(absl::string_view schema, absl::string_view text) {
  return Verdict(*Compiled(schema), text);
}

}  // namespace nibble
