#include "server/engine/tokenizer/bpe_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

constexpr size_t kShortCodes = 0x800;  // Characters of one or two bytes of UTF-8.

}  // namespace

absl::StatusOr<BpeModel> BpeModel::Create(BpeFile file) {
  BpeModel model;
  uint32_t ids_end = 0;
  for (const auto& [token, id] : file.vocabulary) {
    ids_end = std::max(ids_end, id + 1);
  }
  model.tokens_.resize(ids_end);
  model.is_token_.resize(ids_end);
  model.ids_.reserve(file.vocabulary.size());
  for (auto& [token, id] : file.vocabulary) {
    if (model.is_token_[id]) {
      return absl::DataLossError(absl::StrCat("vocab: expected one token with id ", id, ", found ",
                                              Printable(model.tokens_[id]), " and ",
                                              Printable(token)));
    }
    model.is_token_[id] = true;
    model.tokens_[id] = token;
    model.ids_.emplace(std::move(token), id);
  }
  if (absl::Status status = model.AddMerges(file); !status.ok()) {
    return status;
  }
  file.vocabulary = {};
  file.merges = {};
  model.options_ = std::move(file);
  model.unknown_id_ = model.IdOf(model.options_.unknown_token);
  model.FillShortcuts();
  return model;
}

absl::Status BpeModel::AddMerges(const BpeFile& file) {
  merges_.reserve(file.merges.size());
  const size_t prefix_bytes = file.continuing_subword_prefix.size();
  uint32_t rank = 0;
  for (const auto& [left, right] : file.merges) {
    if (right.size() < prefix_bytes) {
      return absl::DataLossError(absl::StrCat("merge ", rank, ": expected ", Printable(right),
                                              " to begin with continuing_subword_prefix"));
    }
    const std::string merged = absl::StrCat(left, absl::string_view(right).substr(prefix_bytes));
    const auto left_id = IdOf(left);
    const auto right_id = IdOf(right);
    const auto merged_id = IdOf(merged);
    if (!left_id.has_value() || !right_id.has_value() || !merged_id.has_value()) {
      return absl::DataLossError(absl::StrCat("merge ", rank, ": expected a token of vocab, found ",
                                              Printable(!left_id.has_value()    ? left
                                                        : !right_id.has_value() ? right
                                                                                : merged)));
    }
    // Of a pair that stands twice the later rank counts, as in the library.
    merges_[PairKey(*left_id, *right_id)] = {.rank = rank, .id = *merged_id};
    ++rank;
  }
  return absl::OkStatus();
}

void BpeModel::FillShortcuts() {
  const auto find = [this](absl::string_view token) -> int64_t {
    const auto id = IdOf(token);
    return id.has_value() ? static_cast<int64_t>(*id) : -1;
  };
  short_ids_.resize(kShortCodes);
  for (uint32_t code = 0; code < kShortCodes; ++code) {
    std::string character;
    AppendUtf8(code, character);
    short_ids_[code] = find(character);
  }
  for (uint32_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = find(absl::StrFormat("<0x%02X>", byte));
  }
}

std::optional<uint32_t> BpeModel::IdOf(absl::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const std::string* BpeModel::TokenOf(uint32_t id) const {
  return id < tokens_.size() && is_token_[id] ? &tokens_[id] : nullptr;
}

absl::Status BpeModel::Encode(absl::string_view piece, const std::vector<bool>& reserved,
                              BpeScratch& scratch, std::vector<uint32_t>& ids) const {
  if (options_.ignore_merges) {
    const auto whole = IdOf(piece);
    if (whole.has_value() && (reserved.empty() || !reserved[*whole])) {
      ids.push_back(*whole);
      return absl::OkStatus();
    }
  }
  scratch.Clear();
  absl::Status status = SplitIntoCharacters(piece, scratch);
  if (status.ok()) {
    scratch.Merge(merges_, reserved);
    scratch.AppendTo(ids);
  }
  return status;
}

std::optional<uint32_t> BpeModel::IdOfCharacter(absl::string_view character) const {
  const uint32_t code = CodeAt(character, 0);
  if (code < kShortCodes && character.size() == Utf8Length(character[0])) {
    const int64_t id = short_ids_[code];
    return id < 0 ? std::nullopt : std::optional(static_cast<uint32_t>(id));
  }
  return IdOf(character);
}

// Adds the byte tokens of `character` if it has all of them.
bool BpeModel::AppendBytes(absl::string_view character, BpeScratch& scratch) const {
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!std::all_of(character.begin(), character.end(),
                   [&](char byte) { return id_of(byte) >= 0; })) {
    return false;
  }
  for (const char byte : character) {
    scratch.Add(static_cast<uint32_t>(id_of(byte)));
  }
  return true;
}

absl::Status BpeModel::SplitIntoCharacters(absl::string_view piece, BpeScratch& scratch) const {
  const bool decorated =
      !options_.continuing_subword_prefix.empty() || !options_.end_of_word_suffix.empty();
  bool unknown_waits = false;  // So that the next unknown can be fused with it.
  std::string decorated_character;
  for (size_t position = 0; position < piece.size();) {
    const size_t begin = position;
    position += Utf8Length(piece[begin]);
    absl::string_view character = piece.substr(begin, position - begin);
    if (decorated) {
      decorated_character = absl::StrCat(
          begin > 0 ? absl::string_view(options_.continuing_subword_prefix) : "", character,
          position == piece.size() ? absl::string_view(options_.end_of_word_suffix) : "");
      character = decorated_character;
    }
    if (const auto id = IdOfCharacter(character); id.has_value()) {
      if (unknown_waits) {
        scratch.Add(*unknown_id_);
        unknown_waits = false;
      }
      scratch.Add(*id);
      continue;
    }
    // Bytes go before an unknown that waits, as in the library.
    if (options_.byte_fallback && AppendBytes(character, scratch)) {
      continue;
    }
    if (options_.unknown_token.empty()) {
      continue;
    }
    if (!unknown_id_.has_value()) {
      return absl::DataLossError(absl::StrCat("unk_token: expected a token of vocab, found ",
                                              Printable(options_.unknown_token)));
    }
    if (unknown_waits && !options_.fuse_unknown) {
      scratch.Add(*unknown_id_);
    }
    unknown_waits = true;
  }
  if (unknown_waits) {
    scratch.Add(*unknown_id_);
  }
  return absl::OkStatus();
}

}  // namespace nibble
