#include "server/engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/tokenizer_limits.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

absl::StatusOr<AddedToken> ParseToken(const JsonTree& tree) {
  AddedToken token;
  auto content = tree.StringMember("content");
  if (!content.ok()) {
    return content.status();
  }
  token.content = *std::move(content);
  if (token.content.size() > kAddedTokenBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "content: expected at most ", kAddedTokenBytesMax, " bytes, found ", token.content.size()));
  }
  const std::pair<absl::string_view, bool*> flags[] = {
      {"single_word", &token.single_word}, {"lstrip", &token.strips_left},
      {"rstrip", &token.strips_right},     {"normalized", &token.normalized},
      {"special", &token.special},
  };
  for (const auto& [name, flag] : flags) {
    const auto value = tree.BoolMember(name);
    if (!value.ok()) {
      return value.status();
    }
    *flag = *value;
  }
  return token;
}

// Whether [begin, end) neither continues a word nor is continued by one.
bool StandsAlone(absl::string_view text, size_t begin, size_t end) {
  const bool after_word = begin > 0 && IsWordCharacter(CodeAt(text, PreviousPosition(text, begin)));
  const bool before_word = end < text.size() && IsWordCharacter(CodeAt(text, end));
  return !after_word && !before_word;
}

// Where the white space before `begin` starts, not before `first`.
size_t SkipSpaceLeft(absl::string_view text, size_t begin, size_t first) {
  while (begin > first) {
    const size_t previous = PreviousPosition(text, begin);
    if (!IsWhiteSpace(CodeAt(text, previous))) {
      break;
    }
    begin = previous;
  }
  return begin;
}

size_t SkipSpaceRight(absl::string_view text, size_t end) {
  while (end < text.size() && IsWhiteSpace(CodeAt(text, end))) {
    end += Utf8Length(text[end]);
  }
  return end;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Parse(const JsonTree* tree, const BpeModel& model,
                                               const Normalizer& normalizer) {
  AddedTokens added;
  if (tree == nullptr || tree->is_null()) {
    return added;
  }
  if (tree->kind != JsonReader::Kind::kArray) {
    return absl::DataLossError("expected an array");
  }
  if (tree->elements.size() > kAddedTokensMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("expected at most ", kAddedTokensMax, ", found ", tree->elements.size()));
  }
  std::vector<AddedToken> tokens;
  for (const JsonTree& element : tree->elements) {
    auto token = ParseToken(element);
    if (!token.ok()) {
      return absl::Status(token.status().code(), absl::StrCat("the one of index ", tokens.size(),
                                                              ": ", token.status().message()));
    }
    tokens.push_back(*std::move(token));
  }
  for (const AddedToken& token : tokens) {
    if (token.special) {
      added.specials_.insert(token.content);
    }
  }
  for (const AddedToken& token : tokens) {
    if (absl::Status status = added.Add(token, model); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = added.FillTries(tokens, normalizer); !status.ok()) {
    return status;
  }
  return added;
}

absl::Status AddedTokens::Add(AddedToken token, const BpeModel& model) {
  if (token.content.empty()) {
    return absl::OkStatus();
  }
  const auto model_size = static_cast<uint32_t>(model.token_count());
  auto id = IdOf(token.content);
  if (!id.has_value()) {
    id = model.IdOf(token.content);
  }
  if (!id.has_value()) {
    id = std::max(model_size, ids_end_);
  }
  if (*id >= kTokenIdsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("token ", Printable(token.content), ": expected an id below ", kTokenIdsMax));
  }
  ids_end_ = std::max(ids_end_, *id + 1);
  ids_[token.content] = *id;
  tokens_[*id] = std::move(token);
  return absl::OkStatus();
}

// Special tokens first: of two that become the same text the first counts.
absl::Status AddedTokens::FillTries(const std::vector<AddedToken>& tokens,
                                    const Normalizer& normalizer) {
  RegexScratch scratch;
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokens) {
      const uint32_t id = token.content.empty() ? 0 : ids_.at(token.content);
      // Of one that stands twice the last counts, and then once.
      if (token.content.empty() || IsSpecial(token.content) != special || tokens_.at(id) != token ||
          texts_.contains(id)) {
        continue;
      }
      if (!token.normalized) {
        raw_.Add(token.content, id);
        texts_[id] = token.content;
        continue;
      }
      auto content = normalizer.Apply(token.content, scratch);
      if (!content.ok()) {
        return content.status();
      }
      if (content->text.size() > kAddedTokenBytesMax) {
        return absl::ResourceExhaustedError(absl::StrCat("token ", Printable(token.content),
                                                         ": expected at most ", kAddedTokenBytesMax,
                                                         " bytes when normalized"));
      }
      if (!content->text.empty()) {
        normalized_.Add(content->text, id);
      }
      texts_[id] = std::move(content->text);
    }
  }
  return absl::OkStatus();
}

void AddedTokens::Split(absl::string_view text, Pass pass, bool parse_special,
                        std::vector<TextSegment>& segments) const {
  const ByteTrie& trie = pass == Pass::kRaw ? raw_ : normalized_;
  size_t text_begin = 0;  // Of what is not yet in a segment.
  Span spaces;            // The white space that was last walked, so that none is walked twice.
  for (size_t position = 0; position < text.size();) {
    ByteTrie::Match match;
    if (!trie.FindLongest(text, position, match)) {
      ++position;
      continue;
    }
    size_t begin = position;
    size_t end = position + match.bytes;
    position = end;
    const auto id = static_cast<uint32_t>(match.value);
    const AddedToken& token = tokens_.at(id);
    if (!parse_special && IsSpecial(token.content)) {
      continue;
    }
    if (token.single_word && !StandsAlone(text, begin, end)) {
      continue;
    }
    if (token.strips_left) {
      // White space that the token before took along is not there for this one.
      begin = std::max(SkipSpaceLeft(text, begin, std::min(text_begin, begin)), text_begin);
    }
    if (token.strips_right) {
      if (end < spaces.begin || end > spaces.end) {
        spaces = {.begin = end, .end = SkipSpaceRight(text, end)};
      }
      end = spaces.end;
    }
    if (text_begin < begin) {
      segments.push_back({.span = {text_begin, begin}});
    }
    // A token of white space may find that nothing is left of it.
    if (begin < end) {
      segments.push_back({.span = {begin, end}, .id = id});
    }
    text_begin = end;
  }
  if (text_begin < text.size()) {
    segments.push_back({.span = {text_begin, text.size()}});
  }
}

std::optional<uint32_t> AddedTokens::IdOf(absl::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* AddedTokens::TextOf(uint32_t id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? nullptr : &found->second;
}

bool AddedTokens::IsSpecial(uint32_t id) const {
  const auto found = tokens_.find(id);
  return found != tokens_.end() && IsSpecial(found->second.content);
}

}  // namespace nibble
