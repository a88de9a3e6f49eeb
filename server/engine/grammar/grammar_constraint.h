// Holds a sequence to a grammar.

#pragma once

#include <memory>

#include "server/engine/generation.h"
#include "server/engine/grammar/grammar.h"
#include "server/engine/grammar/token_vocabulary.h"

namespace nibble {

// A constraint that allows the tokens which keep the text a beginning of what `grammar` describes.
// The end ids are allowed where the text is complete, and then until the sequence ends; they alone
// are, where no token of the vocabulary goes on (a vocabulary that lacks bytes). An id that was not
// allowed leaves only them, too.
//
// Its masks may have more bits than there are tokens; those are 0.
//
// Cost: FillMask copies a mask if the text was in the same situation before, as within a string;
//   else it walks the vocabulary's trie as far as bytes are allowed.
std::unique_ptr<TokenConstraint> MakeConstraint(std::shared_ptr<const Grammar> grammar,
                                                std::shared_ptr<const TokenVocabulary> vocabulary);

}  // namespace nibble
