#include "server/engine/grammar/grammar_constraint.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/engine/grammar/grammar_run.h"

namespace nibble {
namespace {

// Masks that a sequence keeps. Guess: strings of a schema take two each. 19 KB a mask at 150,000
// tokens.
constexpr size_t kMasksMax = 128;

void SetBit(std::vector<uint32_t>& mask, int32_t id) {
  mask[static_cast<size_t>(id) / 32] |= 1u << (id % 32);
}

class GrammarConstraint : public TokenConstraint {
 public:
  GrammarConstraint(std::shared_ptr<const Grammar> grammar,
                    std::shared_ptr<const TokenVocabulary> vocabulary)
      : grammar_(std::move(grammar)),
        vocabulary_(std::move(vocabulary)),
        run_(*grammar_),
        situation_(run_.start()),
        path_(TokenVocabulary::kTokenBytesMax + 1) {}

  void FillMask(std::span<uint32_t> mask) override {
    const std::vector<uint32_t>& allowed = MaskOf(situation_);
    const size_t words = std::min(mask.size(), allowed.size());
    std::copy_n(allowed.begin(), words, mask.begin());
    std::fill(mask.begin() + static_cast<int64_t>(words), mask.end(), 0);
  }

  void Accept(int32_t id) override {
    if (situation_ == GrammarRun::kDead || vocabulary_->IsEnd(id)) {
      return;
    }
    if (id < 0 || id >= vocabulary_->size() || vocabulary_->bytes(id).empty()) {
      situation_ = GrammarRun::kDead;
      return;
    }
    if (run_.IsFull()) {
      situation_ = run_.Forget(situation_);
      masks_.clear();
    }
    for (const char c : vocabulary_->bytes(id)) {
      situation_ = run_.Step(situation_, static_cast<uint8_t>(c));
      if (situation_ == GrammarRun::kDead) {
        return;
      }
    }
  }

 private:
  const std::vector<uint32_t>& MaskOf(int32_t situation) {
    if (const auto found = masks_.find(situation); found != masks_.end()) {
      return found->second;
    }
    if (masks_.size() >= kMasksMax) {
      masks_.clear();
    }
    std::vector<uint32_t>& mask = masks_[situation];
    mask.assign(static_cast<size_t>(vocabulary_->size() + 31) / 32, 0);
    const bool is_dead = situation == GrammarRun::kDead;
    const bool has_token = !is_dead && Walk(situation, mask);
    if (is_dead || !has_token || run_.IsComplete(situation)) {
      for (const int32_t id : vocabulary_->end_ids()) {
        SetBit(mask, id);
      }
    }
    return mask;
  }

  // Sets the bits of the tokens whose bytes are allowed. Returns whether there are any.
  bool Walk(int32_t situation, std::vector<uint32_t>& mask) {
    const std::span<const TokenVocabulary::Node> nodes = vocabulary_->nodes();
    const std::span<const int32_t> ids = vocabulary_->sorted_ids();
    path_[0] = situation;
    bool has_token = false;
    for (size_t i = 0; i + 1 < nodes.size();) {
      const TokenVocabulary::Node& node = nodes[i];
      const int32_t next = run_.Step(path_[node.depth - size_t{1}], node.byte);
      if (next == GrammarRun::kDead) {
        i = static_cast<size_t>(node.subtree_end);
        continue;
      }
      path_[node.depth] = next;
      ++i;
      for (int32_t k = node.tokens_begin; k < nodes[i].tokens_begin; ++k) {
        SetBit(mask, ids[static_cast<size_t>(k)]);
        has_token = true;
      }
    }
    return has_token;
  }

  const std::shared_ptr<const Grammar> grammar_;
  const std::shared_ptr<const TokenVocabulary> vocabulary_;
  GrammarRun run_;
  int32_t situation_;
  std::vector<int32_t> path_;  // The situation at each depth of the walk.
  absl::flat_hash_map<int32_t, std::vector<uint32_t>> masks_;  // By situation.
};

}  // namespace

std::unique_ptr<TokenConstraint> MakeConstraint(std::shared_ptr<const Grammar> grammar,
                                                std::shared_ptr<const TokenVocabulary> vocabulary) {
  return std::make_unique<GrammarConstraint>(std::move(grammar), std::move(vocabulary));
}

}  // namespace nibble
