// The pages of a KV cache: who holds them, and which of them hold the beginning of a text that may
// come again.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "server/engine/serving_sizes.h"

namespace nibble {

// A full page never changes, so sequences that begin alike share it. Pages that nobody holds are
// kept for that until they are needed, the one that was given back longest ago going first.
//
// Belongs to one thread.
class PagePool {
 public:
  // `keeps` false: nothing is shared (a model whose state is not in pages).
  PagePool(int64_t page_count, bool keeps);

  // Pages that Take() can give.
  int64_t available() const { return available_; }
  int64_t page_count() const { return std::ssize(pages_); }

  // Requires: available() > 0.
  int32_t Take();

  // Kept pages that hold a beginning of a text.
  struct Beginning {
    std::vector<int32_t> pages;
    int64_t unheld = 0;  // Of them, by nobody.
  };

  // The longest beginning of `tokens` that is kept, at most all but the last token of it, and after
  // whose text `can_go_on` says that a sequence can go on.
  Beginning FindBeginning(std::span<const int32_t> tokens,
                          const std::function<bool(uint64_t text)>& can_go_on) const;

  // Holds what FindBeginning has just found.
  void Hold(const Beginning& beginning);

  // Names what the page and all before it hold, once and for all; 0: it is not shared.
  uint64_t text(int32_t page) const { return At(page).text; }

  // A sequence's page number `index` now holds all of its tokens: it can be shared. `pages` are the
  // sequence's.
  void Fill(std::span<const int32_t> pages, size_t index, std::span<const int32_t> tokens);

  // Gives a sequence's pages back.
  void GiveBack(std::span<const int32_t> pages);

 private:
  using PageTokens = std::array<int32_t, kPageTokens>;
  // A page's text is its own tokens behind its parent's text.
  using Key = std::pair<uint64_t, PageTokens>;

  struct Page {
    int64_t holders = 0;
    uint64_t text = 0;
    std::map<Key, int32_t>::iterator entry;  // If text is not 0.
    std::list<int32_t>::iterator place;      // In unheld_, if it has a text and no holder.
  };

  Page& At(int32_t page) { return pages_[static_cast<size_t>(page)]; }
  const Page& At(int32_t page) const { return pages_[static_cast<size_t>(page)]; }
  static Key KeyOf(uint64_t parent, std::span<const int32_t> tokens, size_t index);

  const bool keeps_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  std::list<int32_t> unheld_;  // Kept, oldest first.
  std::map<Key, int32_t> texts_;
  uint64_t next_text_ = 1;
  int64_t available_ = 0;
};

}  // namespace nibble
