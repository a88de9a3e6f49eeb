// Where names have their values.

#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/chat/value.h"

namespace nibble::jinja {

// The variables of a block, and the block around it.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<absl::string_view, Value>> variables;  // Names live in the tree.
  Charge charge;

  void Set(absl::string_view name, Value value) {
    for (auto& [known, place] : variables) {
      if (known == name) {
        place = std::move(value);
        return;
      }
    }
    charge.Add(sizeof(variables[0]));
    variables.emplace_back(name, std::move(value));
  }
};

inline std::shared_ptr<Scope> MakeScope(Run& run, std::shared_ptr<Scope> parent) {
  constexpr int64_t kScopeBytes = 128;  // With its control block and a variable or two.
  run.MayMake(kScopeBytes);
  // Not make_shared: a loop that outlives its scope would hold all of the memory.
  return std::shared_ptr<Scope>(new Scope{std::move(parent), {}, Charge(&run, kScopeBytes)});
}

// Lets a new scope be the one at work (`current`) for as long as the guard lives.
class ScopeGuard {
 public:
  ScopeGuard(Run& run, std::shared_ptr<Scope>& current, std::shared_ptr<Scope> parent)
      : current_(current), outer_(std::exchange(current, MakeScope(run, std::move(parent)))) {}
  ~ScopeGuard() { current_ = std::move(outer_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  std::shared_ptr<Scope>& current_;
  std::shared_ptr<Scope> outer_;
};

}  // namespace nibble::jinja
