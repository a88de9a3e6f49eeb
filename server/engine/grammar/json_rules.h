// The rules that every JSON grammar shares: what stands between the parts of a value, and values
// that nothing constrains.

#pragma once

#include <cstdint>

#include "server/engine/grammar/grammar_builder.h"

namespace nibble {

// Numbers of rules in one builder.
class JsonGrammarRules {
 public:
  // Draws them all; what no grammar calls costs nothing more.
  explicit JsonGrammarRules(GrammarBuilder& builder);

  int32_t character() const { return character_; }
  int32_t string() const { return string_; }
  int32_t number() const { return number_; }
  int32_t integer() const { return integer_; }
  int32_t array() const { return array_; }
  int32_t object() const { return object_; }
  int32_t value() const { return value_; }

  // White space, or none.
  GrammarNode Space(GrammarBuilder& builder, GrammarNode from) const;

 private:
  int32_t space_;
  int32_t character_;
  int32_t string_;
  int32_t number_;
  int32_t integer_;
  int32_t array_;
  int32_t object_;
  int32_t value_;
};

}  // namespace nibble
