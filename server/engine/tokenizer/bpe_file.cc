#include "server/engine/tokenizer/bpe_file.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/json_reader.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/tokenizer_limits.h"

namespace nibble {
namespace {

using Kind = JsonReader::Kind;

// The type, which may stand behind the vocabulary whose form depends on it. Old files have none.
absl::StatusOr<std::string> FindType(absl::string_view json) {
  JsonReader reader(json, {.depth_max = kTokenizerFileDepthMax});
  std::string key;
  std::string type;
  bool has_merges = false;
  reader.EnterObject();
  while (reader.NextMember(key)) {
    if (key == "type") {
      reader.ReadString(type);
    } else {
      has_merges |= key == "merges";
      reader.SkipValue();
    }
  }
  if (!reader.status().ok()) {
    return reader.status();
  }
  return type.empty() && has_merges ? "BPE" : type;
}

class BpeParser {
 public:
  explicit BpeParser(absl::string_view json)
      : reader_(json, {.depth_max = kTokenizerFileDepthMax}) {}

  absl::StatusOr<BpeFile> Parse() {
    absl::flat_hash_set<std::string> keys;
    std::string key;
    reader_.EnterObject();
    while (reader_.NextMember(key)) {
      if (!keys.insert(key).second) {
        reader_.Refuse(absl::StrCat("the member ", Printable(key), " stands twice"));
      }
      ParseMember(key);
    }
    reader_.Finish();
    if (!refused_.ok()) {
      return refused_;
    }
    if (!reader_.status().ok()) {
      return reader_.status();
    }
    if (!keys.contains("vocab") || !keys.contains("merges")) {
      return absl::DataLossError("expected vocab and merges");
    }
    return std::move(file_);
  }

 private:
  void ParseMember(absl::string_view key) {
    if (key == "vocab") {
      ParseVocabulary();
    } else if (key == "merges") {
      ParseMerges();
    } else if (key == "unk_token") {
      ParseString(file_.unknown_token);
    } else if (key == "continuing_subword_prefix") {
      ParseString(file_.continuing_subword_prefix);
    } else if (key == "end_of_word_suffix") {
      ParseString(file_.end_of_word_suffix);
    } else if (key == "fuse_unk") {
      ParseBool(file_.fuse_unknown);
    } else if (key == "byte_fallback") {
      ParseBool(file_.byte_fallback);
    } else if (key == "ignore_merges") {
      ParseBool(file_.ignore_merges);
    } else if (key == "dropout") {
      ParseDropout();
    } else {
      reader_.SkipValue();
    }
  }

  bool SkipNull() { return reader_.Peek() == Kind::kNull && reader_.SkipValue(); }

  void ParseString(std::string& value) {
    if (!SkipNull()) {
      reader_.ReadString(value);
    }
  }

  void ParseBool(bool& value) {
    if (!SkipNull()) {
      reader_.ReadBool(value);
    }
  }

  void Stop(absl::Status status) {
    if (refused_.ok()) {
      refused_ = std::move(status);
    }
    reader_.Refuse("refused");
  }

  void ParseDropout() {
    double dropout = 0;
    if (!SkipNull() && reader_.ReadDouble(dropout) && dropout != 0) {
      Stop(absl::UnimplementedError(absl::StrCat("dropout: expected null or 0, found ", dropout)));
    }
  }

  void ParseVocabulary() {
    absl::flat_hash_set<std::string> tokens;
    std::string token;
    uint64_t id = 0;
    reader_.EnterObject();
    while (reader_.NextMember(token) && reader_.ReadUnsigned(id)) {
      if (id >= kTokenIdsMax) {
        reader_.Refuse(absl::StrCat("token ", Printable(token), ": expected an id below ",
                                    kTokenIdsMax, ", found ", id));
      } else if (!tokens.insert(token).second) {
        reader_.Refuse(absl::StrCat("token ", Printable(token), " stands twice in vocab"));
      } else {
        file_.vocabulary.emplace_back(token, static_cast<uint32_t>(id));
      }
    }
  }

  void ParseMerges() {
    reader_.EnterArray();
    while (reader_.NextElement()) {
      if (reader_.Peek() == Kind::kArray) {
        ParseMergePair();
      } else {
        ParseMergeLine();
      }
      if (file_.merges.size() > kMergesMax) {
        Stop(
            absl::ResourceExhaustedError(absl::StrCat("expected at most ", kMergesMax, " merges")));
      }
    }
  }

  void ParseMergePair() {
    std::string left;
    std::string right;
    reader_.EnterArray();
    const bool read = reader_.NextElement() && reader_.ReadString(left) && reader_.NextElement() &&
                      reader_.ReadString(right);
    if (!read || reader_.NextElement()) {
      reader_.Refuse("expected a merge of two strings");
    }
    file_.merges.emplace_back(std::move(left), std::move(right));
  }

  void ParseMergeLine() {
    std::string line;
    if (!reader_.ReadString(line) || absl::StartsWith(line, "#version")) {
      return;
    }
    const size_t space = line.find(' ');
    if (space == line.npos || line.find(' ', space + 1) != line.npos) {
      reader_.Refuse(absl::StrCat("expected a merge with one space, found ", Printable(line)));
      return;
    }
    file_.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }

  JsonReader reader_;
  BpeFile file_;
  absl::Status refused_;
};

}  // namespace

absl::StatusOr<BpeFile> ParseBpeFile(absl::string_view json) {
  const auto type = FindType(json);
  if (!type.ok()) {
    return type.status();
  }
  if (*type != "BPE") {
    return absl::UnimplementedError(absl::StrCat("type ", Printable(*type), ": expected \"BPE\""));
  }
  return BpeParser(json).Parse();
}

}  // namespace nibble
