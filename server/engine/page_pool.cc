#include "server/engine/page_pool.h"

#include <algorithm>

#include "kernels/check.h"

namespace nibble {

PagePool::PagePool(int64_t page_count, bool keeps)
    : keeps_(keeps), pages_(static_cast<size_t>(page_count)), available_(page_count) {
  for (int64_t page = page_count; page > 0; --page) {
    free_.push_back(static_cast<int32_t>(page - 1));
  }
}

PagePool::Key PagePool::KeyOf(uint64_t parent, std::span<const int32_t> tokens, size_t index) {
  Key key{parent, {}};
  const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(index * kPageTokens);
  std::copy_n(first, kPageTokens, key.second.begin());
  return key;
}

int32_t PagePool::Take() {
  Check(available_ > 0, "a page is available");
  --available_;
  int32_t page;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else {
    page = unheld_.front();
    unheld_.pop_front();
    texts_.erase(At(page).entry);
    At(page).text = 0;
  }
  At(page).holders = 1;
  return page;
}

PagePool::Beginning PagePool::FindBeginning(std::span<const int32_t> tokens,
                                            const std::function<bool(uint64_t)>& can_go_on) const {
  Beginning beginning;
  size_t length = 0;  // In pages, of the longest after which a sequence can go on.
  uint64_t text = 0;
  for (size_t index = 0; keeps_ && (index + 1) * kPageTokens < tokens.size(); ++index) {
    const auto found = texts_.find(KeyOf(text, tokens, index));
    if (found == texts_.end()) {
      break;
    }
    beginning.pages.push_back(found->second);
    text = At(found->second).text;
    length = can_go_on(text) ? index + 1 : length;
  }
  beginning.pages.resize(length);
  beginning.unheld = std::count_if(beginning.pages.begin(), beginning.pages.end(),
                                   [this](int32_t page) { return At(page).holders == 0; });
  return beginning;
}

void PagePool::Hold(const Beginning& beginning) {
  for (const int32_t page : beginning.pages) {
    Page& held = At(page);
    if (held.holders++ == 0) {
      unheld_.erase(held.place);
      --available_;
    }
  }
}

void PagePool::Fill(std::span<const int32_t> pages, size_t index, std::span<const int32_t> tokens) {
  Page& page = At(pages[index]);
  const uint64_t parent = index == 0 ? 0 : At(pages[index - 1]).text;
  if (!keeps_ || page.text != 0 || (index > 0 && parent == 0)) {
    return;  // Shared already, or behind one that another sequence filled at the same time.
  }
  const auto [entry, added] = texts_.try_emplace(KeyOf(parent, tokens, index), pages[index]);
  if (added) {
    page.entry = entry;
    page.text = next_text_++;
  }
}

void PagePool::GiveBack(std::span<const int32_t> pages) {
  // From the end, so that beginnings are kept longer than what follows them.
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
    Page& held = At(*page);
    Check(held.holders > 0, "a page that is given back is held");
    if (--held.holders > 0) {
      continue;
    }
    ++available_;
    if (held.text == 0) {
      free_.push_back(*page);
    } else {
      held.place = unheld_.insert(unheld_.end(), *page);
    }
  }
}

}  // namespace nibble
